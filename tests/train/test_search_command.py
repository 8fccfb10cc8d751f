"""`alignment search` on tiny runs: a policy, a reward model, and rows with answers."""

import json
from pathlib import Path

import pytest
import study as written

from alignment.cli import main

RECIPE = """stage: evaluate
model:
  path: runs/study/sft/final
chat:
  template: chatml
data:
  max_length: 64
  eval:
    - path: asked.jsonl
      format: prompt_completion
evaluate:
  max_new_tokens: 6
  metrics:
    - stops
"""
ASKED = [
    {"prompt": "Where is Arda?", "completion": "In the north.", "answer": "In the north."},
    {"prompt": "Where is Belo?", "completion": "In the south.", "answer": "In the south."},
    {"prompt": "Is Cira far?", "completion": "No.", "answer": "No."},
]


@pytest.fixture
def asked(study: Path) -> Path:
    written.write_recipe(study, "search", RECIPE)
    write_rows(study, ASKED)
    return study


def write_rows(study: Path, rows: list[dict]) -> None:
    (study / "study/asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def search(*further: str) -> int:
    return main(["search", "study/search.yaml", "--num_samples", "3", *further])


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_reward_model_chooses_and_everything_is_written(asked: Path, capsys: pytest.CaptureFixture) -> None:
    written.write_recipe(
        asked, "reward", written.PAIRS.format(stage="reward", start="runs/study/sft/final", lora="", steps=2)
    )
    assert written.run("reward") == 0
    capsys.readouterr()
    write_rows(asked, [row | {"answer": "e"} for row in ASKED])
    assert search("--reward_model", "runs/study/reward", "--value", "contains_answer", "--temperature", "1.5") == 0
    folder = asked / "runs/study/search-search"
    said = capsys.readouterr().out
    results = written.read_json(folder / "results.json")
    assert [(point["method"], point["n"]) for point in results["points"]] == [
        (name, n) for name in ("best_of_n", "weighted", "majority", "likeliest", "coverage") for n in (1, 2, 3)
    ]
    rows = read_rows(folder)
    assert [row["columns"]["prompt"] for row in rows] == [row["prompt"] for row in ASKED]
    assert all(len(row["sampled"]) == 3 for row in rows)
    sampled = [one for row in rows for one in row["sampled"]]
    assert all({"text", "score", "logp", "tokens"} <= set(one) for one in sampled)
    assert {one["value"] for one in sampled} == {0.0, 1.0}
    # What the table says follows from the completions beside it: the best scored of all three, prompt by prompt.
    best = [max(row["sampled"], key=lambda one: one["score"])["value"] for row in rows]
    at_three = next(one for one in results["points"] if (one["method"], one["n"]) == ("best_of_n", 3))
    assert at_three["value"]["value"] == pytest.approx(sum(best) / len(best))
    assert at_three["tokens"] == pytest.approx(sum(one["tokens"] for one in sampled) / len(rows))
    assert f"best_of_n@3 {at_three['value']['value']:>13.4f}".split() == next(
        line.split()[:2] for line in said.splitlines() if line.startswith("best_of_n@3")
    )
    receipt = written.read_json(folder / "receipt.json")
    assert receipt["stage"] == "search"
    assert receipt["metrics"]["best_of_n@3"] == pytest.approx(at_three["value"]["value"])
    assert {parent["kind"]: "receipt_hash" in parent for parent in receipt["parents"]} == {
        "model": True,
        "reward model": True,
    }
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "best_of_n@3" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_same_search_gives_the_same_completions(asked: Path) -> None:
    assert search("--out", "one") == 0
    assert search("--out", "two") == 0
    assert read_rows(asked / "one") == read_rows(asked / "two")
    methods = {point["method"] for point in written.read_json(asked / "one/results.json")["points"]}
    assert methods == {"majority", "likeliest", "coverage"}  # without a reward model


def test_what_is_there_is_kept(asked: Path, capsys: pytest.CaptureFixture) -> None:
    assert search("--out", "one", "--method", "majority") == 0
    assert search("--out", "one") == 2
    assert "--fresh" in capsys.readouterr().err
    assert {point["method"] for point in written.read_json(asked / "one/results.json")["points"]} == {"majority"}
    assert search("--out", "one", "--fresh", "--method", "coverage") == 0
    assert {point["method"] for point in written.read_json(asked / "one/results.json")["points"]} == {"coverage"}
    assert search("--out", "study", "--fresh") == 2  # not a search's folder
    assert (asked / "study/search.yaml").exists()


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (("--num_samples", "0"), "--num_samples: 0; at least 1"),
        (("--temperature", "0"), "--temperature: 0.0; above 0"),
        (("--value", "exactmatch"), "no scorer 'exactmatch'. Known: exact_match"),
        (("--method", "best"), "no method 'best'. Known: best_of_n"),
        (("--method", "weighted"), "Add --reward_model RUN"),
        (("--set", "evaluate.max_new_token=3"), "max_new_tokens"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_loads(
    asked: Path, capsys: pytest.CaptureFixture, further: tuple[str, ...], said: str
) -> None:
    assert search(*further) == 2
    assert said in capsys.readouterr().err
    assert not (asked / "runs/study/search-search").exists()


def test_another_stage_is_refused(asked: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["search", "study/sft.yaml"]) == 2
    assert "stage sft; evaluate was expected" in capsys.readouterr().err


def test_rows_without_the_column_are_refused(asked: Path, capsys: pytest.CaptureFixture) -> None:
    write_rows(asked, [{name: cell for name, cell in row.items() if name != "answer"} for row in ASKED])
    assert search() == 3
    assert "3 of 3 rows have no column 'answer'" in capsys.readouterr().err


def test_a_policy_is_no_reward_model(asked: Path, capsys: pytest.CaptureFixture) -> None:
    assert search("--reward_model", "runs/study/sft") == 7
    assert "no trained score head" in capsys.readouterr().err


def test_a_reward_model_is_no_policy(asked: Path, capsys: pytest.CaptureFixture) -> None:
    config = asked / "runs/study/sft/final/config.json"
    named = written.read_json(config) | {"architectures": ["LlamaForSequenceClassification"]}
    config.write_text(json.dumps(named), encoding="utf-8")
    assert search() == 2
    assert "is a reward model, which generates nothing" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_generated(
    asked: Path, capsys: pytest.CaptureFixture
) -> None:
    (asked / "file").write_text("")
    assert search("--out", "file/out") == 5
    assert "cannot be made (Not a directory)" in capsys.readouterr().err
