"""`alignment new`: copies a recipe or a whole study to start from.

A copy says on its first line where it is from. Run folders inside it become those of the new study, and relative paths to
data keep pointing at the same files. Nothing is ever overwritten.
"""

import argparse
import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from alignment import __version__
from alignment.errors import RecipeError
from alignment.gallery import RECIPES_FOLDER, find_galleries, find_studies

if TYPE_CHECKING:
    from alignment.recipe.locate import Node

GALLERY = Path(RECIPES_FOLDER)
COPIED = (".yaml", ".md", ".py", ".jinja")
_STAMPS = {".yaml": "# {}\n", ".py": "# {}\n", ".md": "<!-- {} -->\n"}  # a template stays byte for byte


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="name of the new study (below recipes/), or a path")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="RECIPE|STUDY",
        help="a file or folder, or STUDY/RECIPE of recipes/",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the copies and prints their names.

    Raises:
        RecipeError: nothing to copy there, a file that would be overwritten, or a recipe whose YAML cannot be read.
    """
    source = _find_source(args.source)
    target = _find_target(args.study)
    files = _study_files(source) if source.is_dir() else [source]
    study = source.parent if source.is_file() else source
    _check_target(files, study, target)
    has_maker = any(file.suffix == ".py" for file in files)
    copies = {target / file.name: _copy_text(file, study, target, source.is_dir(), has_maker) for file in files}
    copies |= _copy_mixtures(files, target)
    for path, text in copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    if source.is_file():
        for made in _inputs(copies[target / source.name], target):
            print(f"starts from {made}, which no recipe there makes yet: copy its recipe too, or name another")
    print(f"next: alignment check {target}")
    return 0


def _copy_mixtures(files: list[Path], target: Path) -> dict[Path, str]:
    """The named mixtures that the recipes use and that are not found from the new folder, to lie beside it in mixtures/."""
    from alignment.recipe.locate import node_at, read_nodes
    from alignment.recipe.mixtures import find_mixture

    copies = {}
    for file in files:
        root = read_nodes(file)[0] if file.suffix == ".yaml" else None
        named = node_at(root, ("data", "mixture")) if root is not None else None
        if named is None or not isinstance(named.value, str) or "/" in named.value or named.value.endswith(".yaml"):
            continue
        there = find_mixture(named.value, file)
        if there.is_file() and not find_mixture(named.value, target / file.name).is_file():
            copies[target / "mixtures" / there.name] = (
                f"# from mixtures/{there.stem} @ {__version__}\n{there.read_text(encoding='utf-8')}"
            )
    return copies


def _inputs(text: str, target: Path) -> list[str]:
    """Run folders of the new study that a copied recipe names and that no recipe of the study makes."""
    study = target.resolve().name
    names = dict.fromkeys(re.findall(rf"(?<![\w.-])runs/{re.escape(study)}/([\w.-]+)", text))
    return [f"runs/{study}/{name}" for name in names if not (target / f"{name}.yaml").exists()]


def _find_source(name: str) -> Path:
    """The file or folder that is meant: a path, or a name within the gallery here or the one that comes with the package."""
    if not name.strip():
        raise RecipeError("--from: an empty name; a recipe or study was expected. Name one.")
    galleries = find_galleries()
    named = [place for gallery in galleries for place in (gallery / name, gallery / f"{name}.yaml")]
    for path in (Path(name), *named):
        if path.exists():
            _check_recipe(path)
            return path
    studies = [study for gallery in galleries for study in find_studies(gallery)]
    known = [study.name for study in studies]
    known += [f"{study.name}/{path.stem}" for study in studies for path in study.glob("*.yaml")]
    near = difflib.get_close_matches(name.removeprefix("recipes/").removesuffix(".yaml"), known, 1)
    shown = ", ".join(sorted({study.name for study in studies}))
    advice = f"Did you mean '{near[0]}'?" if near else f"In {GALLERY}/: {shown or 'nothing'}."
    raise RecipeError(f"--from: {name}: no such recipe or study. {advice}")


def _check_recipe(path: Path) -> None:
    """Raises RecipeError for a file that is no recipe or pipeline, so that nothing else is copied into a study."""
    if not path.is_dir() and not (path.suffix == ".yaml" and _is_recipe(path)):
        raise RecipeError(f"--from: {path}: no recipe; a .yaml file with a stage, or a study's folder, was expected.")


def _is_recipe(path: Path) -> bool:
    """Whether a YAML file has a stage or the stages of a pipeline. One that cannot be read is refused with its mistakes."""
    from alignment.recipe.loader import report
    from alignment.recipe.locate import read_nodes

    root, mistakes = read_nodes(path)
    if root is None:
        raise RecipeError(report(path, mistakes))
    return root.is_mapping and not {"stage", "stages"}.isdisjoint(root.children)


def _find_target(study: str) -> Path:
    if not study.strip():
        raise RecipeError("STUDY: an empty name; one for the new study was expected. Name it.")
    if "/" in study or not GALLERY.is_dir():
        return Path(study)
    return GALLERY / study


def _study_files(study: Path) -> list[Path]:
    files = sorted(path for path in study.iterdir() if path.suffix in COPIED and path.is_file())
    if not any(path.suffix == ".yaml" and _is_recipe(path) for path in files):
        raise RecipeError(f"--from: {study}: a folder without recipes; a study was expected. Name one.")
    return files


def _check_target(files: list[Path], study: Path, target: Path) -> None:
    """Raises RecipeError when a file is there, or when both studies would share their run folders."""
    there = [target / file.name for file in files if (target / file.name).exists()]
    if there:
        raise RecipeError(f"{there[0]}: exists and is not overwritten. Choose another study name, or remove the file.")
    if target.exists() and not target.is_dir():
        raise RecipeError(f"{target}: a file; a folder was expected. Choose another study name.")
    if study.resolve().name == target.resolve().name:
        raise RecipeError(
            f"{target}: its runs would lie in runs/{target.resolve().name} like those of {study}. Choose another study name."
        )


def _copy_text(file: Path, study: Path, target: Path, is_study: bool, has_maker: bool) -> str:
    """The text of a file as it belongs in the new study."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".yaml":
        text = _move_paths(file, text, study, target, keep_inside=is_study and has_maker, keep_templates=is_study)
    old, new = study.resolve().name, target.resolve().name
    text = re.sub(rf"(?<![\w.-])runs/{re.escape(old)}(?![\w.-])", f"runs/{new}", text)
    if is_study:
        text = re.sub(rf"(?<![\w./-])recipes/{re.escape(old)}(?![\w.-])", target.as_posix(), text)
    stamp = _STAMPS.get(file.suffix, "").format(f"from {old}/{file.stem} @ {__version__}")
    if text.startswith("#!"):
        first, _, rest = text.partition("\n")
        return f"{first}\n{stamp}{rest}"
    return stamp + text


# ------------------------------------------------------------------------------------------------ paths of a recipe


def _move_paths(file: Path, text: str, study: Path, target: Path, *, keep_inside: bool, keep_templates: bool) -> str:
    """The recipe with its relative paths seen from the new folder.

    Args:
        keep_inside: data in the study's own folder stays relative, because the copied makers write it anew.
        keep_templates: chat templates of the study are copied too.
    """
    from alignment.recipe.loader import report
    from alignment.recipe.locate import read_nodes

    root, mistakes = read_nodes(file)
    if root is None:
        raise RecipeError(report(file, mistakes))
    lines = text.splitlines(keepends=True)
    # From the last to the first, so that columns in front of a change stay right.
    for node, is_template in reversed(_path_nodes(root)):
        is_inside = (study / node.value).resolve().is_relative_to(study.resolve())
        if is_inside and (keep_templates if is_template else keep_inside):
            continue
        moved = Path(os.path.relpath((study / node.value).resolve(), target.resolve())).as_posix()
        line = lines[node.place.line]
        lines[node.place.line] = line[: node.place.column] + _as_scalar(moved) + line[node.end.column :]
    return "".join(lines)


def _path_nodes(root: "Node") -> "list[tuple[Node, bool]]":
    """Nodes that hold a path relative to the recipe, in the order of the file, and whether it is a chat template."""
    from alignment.recipe.locate import node_at

    found = []
    lists = [node_at(root, ("data", split)) for split in ("train", "eval")]
    steps = node_at(root, ("curate", "steps"))
    lists += [node_at(step, ("decontaminate", "evals")) for step in (steps.items if steps and steps.items else ())]
    for sources in lists:
        paths = [node_at(source, ("path",)) for source in (sources.items if sources and sources.items else ())]
        found += [(node, False) for node in paths if _is_relative(node, root)]
    template = node_at(root, ("chat", "template"))
    if template is not None and isinstance(template.value, str) and template.value.endswith(".jinja"):
        found.append((template, True))
    return sorted(found, key=lambda pair: (pair[0].place.line, pair[0].place.column))


def _is_relative(node: "Node | None", root: "Node") -> bool:
    """Whether a source's path is a local one, seen from the recipe. A name without a dot or suffix is a Hub id."""
    from alignment.recipe.places import RUNS, data_suffix

    if node is None or not isinstance(node.value, str) or node.place.line != node.end.line:
        return False
    if node.value.startswith(("/", "~", "$", RUNS)):
        return False
    folder = Path(root.place.origin.name).parent
    return node.value.startswith(".") or data_suffix(node.value) is not None or (folder / node.value).exists()


def _as_scalar(path: str) -> str:
    return path if re.fullmatch(r"[\w.][\w./+=@-]*", path) else "'" + path.replace("'", "''") + "'"
