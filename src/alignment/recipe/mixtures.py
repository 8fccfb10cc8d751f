"""Named mixtures: a list of training sources in a file of its own, which several recipes share.

`data.mixture: NAME` is `mixtures/NAME.yaml` beside the recipe or one folder above it; anything with a slash or `.yaml` is a
path from the recipe. The mixture's keys take the place of `data.mixture` before the recipe is judged, so that a resolved
recipe holds its sources itself and a mistake in a mixture is shown at its line there.
"""

import difflib
import os
from pathlib import Path

from alignment.recipe.data_spec import MixtureSpec
from alignment.recipe.locate import Node, node_at, read_nodes
from alignment.recipe.mistakes import Mistake

_FOLDER = "mixtures"


def expand_mixture(root: Node, recipe_path: Path) -> list[Mistake]:
    """Puts the sources of `data.mixture` into `data`, and returns what is wrong with it; nothing where there is none.

    Paths of a mixture that exist beside it, or begin with a dot, are relative to the mixture; they are written anew
    relative to the recipe.
    """
    data = node_at(root, ("data",))
    named = node_at(root, ("data", "mixture"))
    if named is None or not data.is_mapping or not isinstance(named.value, str):
        return []
    del data.children["mixture"]
    own = [name for name in MixtureSpec.model_fields if name in data.children]
    if own:
        message = f"data: found 'mixture' and '{own[0]}'; one of them was expected"
        return [Mistake(named.key, message, f"the mixture gives {', '.join(MixtureSpec.model_fields)}")]
    path = find_mixture(named.value, recipe_path)
    if not path.is_file():
        data.children["train"] = Node(named.place, named.end, key=named.key, items=[], is_broken=True)
        return [Mistake(named.place, f"data.mixture: no file {path}; a mixture was expected", _advise(path))]
    mixture, mistakes = read_nodes(path)
    if mixture is None or not mixture.is_mapping or "train" not in mixture.children:
        data.children["train"] = Node(named.place, named.end, key=named.key, items=[], is_broken=True)
        return mistakes or [Mistake(named.place, f"{path}: no key 'train'; a list of sources was expected", "")]
    for name in [name for name in mixture.children if name not in MixtureSpec.model_fields]:
        known = ", ".join(MixtureSpec.model_fields)
        mistakes.append(Mistake(mixture.children.pop(name).key, f"unknown key '{name}'", f"a mixture has: {known}"))
    for source in mixture.children["train"].items or ():
        _rebase(source, path.parent, recipe_path.resolve().parent)
    data.children |= mixture.children
    return mistakes


def is_mixture(path: Path) -> bool:
    """Whether a file is meant as a named mixture rather than a recipe: by the folder that it lies in."""
    return path.resolve().parent.name == _FOLDER


def find_mixture(name: str, recipe_path: Path) -> Path:
    """Where a mixture lies; the first of the two folders when it lies in neither."""
    folder = recipe_path.resolve().parent
    if "/" in name or name.endswith(".yaml"):
        return folder / name
    places = [folder / _FOLDER / f"{name}.yaml", folder.parent / _FOLDER / f"{name}.yaml"]
    return next((place for place in places if place.is_file()), places[1])


def _rebase(source: Node, here: Path, recipe_dir: Path) -> None:
    path = source.children.get("path") if source.is_mapping else None
    if path is None or not isinstance(path.value, str) or path.value.startswith(("/", "~", "$")):
        return
    if path.value.startswith(".") or (here / path.value).exists():
        path.value = path.text = os.path.relpath(here.resolve() / path.value, recipe_dir)


def _advise(path: Path) -> str:
    names = sorted(other.stem for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.stem, names, 1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"mixtures there: {', '.join(names)}" if names else f"the folder {path.parent} has no mixtures"
