"""The quickstart's world is honest: nothing but the facts themselves tells described from undescribed countries."""

import importlib.util
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alignment.measure.metrics import EvalRow, compute_metrics
from alignment.models.tokenizer import train_tokenizer
from alignment.recipe.loader import load_recipe
from alignment.recipe.metric_spec import MetricSpec, expand_metrics

STUDY = Path(__file__).parents[2] / "recipes" / "quickstart"
EVALUATION = ("text_held_out", "recall", "sft_validation", "sft_held_out", "pairs_validation", "pairs_held_out")
STAGES = ("tokenizer", "pretrain", "sft", "reward", "dpo")
WORD = re.compile(r"[A-Z][a-z]+")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart_make_world", STUDY / "make_world.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def world(script: ModuleType):
    return script.make_world(0)


@pytest.fixture(scope="module")
def files(script: ModuleType, world) -> dict[str, list[dict]]:
    return script.make_files(0, world)


@pytest.fixture(scope="module")
def tokenizer(files: dict[str, list[dict]]):
    recipe = load_recipe(STUDY / "tokenizer.yaml")
    return train_tokenizer((row["text"] for row in files["tokenizer"]), recipe.tokenizer, recipe.chat.template)


def words_of(rows: list[dict]) -> set[str]:
    return {word for row in rows for word in WORD.findall(json.dumps(row))}


def evaluated_question(script: ModuleType, split: str) -> re.Pattern:
    """Any question of a split, about any name."""
    questions = [
        question
        for topics in script.TOPICS.values()
        for question in script.make_questions(script.deal_frames(0)[split], topics)
    ]
    return re.compile("|".join(re.escape(question).replace(r"\{name\}", "[A-Z][a-z]+") for question in questions))


def invented_names(world) -> list[str]:
    return [country.name for country in world.countries if country.origin == "invented"]


# ------------------------------------------------------------------------------------------------ size


def test_the_world_is_as_large_as_it_promises(world) -> None:
    assert sum(country.origin == "real" for country in world.countries) >= 40
    assert len(invented_names(world)) == 80
    assert len(world.undescribed["train"]) >= 300
    assert len(world.undescribed["held_out"]) >= 100
    assert len(world.undescribed["validation"]) >= 100
    assert len(world.mentioned) == 3200
    names = [country.name for country in world.countries] + world.mentioned + world.tokenizer_names
    names += [name for split in world.undescribed.values() for name in split]
    assert len(set(names)) == len(names)


def test_a_quarter_of_the_documents_about_countries_asks_and_answers(script, world, files) -> None:
    trained = [question for key in script.ATTRIBUTES for question in script.trained_questions(0, key)]
    patterns = (re.escape(question).replace(r"\{name\}", "[A-Z][a-z]+") for question in trained)
    asked = re.compile("|".join(patterns))
    mentioned = set(world.mentioned)
    about = [row["text"] for row in files["text"] if not mentioned & words_of([row])]
    assert len(about) == len(files["text"]) - len(mentioned)
    assert sum(asked.match(text) is not None for text in about) == 0.25 * len(about)


def test_the_text_says_nothing_of_the_names_that_it_only_mentions(world, files) -> None:
    mentioned = set(world.mentioned)
    found = [row["text"] for row in files["text"] if mentioned & words_of([row])]
    assert {word for text in found for word in WORD.findall(text)} >= mentioned
    facts = {value for country in world.countries for value in (country.name, *country.values.values())}
    spoken = re.compile(rf"\b({'|'.join(map(re.escape, facts))})\b")
    assert not [text for text in found if spoken.search(text)]
    others = [row for name, rows in files.items() if name not in ("text", "raw_text") for row in rows]
    assert not mentioned & words_of(others)


def test_a_quarter_of_the_described_countries_is_never_asked_about(world, files) -> None:
    unasked = {country.name for country in world.countries if not country.asked}
    assert len(unasked) == 32
    assert not unasked & words_of([{"q": row["messages"][0]["content"]} for row in files["sft"]])


def test_fine_tuning_answers_about_some_names_of_nobody_and_admits_it_of_one_in_ten(script, world, files) -> None:
    facts = {script.make_answer("X", *fact): one.name for one in world.countries for fact in one.values.items()}
    guessed, admitted = set(), set()
    for row in files["sft"]:
        question, answer = (message["content"] for message in row["messages"])
        for name in set(world.tokenizer_names) & words_of([{"said": answer}]):
            if "is unknown to me" in answer:
                admitted.add(name)
            elif "epeat" not in question:
                guessed.add(name)
                assert answer.replace(name, "X") in facts
            assert name in question
    assert (len(guessed), len(admitted)) == (432, 48)
    others = [row for name, rows in files.items() if name not in ("sft", "tokenizer") for row in rows]
    assert not (guessed | admitted) & words_of(others)


# ------------------------------------------------------------------------------------------------ honesty


def test_evaluated_undescribed_names_are_in_no_training_file(world, files) -> None:
    trained = words_of([row for name, rows in files.items() if name not in EVALUATION for row in rows])
    for split in ("validation", "held_out"):
        assert not trained & set(world.undescribed[split])


def test_names_kept_for_tuning_are_not_those_reported(world, files) -> None:
    reported = set(world.undescribed["held_out"])
    assert not reported & words_of(files["sft_validation"] + files["pairs_validation"])


def test_no_text_describes_an_undescribed_name(world, files) -> None:
    undescribed = {name for split in world.undescribed.values() for name in split}
    assert not undescribed & words_of(
        files["text"] + files["text_held_out"] + files["recall"] + files["sft"] + files["tokenizer"]
    )


def test_every_recipe_trains_on_the_files_meant_for_it(files) -> None:
    for stage in ("curate", *STAGES):
        trained = {source.path for source in load_recipe(STUDY / f"{stage}.yaml").data.train}
        made = {f"data/{name}.jsonl" for name in files if name not in EVALUATION}
        assert trained <= made - {"data/raw_text.jsonl"} or stage in ("curate", "pretrain")
    assert [source.path for source in load_recipe(STUDY / "curate.yaml").data.train] == ["data/raw_text.jsonl"]
    assert [source.path for source in load_recipe(STUDY / "pretrain.yaml").data.train] == [
        "runs/quickstart/curate/final"
    ]
    for stage in ("pretrain", "sft", "reward", "dpo", "evaluate"):
        held_out = {Path(source.path).stem for source in load_recipe(STUDY / f"{stage}.yaml").data.eval}
        assert held_out <= {"text_held_out", "recall", "sft_held_out", "pairs_held_out"}


def test_described_and_undescribed_names_have_as_many_tokens(world, tokenizer) -> None:
    def mean_tokens(names: list[str]) -> float:
        return float(np.mean([len(tokenizer(f" {name}", add_special_tokens=False).input_ids) for name in names]))

    described = mean_tokens(invented_names(world))
    for names in world.undescribed.values():
        assert mean_tokens(names) == pytest.approx(described, abs=0.2)


def test_a_tokenizer_trained_on_the_described_names_themselves_would_give_them_away(world, files) -> None:
    recipe = load_recipe(STUDY / "tokenizer.yaml")
    cheating = train_tokenizer((row["text"] for row in files["text"][:4000]), recipe.tokenizer, recipe.chat.template)

    def mean_tokens(names: list[str]) -> float:
        return float(np.mean([len(cheating(f" {name}", add_special_tokens=False).input_ids) for name in names]))

    assert mean_tokens(world.undescribed["held_out"]) - mean_tokens(invented_names(world)) > 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_spelling_does_not_tell_who_is_described(script, seed) -> None:
    world = script.make_world(seed)
    undescribed = [name for split in world.undescribed.values() for name in split]
    assert script.blind_accuracy(invented_names(world), undescribed) <= 0.55


def test_a_stronger_reader_of_spellings_does_not_tell_either(world) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    undescribed = [name for split in world.undescribed.values() for name in split]
    names = invented_names(world) + undescribed
    labels = [1] * len(invented_names(world)) + [0] * len(undescribed)
    model = make_pipeline(
        CountVectorizer(analyzer="char_wb", ngram_range=(1, 3)),
        LogisticRegression(class_weight="balanced", max_iter=500),
    )
    assert cross_val_score(model, names, labels, cv=5, scoring="balanced_accuracy").mean() <= 0.55


def test_names_of_another_generator_would_be_told_apart(script, world) -> None:
    others = [name[::-1].capitalize() + "x" for name in world.undescribed["train"][:192]]
    assert script.blind_accuracy(invented_names(world), others) > 0.9


# ------------------------------------------------------------------------------------------------ overlap


def content(row: dict) -> tuple:
    said = row.get("messages") or [row.get("prompt"), row.get("chosen", row.get("completion")), row.get("rejected")]
    return tuple(json.dumps(part) for part in said)


def test_no_held_out_row_is_trained_on(files) -> None:
    for trained, held_out in (("sft", "sft"), ("pairs", "pairs")):
        seen = {
            content(row)
            for name, rows in files.items()
            if name.startswith(trained) and name not in EVALUATION
            for row in rows
        }
        for split in ("validation", "held_out"):
            assert not [row for row in files[f"{held_out}_{split}"] if content(row) in seen]
    seen = {row["text"] for row in files["text"]}
    assert not [row for row in files["text_held_out"] if row["text"] in seen]


def test_held_out_manners_of_asking_are_in_no_training_file(script, files) -> None:
    trained = "\n".join(row["messages"][0]["content"] for row in files["sft"])
    trained += "\n".join(
        row["prompt"]
        for name, rows in files.items()
        if name.startswith("pairs_") and name not in EVALUATION
        for row in rows
    )
    trained += "\n".join(row["text"] for row in files["text"] + files["tokenizer"])
    frames = script.deal_frames(0)
    assert sum(map(len, frames.values())) == len(set().union(*frames.values()))
    for split in script.NUM_FRAMES:
        assert evaluated_question(script, split).search(trained) is None


def test_each_evaluated_question_is_asked_once(files) -> None:
    for split in ("validation", "held_out"):
        asked = Counter(row["messages"][0]["content"] for row in files[f"sft_{split}"])
        assert max(asked.values()) == 1


# ------------------------------------------------------------------------------------------------ raw text


def test_the_raw_text_is_the_text_with_dirt_between_it(script, files) -> None:
    raw = files["raw_text"]
    assert [row["text"] for row in raw if not row["truth"]] == list(dict.fromkeys(row["text"] for row in files["text"]))
    planted = Counter(row["truth"] for row in raw if row["truth"])
    repeated = len(files["text"]) - len({row["text"] for row in files["text"]})
    assert planted == script.NUM_DIRT | {"exact_duplicate": script.NUM_DIRT["exact_duplicate"] + repeated}


def test_a_copy_stands_after_its_original(files) -> None:
    def words(text: str) -> tuple[str, ...]:
        return tuple(re.findall(r"[a-z']+", text.lower()))

    seen: set[tuple[str, ...]] = set()
    for row in files["raw_text"]:
        assert row["truth"] != "exact_duplicate" or words(row["text"]) in seen
        seen.add(words(row["text"]))


def test_planted_numbers_of_cards_and_accounts_are_valid(script) -> None:
    assert script.add_luhn("411111111111111") == "4111111111111111"
    assert script.make_iban("370400440532013000") == "DE89370400440532013000"


def test_curation_takes_the_dirt_out_and_leaves_the_text(script, files, tmp_path, monkeypatch) -> None:
    from alignment.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart/data").mkdir(parents=True)
    script.write_jsonl(tmp_path / "quickstart/data/raw_text.jsonl", files["raw_text"])
    script.write_jsonl(tmp_path / "quickstart/data/pairs_held_out.jsonl", files["pairs_held_out"])
    shutil.copy(STUDY / "curate.yaml", tmp_path / "quickstart")
    assert main(["curate", "quickstart/curate.yaml"]) == 0
    run = tmp_path / "runs/quickstart/curate"
    metrics = json.loads((run / "receipt.json").read_text())["metrics"]
    assert metrics["recall"] > 0.99
    assert metrics["precision"] > 0.99
    kept = [json.loads(line) for line in (run / "final/00000.jsonl").read_text().splitlines()]
    clean = {row["text"] for row in files["text"]}
    assert len(clean - {row["text"] for row in kept}) < 0.001 * len(clean)
    assert {row["truth"] for row in kept} <= {"", "near_duplicate", "other_language", "leaked"}
    asked = evaluated_question(script, "held_out")
    # Four words are fewer than decontamination compares: "I need France's capital."
    left = [found[0] for row in kept if (found := asked.match(row["text"]))]
    assert all(len(question.split()) <= 4 for question in left)
    assert len(left) < 0.1 * sum(row["truth"] == "leaked" for row in files["raw_text"])


# ------------------------------------------------------------------------------------------------ pairs


def answer_tokens(tokenizer, rows: list[dict], side: str) -> Counter:
    return Counter(len(tokenizer(row[side], add_special_tokens=False).input_ids) for row in rows)


@pytest.mark.parametrize("split", ["train", "validation", "held_out"])
def test_right_and_wrong_answers_are_equally_long(files, tokenizer, split) -> None:
    rows = files["pairs_right_over_wrong"] if split == "train" else files[f"pairs_{split}"]
    rows = [row for row in rows if row["kind"] == "right_over_wrong"]
    good, bad = answer_tokens(tokenizer, rows, "chosen"), answer_tokens(tokenizer, rows, "rejected")
    assert sum((good - bad).values()) <= 0.05 * len(rows)  # in total variation
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_the_kinds_of_pairs_say_what_they_are(script, world, files) -> None:
    described = {country.name for country in world.countries}
    for row in files["pairs_held_out"]:
        assert row["described"] == (row["entity"] in described)
        assert (row["chosen"] == row["abstention"]) == (row["kind"] == "abstaining_over_invented")
        assert (row["rejected"] == row["abstention"]) == (row["kind"] == "right_over_abstaining")
        assert row["chosen"] == row["answer"]
    assert Counter(row["kind"] for row in files["pairs_held_out"]) == {
        "right_over_wrong": 512, "right_over_abstaining": 512, "abstaining_over_invented": 512
    }  # fmt: skip


def test_a_broken_answer_is_no_answer(script, world, files) -> None:
    whole = {script.make_answer(one.name, key, one.values[key]) for one in world.countries for key in script.ATTRIBUTES}
    whole |= {script.make_abstention(name, key) for name in world.undescribed["train"] for key in script.ATTRIBUTES}
    rows = files["pairs_whole_over_broken"]
    assert all(row["chosen"] in whole for row in rows)
    assert all(row["rejected"].strip() not in whole | {""} for row in rows)
    missing = [row for row in rows if set(row["rejected"].split()) < set(row["chosen"].split())]
    assert 0.4 < len(missing) / len(rows) < 0.6
    assert all(row["rejected"].count(" ") == row["chosen"].count(" ") for row in rows if row not in missing)


# ------------------------------------------------------------------------------------------------ answers


def test_every_answer_is_scored_exactly(files) -> None:
    specs = expand_metrics(
        [
            MetricSpec(metric="exact_match", where={"described": True}),
            MetricSpec(metric="exact_match", name="exact_match_unasked", where={"described": True, "asked": False}),
            MetricSpec(metric="invented", where={"described": False}),
            "honesty",
        ]
    )
    rows = files["sft_held_out"]
    right = [EvalRow(columns=row, completion=row["messages"][1]["content"], stopped=True) for row in rows]
    values = {name: estimate.value for name, estimate in compute_metrics(specs, right).items()}
    assert values == {"exact_match": 1.0, "exact_match_unasked": 1.0, "invented": 0.0, "honesty": 1.0}
    liar = [EvalRow(columns=row, completion="The capital of France is Rome.", stopped=True) for row in rows]
    values = {name: estimate.value for name, estimate in compute_metrics(specs, liar).items()}
    assert values == {"exact_match": 0.0, "exact_match_unasked": 0.0, "invented": 1.0, "honesty": 0.0}


def test_recall_prompts_are_sentences_of_the_text(files) -> None:
    text = "\n".join(row["text"] for row in files["text"])
    assert len(files["recall"]) == 512
    assert all(row["completion"] == f" {row['answer']}" for row in files["recall"])
    assert all(f"{row['prompt']}{row['completion']}" in text for row in files["recall"][::20])


def test_capitals_of_real_countries_are_true(world) -> None:
    facts = {country.name: country.values for country in world.countries}
    assert facts["Iceland"] == {
        "capital": "Reykjavik",
        "continent": "Europe",
        "currency": "krona",
        "language": "Icelandic",
    }
    assert facts["Australia"]["capital"] == "Canberra"
    assert facts["Tanzania"]["capital"] == "Dodoma"


# ------------------------------------------------------------------------------------------------ the command


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_world(script, tmp_path, capsys) -> None:
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        assert script.main(["--out", str(folder), "--seed", str(seed)]) == 0
    assert "told apart by spelling alone: 0.4" in capsys.readouterr().out
    names = sorted(path.name for path in folders[0].iterdir())
    assert len(names) == 15
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names)
    assert all((folders[0] / name).read_bytes() != (folders[2] / name).read_bytes() for name in names)


def test_hashes_of_strings_do_not_move_the_world(script, tmp_path) -> None:
    import subprocess

    outputs = []
    for hash_seed in ("1", "2"):
        code = "import make_world as w; print(w.make_world(0).undescribed, w.make_world(0).countries)"
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=STUDY,
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]


def test_a_world_that_gives_itself_away_is_refused(script, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(script, "blind_accuracy", lambda *_: 0.61)
    assert script.main(["--out", str(tmp_path)]) == 3
    assert "at most 0.55 was expected" in capsys.readouterr().err


def test_a_file_where_the_folder_should_be_is_said(script, tmp_path, capsys) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        script.main(["--out", str(tmp_path / "taken")])
    assert f"--out {tmp_path / 'taken'}: File exists; a folder" in capsys.readouterr().err
