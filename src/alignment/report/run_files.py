"""What a run folder says about a run, read back. A file that is not there yet reads as empty: unfinished runs have a report too."""

import io
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from alignment.errors import ArtifactError
from alignment.report.receipt import RECEIPT, read_receipt
from alignment.report.redact import change_texts, redact_recipe, redact_secrets

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
SAMPLES = "samples.json"
DATA_MANIFEST = "data_manifest.json"  # a copy of the prepared folder's manifest.json

TIMES = "seconds.json"  # of a curation, whose receipt says nothing that another run of it would not say

STAGE_TITLES = {
    "curate": "Curation",
    "tokenizer": "Tokenizer",
    "pretrain": "Pretraining",
    "sft": "Supervised fine-tuning",
    "reward": "Reward model",
    "dpo": "Preference optimisation (DPO)",
    "ppo": "Reinforcement learning (PPO)",
    "evaluate": "Evaluation",
}


@dataclass(frozen=True)
class RunFiles:
    """The files of one run as plain values."""

    folder: Path
    recipe_text: str  # resolved, without secrets and paths of this machine
    recipe: Mapping[str, Any]  # what that text says
    receipt: Mapping[str, Any]
    logs: tuple[Mapping[str, Any], ...]  # metrics.jsonl, one entry a line
    samples: Mapping[str, list[Mapping[str, Any]]]  # "before" and "after" to {prompt, completion, stopped, answer?}
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """STUDY/RECIPE, as the folders are called."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}"

    @property
    def stage(self) -> str:
        """The recipe's stage; empty before the recipe is written."""
        return self.recipe.get("stage") or self.receipt.get("stage", "")

    @property
    def stage_title(self) -> str:
        """The stage in words."""
        return STAGE_TITLES.get(self.stage, self.stage)

    def tokens_per_second(self) -> float | None:
        """Median over the logged steps; the first ones, with their warm-up, hardly move it."""
        values = [line["tokens_per_second"] for line in self.logs if "tokens_per_second" in line]
        return statistics.median(values) if values else None

    def total_seconds(self) -> float | None:
        """The receipt's total, or the sum of its phases."""
        seconds = self.receipt.get("seconds", {})
        return seconds.get("total", sum(seconds.values())) if seconds else None


def read_run(run_dir: Path) -> RunFiles:
    """Reads a run folder.

    Raises:
        ArtifactError: the folder is not there, or a file in it is not what its name says.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; a run folder was expected. Train its recipe first.")
    recipe_text, recipe = _read_redacted(folder)
    return RunFiles(
        folder=folder,
        recipe_text=recipe_text,
        recipe=recipe,
        receipt=read_facts(folder) if (folder / RECEIPT).is_file() else {},
        logs=tuple(_read_lines(folder / METRICS)),
        samples=read_json(folder / SAMPLES),
        manifest=read_json(folder / DATA_MANIFEST),
    )


def read_own_recipe(run_dir: Path) -> str:
    """A run's recipe with the secrets and paths of this machine, which it must not leave; empty where there is none."""
    return _read_text(Path(run_dir) / RECIPE)


def _read_redacted(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """The recipe as text and values: parsed first, so that nothing taken out can break it, and as it is where nothing is."""
    text = read_own_recipe(folder)
    try:
        recipe = YAML(typ="safe", pure=True).load(text) or {}
    except YAMLError as error:
        said = " ".join(str(error).split())
        raise ArtifactError(f"{folder / RECIPE}: {said}; a recipe was expected. Run it again.") from error
    if not isinstance(recipe, dict):
        found = type(recipe).__name__
        raise ArtifactError(f"{folder / RECIPE}: found {found}; a recipe was expected. Run it again.")
    shown = redact_recipe(recipe)
    is_clean = shown == recipe and redact_secrets(text) == text  # the text has comments too
    return (text, recipe) if is_clean else (_write_recipe(shown), shown)


def _write_recipe(recipe: Mapping[str, Any]) -> str:
    """The layout of `alignment.recipe.resolved`, with its care for next-line characters, which ruamel.yaml 0.19 reads as a space."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(change_texts(recipe, lambda _, text: DoubleQuotedScalarString(text) if "\x85" in text else text), stream)
    return stream.getvalue()


def read_facts(run_dir: Path) -> dict[str, Any]:
    """The receipt of a finished run, with the time that it took where that is kept beside it."""
    receipt = read_receipt(run_dir)
    return receipt if "seconds" in receipt else receipt | {"seconds": read_json(Path(run_dir) / TIMES)}


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file. Raises ArtifactError when it is something else."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: {error}; a JSON object was expected. Run the recipe again.") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: found {type(value).__name__}; a JSON object was expected. Run the recipe again.")
    return value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """A last line that was cut off, by a run that was killed or is still writing, is left out."""
    lines = _read_text(path).splitlines()
    logs = []
    for number, line in enumerate(lines, start=1):
        try:
            logs.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ArtifactError(f"{path}:{number}: {error}; one JSON object a line was expected.") from error
    return logs
