"""What may come from strangers: recipes, weights, code; and what must not leave with a result (R3, R4, X1, X2, X5, X7)."""

import json
import pickle
import shutil
from pathlib import Path

import fault_runs as runs
import pytest

from alignment.errors import ArtifactError, DataError, RecipeError
from alignment.models.load import load_weights
from alignment.recipe.loader import load_recipe, read_recipe

TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz"


class Evil:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_weights_in_a_pickle_are_refused_and_not_read(study, tmp_path) -> None:
    shutil.copytree(study / "runs/faults/pretrain/final", tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    (tmp_path / "model/pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "was-read")))
    with pytest.raises(ArtifactError, match=r"pytorch_model.bin: a pickle.*safetensors were expected"):
        load_weights("causal", str(tmp_path / "model"))
    assert not (tmp_path / "was-read").exists()


@pytest.mark.parametrize(
    ("lines", "accepted"),
    [
        ("  path: org/model\n  trust_remote_code: true\n", False),
        ("  path: org/model\n  revision: main\n  trust_remote_code: true\n", False),
        (f"  path: org/model\n  revision: {'a123456789' * 4}\n  trust_remote_code: true\n", True),
        ("  path: ./model\n  trust_remote_code: true\n", True),
        ("  path: org/model\n", True),
    ],
)
def test_code_of_a_hub_model_needs_a_commit_that_was_read(study, tmp_path, lines, accepted) -> None:
    text = runs.RECIPES["sft"].replace("  path: runs/faults/pretrain/final\n", lines)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    if accepted:
        assert load_recipe(path)
    else:
        with pytest.raises(RecipeError, match="give the 'revision' that you have read"):
            load_recipe(path)


def test_code_beside_a_model_is_neither_run_nor_asked_about(study, tmp_path) -> None:
    """transformers would ask on the terminal, where a batch job waits for ever."""
    model = tmp_path / "model"
    shutil.copytree(study / "runs/faults/pretrain/final", model)
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "code.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'was-run')!r}).touch()\n")
    with pytest.raises(ArtifactError):
        load_weights("causal", str(model), trust_remote_code=False)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    "text", ["stage: !!python/object/apply:os.system ['true']\n", "stage: !!python/name:os.system\n"]
)
def test_a_tag_in_a_recipe_constructs_nothing(tmp_path, text) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert any("tag '" in mistake.message for mistake in read_recipe(path).mistakes)


def test_a_recipe_of_many_megabytes_is_not_read(tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("# " + "x" * 2_000_000)
    [mistake] = read_recipe(path).mistakes
    assert "at most 1000000 were expected" in mistake.message


def test_a_path_out_of_the_recipes_folder_reads_data_files_only(study) -> None:
    """Data on a cluster lies elsewhere, so such paths are taken; what is no data file is not opened."""
    from alignment.data.sources import find_source
    from alignment.recipe.data_spec import TrainSourceSpec

    recipe_dir = study / "recipes/faults"
    with pytest.raises(DataError, match="not a data file"):
        find_source(TrainSourceSpec(path="../../../../../../../etc/passwd", format="text"), recipe_dir, "train")
    elsewhere = study / "elsewhere.jsonl"
    elsewhere.write_text('{"text": "a"}\n')
    found = find_source(TrainSourceSpec(path="../../elsewhere.jsonl", format="text"), recipe_dir, "train")
    assert [path.resolve() for path in found.files] == [elsewhere.resolve()]


def test_no_file_of_a_run_holds_a_token_and_no_result_a_path_of_this_machine(study, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", TOKEN[3:])
    for name in ("text", "chats"):
        shutil.copy(study / f"recipes/faults/{name}.jsonl", tmp_path)
    recipe = study / "recipes/faults/secret.yaml"
    start = (study / "runs/faults/pretrain/final").resolve()
    recipe.write_text(runs.RECIPES["sft-lora"].replace("runs/faults/pretrain/final", str(start)))
    assert runs.train(study, "secret", "secret", whole=True) == 0
    run_dir = study / "runs/secret"
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if TOKEN[3:].encode() in path.read_bytes()]
    assert not list(run_dir.rglob("training_args.bin"))
    leaving = [run_dir / name for name in ("README.md", "receipt.json", "report.html")]
    leaving += [path for name in ("final", "adapter") for path in (run_dir / name).rglob("*") if path.is_file()]
    assert not [path for path in leaving if str(study).encode() in path.read_bytes()]
    assert (
        json.loads((run_dir / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
        == "runs/faults/pretrain/final"
    )
