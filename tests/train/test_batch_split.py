"""How a global batch is cut into passes is no hyper-parameter: one process, one pass of eight rows against four of two."""

import json
import shutil

import pytest
import study as written

from tests.unfinished import leave_out_the_end

DPO = written.PAIRS.format(stage="dpo", start="runs/study/sft/final", lora="", steps=6) + written.DPO.format(
    reference="start"
)
RECIPES = {
    "sft": written.CHAT.format(lora="", steps=6),
    "reward": written.PAIRS.format(stage="reward", start="runs/study/sft/final", lora="", steps=6),
    "dpo": DPO,
    "dpo_with_sft_loss": DPO + "  sft_weight: 0.7\n",
}


@pytest.fixture(autouse=True)
def _unfinished(study, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_the_end(monkeypatch)  # the start models of the study are finished


@pytest.mark.parametrize("name", RECIPES)
def test_passes_of_another_size_give_the_same_losses(study, name: str) -> None:
    pairs = written.make_rows()["pairs"]
    for number, row in enumerate(pairs):
        row["chosen"] += " Surely." * (number % 5)
    (study / "study" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    losses = []
    for size in (8, 2):
        recipe = f"{name}_{size}"
        written.write_recipe(study, recipe, RECIPES[name])
        overrides = ("train.global_batch_size=8", f"train.per_device_train_batch_size={size}")
        assert written.run(recipe, *overrides) == 0
        losses.append(written.read_losses(study / "runs" / "study" / recipe))
    assert losses[1] == pytest.approx(losses[0], abs=2e-5)
    assert len(set(losses[0])) == 6


@pytest.mark.parametrize("name", [pytest.param("reward", marks=pytest.mark.slow), "dpo"])
def test_attention_that_drops_out_by_function_drops_nothing(study, name: str) -> None:
    """TRL silences modules only; Llama's attention has a rate, and a start model may bring one."""
    start, losses = "runs/elsewhere", []
    shutil.copytree(study / "runs/study/sft/final", study / start)
    config = json.loads((study / start / "config.json").read_text())
    for rate in (0.0, 0.5):
        (study / start / "config.json").write_text(json.dumps(config | {"attention_dropout": rate}))
        recipe = f"{name}_{int(10 * rate)}"
        written.write_recipe(study, recipe, RECIPES[name].replace("runs/study/sft/final", start))
        assert written.run(recipe, "train.max_steps=2") == 0
        losses.append(written.read_losses(study / "runs" / "study" / recipe))
    assert losses[0] == losses[1]
