"""Whether a path of a recipe means this disk or the Hub, as far as the text alone says; what exists here is for the reader to look up."""

import re
from pathlib import Path

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".txt", ".parquet")
RUNS = "runs/"  # the folder of all run folders, in the current folder
SPLIT = re.compile(
    r"(?P<name>[\w.-]+)(?:\[(?P<start>-?\d+%?)?:(?P<end>-?\d+%?)?\])?"
)  # a split of a source, or a slice of one
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HERE = (".", "/", "~", "$")


def data_suffix(path: Path | str) -> str | None:
    """`.jsonl` for `a.jsonl` and `a.jsonl.gz`; None when it is not a data file."""
    suffix = Path(str(path).removesuffix(".gz")).suffix.lower()
    return suffix if suffix in DATA_SUFFIXES else None


def means_local_data(path: str) -> bool:
    """Of a source: a path that no Hub dataset can have, or one into the run folders."""
    return path.startswith((*_HERE, RUNS)) or data_suffix(path) is not None


def place_data(path: str, recipe_dir: Path) -> Path:
    """Where a local source lies: what a run has made in the current folder, as models do; all else relative to the recipe."""
    return Path(path) if path.startswith(RUNS) else recipe_dir / Path(path).expanduser()


def means_local_model(path: str) -> bool:
    """Of a model or tokenizer: a path that no Hub model can have, or one into the run folders."""
    return path.startswith((*_HERE, RUNS)) or path.count("/") > 1


def keeps_its_code(path: str, revision: str | None) -> bool:
    """Of a model: whether Python that comes with it stays what somebody has read, as in a folder or at a commit."""
    return means_local_model(path) or _COMMIT.fullmatch(revision or "") is not None
