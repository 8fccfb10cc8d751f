"""`alignment check`: every mistake of recipes, pipelines and study folders at once; nothing is started.

Beyond the recipe itself it looks at what costs nothing: column names, chat templates, the order of a pipeline,
and whether local data is there (a warning: it may be made later). It imports no torch and uses no network.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.errors import RecipeError

if TYPE_CHECKING:
    from alignment.recipe.loader import ReadRecipe
    from alignment.recipe.locate import Node
    from alignment.recipe.mistakes import Mistake

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", type=Path, nargs="+", metavar="RECIPE|PIPELINE|FOLDER", help="what to check")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="set a key of the recipe"
    )
    parser.add_argument("--resolved", action="store_true", help="show every key with its value; defaults are marked")


def run(args: argparse.Namespace) -> int:
    """Prints a line a file on stdout and the mistakes on stderr. Returns 2 if there is any.

    Raises:
        RecipeError: a folder without recipes, or --set for more than one recipe.
    """
    outcomes = check_files(args.paths, args.overrides)
    for outcome in outcomes:
        _print_outcome(outcome, args.resolved)
    errors = sum(len(outcome.errors) for outcome in outcomes)
    if not errors:
        return 0
    files = sum(bool(outcome.errors) for outcome in outcomes)
    print(f"{_count(errors, 'error')} in {_count(files, 'file')}; nothing was started.", file=sys.stderr)
    return RecipeError.code


@dataclass
class Outcome:
    """What is to be said about one file."""

    path: Path
    summary: str = ""
    mistakes: "list[Mistake]" = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # local data that is not there
    read: "ReadRecipe | None" = None

    @property
    def errors(self) -> "list[Mistake]":
        return [mistake for mistake in self.mistakes if mistake.level == "error"]


def check_files(paths: list[Path], overrides: list[str]) -> list[Outcome]:
    """Checks files and folders, each file once; a pipeline brings its recipes.

    Raises:
        RecipeError: as `run`.
    """
    from alignment.recipe.mixtures import is_mixture
    from alignment.recipe.pipeline import is_pipeline, read_pipeline

    files = _unique(file for path in paths for file in _files(path))
    mixtures = [file for file in files if is_mixture(file)]
    files = [file for file in files if file not in mixtures]
    pipelines = {file: read_pipeline(file) for file in files if is_pipeline(file)}
    listed = [recipe for pipeline, _ in pipelines.values() if pipeline for recipe in pipeline.recipes]
    recipes = _unique([*(file for file in files if file not in pipelines), *listed])
    if overrides and len(recipes) != 1:
        raise RecipeError(f"--set: it changes one recipe, and {len(recipes)} were given. Check that recipe alone.")
    outcomes = {recipe.resolve(): _check_recipe(recipe, overrides) for recipe in recipes}
    checked = [_check_pipeline(file, *found, outcomes) for file, found in pipelines.items()]
    return [*map(_check_mixture, mixtures), *outcomes.values(), *checked]


def _unique(files: Iterable[Path]) -> list[Path]:
    """Each file once, by the first name that it was given."""
    named: dict[Path, Path] = {}
    for file in files:
        named.setdefault(file.resolve(), file)
    return list(named.values())


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.yaml"))
    if not found:
        raise RecipeError(f"{path}: a folder without .yaml files; a study or a recipe was expected. Correct the path.")
    return found


def _check_recipe(path: Path, overrides: list[str]) -> Outcome:
    from alignment.recipe.loader import read_recipe

    read = read_recipe(path, overrides)
    outcome = Outcome(path, mistakes=list(read.mistakes), read=read)
    if read.recipe is not None:
        outcome.mistakes += [*_columns(read), *_template(read), *_unverified(read)]
        outcome.absent = _absent_data(read)
        outcome.summary = f"{read.recipe.stage}, {count_keys(read.nodes)} keys given"
    return outcome


def _check_mixture(path: Path) -> Outcome:
    from alignment.recipe.loader import read_mixture

    return Outcome(path, "a mixture; its data is looked at with the recipes that name it", mistakes=read_mixture(path))


def _check_pipeline(path: Path, pipeline, mistakes, outcomes: dict[Path, Outcome]) -> Outcome:
    from alignment.recipe.pipeline import find_order_mistakes

    outcome = Outcome(path, mistakes=mistakes)
    if pipeline is not None:
        reads = {recipe: outcomes[recipe.resolve()].read for recipe in pipeline.recipes}
        outcome.mistakes = find_order_mistakes(pipeline, reads)
        outcome.summary = f"pipeline of {_count(len(pipeline.recipes), 'stage')}"
    return outcome


# ------------------------------------------------------------------------------------------------ what recipes name


def _sources(read: "ReadRecipe") -> Iterator[tuple[tuple[str | int, ...], object]]:
    for split in ("train", "eval"):
        for index, source in enumerate(getattr(read.recipe.data, split, ())):
            yield ("data", split, index), source


def _columns(read: "ReadRecipe") -> "Iterator[Mistake]":
    """Keys of `columns` that the source's format never reads, and roles that do not exist."""
    from alignment.data.formats import check_columns
    from alignment.recipe.data_spec import SourceSpec

    for path, source in _sources(read):
        for key in [key for key in ("columns", "roles") if key in type(source).model_fields]:
            for name, value in getattr(source, key).items():
                only = SourceSpec(path=source.path, format=source.format, **{key: {name: value}})
                yield from _refused(read, (*path, key, name), check_columns, only)


def _template(read: "ReadRecipe") -> "Iterator[Mistake]":
    """A chat template that is neither known nor a file."""
    from alignment.data.templates import TEMPLATES, template_text

    template = getattr(getattr(read.recipe, "chat", None), "template", "from_tokenizer")
    if template == "from_tokenizer" or template in TEMPLATES:
        return
    if template.endswith(".jinja"):
        if not (read.path.parent / template).is_file():
            message = f"chat.template: no file {read.path.parent / template}"
            yield _mistake(read, ("chat", "template"), message, "write a path relative to the recipe")
        return
    yield from _refused(read, ("chat", "template"), template_text, template)


def _unverified(read: "ReadRecipe") -> "Iterator[Mistake]":
    """What no test of this project has run."""
    from alignment.recipe.locate import node_at
    from alignment.recipe.mistakes import Mistake

    if read.recipe.stage == "ppo" and read.recipe.ppo.sampler != "transformers":
        place = node_at(read.nodes, ("ppo", "sampler")).place
        message = (
            f"ppo.sampler: {read.recipe.ppo.sampler} is unverified: it was never run on a GPU by this project's tests"
        )
        yield Mistake(place, message, "look at sampler/logp_gap in the first updates", "warning")


def _refused(read: "ReadRecipe", path: tuple, check, *arguments) -> "Iterator[Mistake]":
    """The refusal of a check that raises, at its place."""
    try:
        check(*arguments)
    except RecipeError as error:
        yield _mistake(read, path, str(error), "")


def _mistake(read: "ReadRecipe", path: tuple, message: str, advice: str) -> "Mistake":
    from alignment.recipe.locate import node_at
    from alignment.recipe.mistakes import Mistake

    node = node_at(read.nodes, path) or read.nodes
    is_key = bool(path) and path[-2:-1] == ("columns",)
    return Mistake(node.key if is_key and node.key else node.place, message, advice)


def _absent_data(read: "ReadRecipe") -> list[str]:
    """Local data that is not there, and variables that are not set, with the lines that name them."""
    from alignment.recipe.locate import node_at
    from alignment.recipe.places import RUNS, means_local_data, place_data

    absent: dict[str, list[int]] = {}
    for path, source in _sources(read):
        line = node_at(read.nodes, (*path, "path")).place.line + 1
        unset = [name for name in _VARIABLE.findall(source.path) if not os.environ.get(name)]
        for name in unset:
            absent.setdefault(f"${name}", []).append(line)
        if unset:
            continue
        where = _VARIABLE.sub(lambda match: os.environ[match[1]], source.path)
        # What another run makes is for the pipeline, as models are.
        is_local = means_local_data(where) and not where.startswith(RUNS)
        if is_local and not place_data(where, read.path.parent).exists():
            absent.setdefault(source.path, []).append(line)
    return [f"{name} (line {', '.join(map(str, lines))})" for name, lines in absent.items()]


# ------------------------------------------------------------------------------------------------ printing


def count_keys(node: "Node") -> int:
    """Keys with a value of their own that a file gives; sections and list items are not counted."""
    if node.is_mapping:
        return sum(count_keys(child) for child in node.children.values())
    if node.is_list and any(item.is_mapping for item in node.items):
        return sum(count_keys(item) for item in node.items)
    return 1


def _print_outcome(outcome: Outcome, resolved: bool) -> None:
    from alignment.recipe.mistakes import sort_mistakes

    if outcome.errors:
        print(f"error {outcome.path}: {_count(len(outcome.errors), 'mistake')}", flush=True)
    else:
        print(f"ok {outcome.path}: {outcome.summary}", flush=True)
    if outcome.absent:
        print(f"  warning: not there yet: {', '.join(outcome.absent)}", flush=True)
    for mistake in sort_mistakes(outcome.mistakes):
        print(mistake.text(), file=sys.stderr, flush=True)
    if resolved and not outcome.errors and outcome.read is not None:
        from alignment.recipe.resolved import marked_text

        print(marked_text(outcome.read.recipe, outcome.read.nodes), flush=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
