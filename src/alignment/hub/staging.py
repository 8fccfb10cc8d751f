"""What of a finished run may leave this machine: a folder of allowed files, looked through for secrets and paths of this machine.

Only what is on the list is ever taken, so a file that somebody puts into final/ stays here; and what a file holds is read before it
is sent. Sending is publish.py's.
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import eval_result_entries_to_yaml
from ruamel.yaml import YAML

from alignment.errors import ArtifactError, PublishError
from alignment.models.hashes import hash_weights
from alignment.report.card import CARD, make_card, make_eval_results
from alignment.report.lineage_files import find_ancestors
from alignment.report.parents import find_run_dir
from alignment.report.receipt import RECEIPT, read_receipt
from alignment.report.redact import SECRET
from alignment.report.run_files import RECIPE, RunFiles, read_json, read_run
from alignment.train.run_folder import EXIT

# Of final/. Weights are safetensors alone: a pickle runs code where it is loaded.
ALLOWED = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "spiece.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
EVAL_RESULTS = ".eval_results"
LINEAGE = "lineage"  # recipes of the runs that it was made from
_TOKEN_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "OPENAI_API_KEY",
    "GITHUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
)
_SHORTEST_TOKEN = 8
_SHORTEST_PATH = 5  # "/" and its like say nothing about a machine
_HOMES = re.compile(r"(?<![\w/.-])/(?:home|Users)/[\w.-]+")
_HEADER_BYTES = 8
_LONGEST_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class Staged:
    """A folder that is ready to be sent."""

    folder: Path
    files: tuple[str, ...]  # paths below it
    left_out: tuple[str, ...]  # files of final/ that are not on the list


def check_verified(run_dir: Path) -> RunFiles:
    """A run whose result a fresh process has read back, and whose weights are still those.

    Raises:
        ArtifactError: it is not finished, or final/ was changed since.
    """
    run = read_run(run_dir)
    ended = read_json(run_dir / EXIT)
    if not run.receipt or not (run_dir / "final").is_dir() or ended.get("code") != 0:
        raise ArtifactError(
            f"{run_dir}: not finished; a run with a receipt and a verified final/ was expected. The command that started it goes on."
        )
    expected, found = read_receipt(run_dir).get("weights_hash"), hash_weights(run_dir / "final")
    if expected != found:
        raise ArtifactError(
            f"{run_dir / 'final'}: the weights are not those that were verified (hash {expected} in the receipt, {found} there). "
            "Train it again, or bring the folder back."
        )
    return run


def stage_run(run: RunFiles, hub_id: str, folder: Path) -> Staged:
    """Copies (by link where that is possible) what is published of a run into an empty folder, and looks it through.

    Raises:
        PublishError: a secret or a path of this machine, with its place; an adapter on a base that only this disk has.
    """
    final = run.folder / "final"
    left_out = []
    for path in sorted(final.rglob("*")):
        name = path.relative_to(final).as_posix()
        if path.is_file() and any(fnmatch(name, pattern) for pattern in ALLOWED):
            _link(path.resolve(), folder / name)
        elif path.is_file():
            left_out.append(name)
    (folder / CARD).write_text(make_card(run, hub_id), encoding="utf-8")
    (folder / RECIPE).write_text(run.recipe_text, encoding="utf-8")
    shutil.copy2(run.folder / RECEIPT, folder / RECEIPT)
    lineage = find_lineage(run)
    _write_lineage(lineage, folder)
    _write_eval_results(run, folder)
    _check_base(folder)
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    stated = _stated_homes([run, *lineage])
    found = [
        finding
        for name in files
        for finding in find_private(folder / name, name, run.folder, stated if _shows_recipe(name) else ())
    ]
    if found:
        raise PublishError(
            f"{run.folder}: {'; '.join(found[:5])}. Nothing was sent. Correct the file, or the recipe and train again."
        )
    return Staged(folder, files, tuple(left_out))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _write_lineage(lineage: Iterable[RunFiles], folder: Path) -> None:
    """The recipe of each run before this one that is on this disk, so that the whole chain can be run again."""
    for before in lineage:
        (folder / LINEAGE).mkdir(exist_ok=True)
        (folder / LINEAGE / f"{before.folder.resolve().name}.yaml").write_text(before.recipe_text, encoding="utf-8")


def find_lineage(run: RunFiles) -> list[RunFiles]:
    """Every run on this disk that this one was made from: models, tokenizers, references, and theirs. Nearest first."""
    found: dict[Path, RunFiles] = {}
    waiting = [run]
    while waiting:
        current = waiting.pop(0)
        folders = [ancestor.folder for ancestor in find_ancestors(current)]
        folders += [find_run_dir(parent["path"]) for parent in current.receipt.get("parents", ())]
        for folder in folders:
            if folder is not None and folder.resolve() not in {run.folder.resolve(), *found}:
                found[folder.resolve()] = read_run(folder)
                waiting.append(found[folder.resolve()])
    return list(found.values())


def _write_eval_results(run: RunFiles, folder: Path) -> None:
    yaml = YAML()
    for name, entries in make_eval_results(run).items():
        (folder / EVAL_RESULTS).mkdir(exist_ok=True)
        with (folder / EVAL_RESULTS / name).open("w", encoding="utf-8") as file:
            yaml.dump(eval_result_entries_to_yaml(entries), file)


def _check_base(folder: Path) -> None:
    path = folder / "adapter_config.json"
    base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path") if path.is_file() else None
    if base is not None and (base.startswith((".", "/", "~", "runs/")) or base.count("/") > 1):
        raise PublishError(
            f"adapter_config.json: base_model_name_or_path: {base}, a folder of this machine; a model of the Hub was expected. "
            "Merge the adapter first: alignment merge RUN."
        )


# ------------------------------------------------------------------------------------------------ what is private


def find_private(path: Path, name: str, run_dir: Path, stated: Collection[str] = ()) -> Iterator[str]:
    """Secrets and paths of this machine in a file, as `name:line: what`; of weights, in their header.

    Args:
        stated: home folders that are no finding, as `_stated_homes` gives them.
    """
    text = _read_header(path) if path.suffix == ".safetensors" else path.read_bytes().decode("utf-8", errors="replace")
    marks = _private_texts(run_dir)
    for number, line in enumerate(text.split("\n"), 1):
        if SECRET.search(line) or any(value in line for value in marks["secret"]):
            yield f"{name}:{number}: a secret"
        elif any(home not in stated for home in _HOMES.findall(line)) or any(value in line for value in marks["path"]):
            yield f"{name}:{number}: a path of this machine"


def _stated_homes(runs: Iterable[RunFiles]) -> set[str]:
    """Home folders in the free text of recipes, such as /home/user of a system message; the one of this machine's user is none."""
    named = {home for run in runs for home in _HOMES.findall(run.recipe_text)}
    return {home for home in named if home.rstrip(".") != str(Path.home())}  # the full stop of a sentence


def _shows_recipe(name: str) -> bool:
    return name in (CARD, RECIPE) or name.startswith(f"{LINEAGE}/")


def _private_texts(run_dir: Path) -> dict[str, list[str]]:
    tokens = [os.environ.get(name, "") for name in _TOKEN_VARIABLES]
    paths = {str(Path.home()) + "/", str(Path.cwd()), str(run_dir.resolve().parent)}
    return {
        "secret": [token for token in tokens if len(token) >= _SHORTEST_TOKEN],
        "path": [path for path in paths if len(path) >= _SHORTEST_PATH],
    }


def _read_header(path: Path) -> str:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_BYTES), "little")
        return file.read(min(length, _LONGEST_HEADER)).decode("utf-8", errors="replace")
