"""Values of another kind than a conversion computes with: refused with their place, all at once, and never a traceback."""

import contextlib
from pathlib import Path

import other_recipes as other
import pytest

from alignment.convert.convert import convert_file
from alignment.convert.options import Options
from alignment.errors import AlignmentError, RecipeError
from alignment.recipe.locate import read_text
from alignment.recipe.mistakes import Origin

RECIPES = (other.HANDBOOK_SFT, other.HANDBOOK_MIXER, other.TRL_DPO, other.LLAMA_FACTORY_SFT, other.AXOLOTL_SFT)


def refuse(tmp_path: Path, text: str) -> str:
    (tmp_path / "theirs.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        convert_file(tmp_path / "theirs.yaml", "ours", Options())
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "base_model: a/b\ndatasets: 3\n",
            "datasets: found 3 (a whole number); a list of data sets, each with its path (TRL's: id), was expected",
        ),
        ("base_model: a/b\ndatasets: [c/d]\n", "datasets: found a list of 1; a list of data sets"),
        ("base_model: a/b\ndatasets: [{type: completion}]\n", "datasets: found a list of 1; a list of data sets"),
        (
            other.TRL_DPO.replace("steps: 8", "steps: auto"),
            "gradient_accumulation_steps: found 'auto' (text); a whole number of 1 or more was expected",
        ),
        (
            other.TRL_DPO.replace("warmup_ratio: 0.1", "warmup_ratio: auto"),
            "warmup_ratio: found 'auto' (text); a number",
        ),
        (
            other.HANDBOOK_MIXER.replace("0.5", "half"),
            "dataset_mixer: found a mapping; a mapping from data sets to numbers",
        ),
        (
            other.HANDBOOK_SFT.replace("weight: 0.5", "weight: half"),
            "weight: found 'half' (text); a number was expected",
        ),
    ],
)
def test_a_value_of_another_kind_is_refused_with_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    assert said in refuse(tmp_path, text)


def test_all_of_them_are_said_at_once_with_their_lines(tmp_path: Path) -> None:
    said = refuse(tmp_path, "base_model: a/b\ndatasets: 3\nmicro_batch_size: auto\n")
    assert "theirs.yaml:2:11: error: datasets" in said
    assert "theirs.yaml:3:19: error: micro_batch_size" in said
    assert "2 errors in " in said


@pytest.mark.parametrize("text", RECIPES)
@pytest.mark.parametrize("value", ["3", "auto", "[1]", "[null]", "{a: 1}", "[{a: 1}]", "true", "-0.5", "''"])
def test_no_value_of_any_key_ends_in_a_traceback(tmp_path: Path, text: str, value: str) -> None:
    """A refusal or a recipe, whatever stands behind a key."""
    for key in read_text(text, Origin("test", ()))[0].children:
        lines = [line for line in text.splitlines() if line and not line.startswith((f"{key}:", " "))]
        (tmp_path / "theirs.yaml").write_text("\n".join([*lines, f"{key}: {value}\n"]))
        with contextlib.suppress(AlignmentError):
            convert_file(tmp_path / "theirs.yaml", "ours", Options(rows=1000))
