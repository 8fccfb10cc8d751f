"""The chain of models below a run, from receipts and recipes on this disk, down to a Hub model or new weights."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from alignment.report.receipt import RECEIPT, read_receipt, receipt_hash
from alignment.report.run_files import RECIPE, RunFiles, read_run

# Of a run folder, those that other runs start from.
RESULT_FOLDERS = ("final", "adapter")


@dataclass(frozen=True)
class Ancestor:
    """A model that a run starts from, directly or through others."""

    path: str  # Hub id, or folder as the recipe names it
    kind: str  # hub, folder, or the stage of the run
    revision: str | None = None
    receipt_hash: str | None = None
    folder: Path | None = None  # of the run, where it is on this disk

    @property
    def on_hub(self) -> bool:
        """Whether `path` is a Hub id."""
        return self.kind == "hub"

    def describe(self) -> str:
        """As a sentence names it."""
        return f"`{self.path}`" + (f" at revision `{self.revision}`" if self.revision else "")


def find_ancestors(run: RunFiles) -> list[Ancestor]:
    """Nearest first; empty when the run started from new weights. A chain ends where a folder is no longer there."""
    chain: list[Ancestor] = []
    seen = {run.folder.resolve()}
    current: RunFiles | None = run
    while current is not None and (path := (current.recipe.get("model") or {}).get("path")):
        folder = _find_run(path, current.folder)
        if folder is not None and folder.resolve() in seen:
            break
        chain.append(_make_ancestor(path, folder, current))
        current = read_run(folder) if folder is not None else None
        seen |= {folder.resolve()} if folder is not None else set()
    return chain


def _make_ancestor(path: str, folder: Path | None, child: RunFiles) -> Ancestor:
    noted = next((parent for parent in child.receipt.get("parents", ()) if parent["path"] == path), {})
    if folder is not None:
        hash_ = noted.get("receipt_hash") or (
            receipt_hash(read_receipt(folder)) if (folder / RECEIPT).is_file() else None
        )
        return Ancestor(path, read_run(folder).stage or "folder", receipt_hash=hash_, folder=folder)
    kind = "hub" if _is_hub_id(path) and noted.get("kind") != "folder" else "folder"
    revision = noted.get("revision") or child.recipe["model"].get("revision") if kind == "hub" else None
    return Ancestor(path, kind, revision=revision, receipt_hash=noted.get("receipt_hash"))


def _find_run(path: str, child_folder: Path) -> Path | None:
    """The run folder that `path` (it, or its final/) lies in: from the current folder, or beside the run of the same study."""
    parts = PurePosixPath(path).parts
    named = PurePosixPath(*parts[:-1]) if parts[-1] in RESULT_FOLDERS else PurePosixPath(path)
    beside = child_folder.resolve().parent
    candidates = [Path(named), *([beside / named.name] if beside.name in named.parts else [])]
    return next((folder for folder in candidates if (folder / RECIPE).is_file()), None)


def _is_hub_id(path: str) -> bool:
    parts = path.split("/")
    return len(parts) <= 2 and parts[0] not in ("", ".", "..", "~", "runs") and not Path(path).exists()
