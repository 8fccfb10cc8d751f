"""From a file of another project to a recipe of ours: which project it is of, its conversion, and the check of what came out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignment.convert import axolotl, llama_factory, trl
from alignment.convert.draft import Draft
from alignment.convert.kinds import check_kinds
from alignment.convert.options import Options
from alignment.errors import RecipeError
from alignment.recipe.loader import report
from alignment.recipe.locate import Node, read_nodes

# name: (whether a file with these keys is of it, its conversion); the first that says yes.
PROJECTS: dict[str, tuple[Callable[[set[str]], bool], Callable[[Draft, Path, Options], None]]] = {
    "axolotl": (axolotl.is_own, axolotl.convert),
    "LLaMA-Factory": (llama_factory.is_own, llama_factory.convert),
    "alignment-handbook or TRL": (trl.is_own, trl.convert),
}
_EMPTY = "found nothing"  # how recipe/locate.py begins what it says of a key without a value
_LAUNCHER_KEYS = {"distributed_type", "compute_environment"}


@dataclass(frozen=True)
class Converted:
    """A recipe of ours and what it could not carry over."""

    project: str
    text: str
    differs: tuple[str, ...]
    assumed: tuple[str, ...]
    unread: tuple[str, ...]
    files: dict[str, str]  # name to text, to lie beside the recipe


def convert_file(path: Path, name: str, options: Options) -> Converted:
    """The recipe that a file of another project is here.

    Args:
        name: of the recipe that is being made, without suffix; files beside it are called after it.

    Raises:
        RecipeError: it cannot be read, is of no project that is known, or of a stage that does not exist here.
    """
    root, found = read_nodes(path)
    if root is None:
        raise RecipeError(report(path, found))
    # The others read a key without a value as not given.
    mistakes = [mistake for mistake in found if not mistake.message.startswith(_EMPTY)]
    if mistakes:
        raise RecipeError(report(path, mistakes))
    project = find_project(root, path)
    check_kinds(root)
    draft = Draft(root, name)
    PROJECTS[project][1](draft, path, options)
    origin = f"From {project}: {'/'.join(path.resolve().parts[-3:])}, by `alignment import`."
    return Converted(
        project, draft.text(origin), tuple(draft.differs), tuple(draft.assumed), tuple(draft.unread), draft.files
    )


def find_project(root: Node, path: Path) -> str:
    """Whose file it is. Raises RecipeError when it is nobody's."""
    keys = set(root.children or ())
    if keys & _LAUNCHER_KEYS:
        raise RecipeError(
            f"{path}: a launcher config; a recipe was expected. Give it to a command with --accelerate_config."
        )
    found = next((name for name, (is_own, _) in PROJECTS.items() if is_own(keys)), None)
    if found is None:
        shown = ", ".join(sorted(keys)[:6]) or "no keys"
        raise RecipeError(f"{path}: found {shown}; a training recipe of {', '.join(PROJECTS)} was expected.")
    return found
