"""`pipeline.yaml`: the recipes of a study in the order in which they run, and nothing else.

What a stage starts from is said by its recipe alone; that the order fits is checked here. Which stages are done, and
which inputs are on disk, is for the one who runs them.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alignment.errors import RecipeError
from alignment.recipe.loader import ReadRecipe, report
from alignment.recipe.locate import Node, node_at, read_nodes
from alignment.recipe.mistakes import Mistake, sort_mistakes
from alignment.recipe.resolved import run_folder

FILE_NAME = "pipeline.yaml"
# Keys that may name the result of another stage; the paths of sources may, too.
INPUTS = (
    ("model", "path"),
    ("tokenizer", "path"),
    ("dpo", "reference"),
    ("ppo", "reward_model"),
    ("ppo", "value_model"),
    ("evaluate", "against"),
)


@dataclass(frozen=True)
class Pipeline:
    """The recipes of a study, in order."""

    path: Path
    recipes: tuple[Path, ...]


def load_pipeline(path: Path) -> Pipeline:
    """The pipeline in a file, or in the folder that holds one.

    Raises:
        RecipeError: all mistakes, each with its place.
    """
    pipeline, mistakes = read_pipeline(path)
    if pipeline is None:
        raise RecipeError(report(pipeline_file(path), mistakes))
    return pipeline


def pipeline_file(path: Path) -> Path:
    """The file itself, or that of a folder."""
    path = Path(path)
    return path / FILE_NAME if path.is_dir() else path


def is_pipeline(path: Path) -> bool:
    """Whether a file is meant as a pipeline rather than a recipe."""
    if path.name == FILE_NAME:
        return True
    root, _ = read_nodes(path)
    return root is not None and root.is_mapping and "stages" in root.children and "stage" not in root.children


def read_pipeline(path: Path) -> tuple[Pipeline | None, list[Mistake]]:
    """As `load_pipeline`, with the mistakes as a value."""
    path = pipeline_file(path)
    root, mistakes = read_nodes(path)
    if root is None:
        return None, mistakes
    stages, found = _find_stages(root)
    mistakes = [*mistakes, *found]
    recipes: list[Path] = []
    for node in stages:
        recipe, found = _read_entry(node, path, recipes)
        mistakes += found
        recipes.append(recipe)
    return (None if mistakes else Pipeline(path, tuple(recipes))), sort_mistakes(mistakes)


def _find_stages(root: Node) -> tuple[list[Node], list[Mistake]]:
    """The entries of `stages`, and what is wrong around them."""
    example = "write stages: and one recipe file a line, each behind '- '"
    if not root.is_mapping:
        return [], [Mistake(root.place, f"found {root.kind()}; a mapping with the key 'stages' was expected", example)]
    mistakes = []
    for name in [name for name in root.children if name != "stages"]:
        near = difflib.get_close_matches(name, ["stages"], 1)
        advice = "did you mean 'stages'?" if near else "a pipeline has the one key 'stages' and overrides nothing"
        mistakes.append(Mistake(root.children[name].key, f"unknown key '{name}'", advice))
        if near:
            root.children.setdefault("stages", root.children[name])
    stages = root.children.get("stages")
    if stages is None:
        return [], mistakes or [Mistake(root.place, "missing key 'stages'", example)]
    if not stages.items:
        if not stages.is_broken:
            message = f"stages: found {stages.kind()}; a list of recipe files was expected"
            mistakes.append(Mistake(stages.place, message, example))
        return [], mistakes
    return stages.items, mistakes


def _read_entry(node: Node, pipeline: Path, before: list[Path]) -> tuple[Path, list[Mistake]]:
    """The recipe file of an entry, and what is wrong with it."""
    if node.is_broken or not isinstance(node.value, str):
        found = (
            [] if node.is_broken else [Mistake(node.place, f"stages: found {node.kind()}; a recipe file was expected")]
        )
        return pipeline, found
    recipe = pipeline.parent / node.value
    if not recipe.is_file():
        return recipe, [_missing(node, recipe)]
    if recipe.resolve() == pipeline.resolve():
        return recipe, [Mistake(node.place, "stages: a pipeline cannot be a stage of itself", "remove it")]
    same = next((other for other in before if run_folder(other) == run_folder(recipe)), None)
    if same is not None and same.resolve() == recipe.resolve():
        return recipe, [Mistake(node.place, f"stages: {node.value} is given twice", "keep one of the two")]
    if same is not None:
        message = f"stages: {node.value} has the run folder of {same.name}, {run_folder(recipe)}"
        return recipe, [Mistake(node.place, message, "give one of the two files another name")]
    return recipe, []


def _missing(node: Node, recipe: Path) -> Mistake:
    there = sorted(path.name for path in recipe.parent.glob("*.yaml") if path.name != FILE_NAME)
    near = difflib.get_close_matches(recipe.name, there, 1)
    advice = f"did you mean {near[0]}?" if near else f"recipes there: {', '.join(there) or 'none'}"
    return Mistake(node.place, f"stages: no recipe {recipe}", advice)


# ------------------------------------------------------------------------------------------------ order


def find_order_mistakes(pipeline: Pipeline, reads: Mapping[Path, ReadRecipe]) -> list[Mistake]:
    """Recipes that start from the result of a stage that the pipeline runs later, or not at all.

    Args:
        reads: the recipes of the pipeline, as `read_recipe` gives them.
    """
    makers = {run_folder(recipe).parts: index for index, recipe in enumerate(pipeline.recipes)}
    mistakes = []
    for index, recipe in enumerate(pipeline.recipes):
        root = reads[recipe].nodes
        if root is None or not root.is_mapping:
            continue
        for key in INPUTS:
            node = node_at(root, key)
            if node is not None and isinstance(node.value, str):
                mistakes += _check_input(pipeline, index, ".".join(key), node, makers)
        for key, node in _data_paths(root):
            mistakes += _check_input(pipeline, index, key, node, makers)
    return mistakes


def _data_paths(root: Node) -> Iterator[tuple[str, Node]]:
    """Key and node of the path of every source."""
    for split in ("train", "eval"):
        sources = node_at(root, ("data", split))
        for number, source in enumerate(sources.items or () if sources is not None else ()):
            path = node_at(source, ("path",))
            if path is not None and isinstance(path.value, str):
                yield f"data.{split}.{number}.path", path


def _check_input(
    pipeline: Pipeline, index: int, key: str, node: Node, makers: Mapping[tuple[str, ...], int]
) -> list[Mistake]:
    run = Path(node.value).parts[:3]
    own = pipeline.recipes[index].name
    if len(run) < 3 or run[:2] not in {maker[:2] for maker in makers}:
        return []
    folder = "/".join(run)
    maker = makers.get(run)
    if maker is None:
        return [_unmade(pipeline, key, node, makers)]
    if maker == index:
        return [Mistake(node.place, f"{key}: {folder} is the run of this recipe itself", "name the stage before it")]
    if maker > index:
        name = pipeline.recipes[maker].name
        message = f"{key}: {folder} is made by {name}, which {pipeline.path} runs after {own}"
        return [Mistake(node.place, message, f"write {name} before {own} in {pipeline.path.name}")]
    return []


def _unmade(pipeline: Pipeline, key: str, node: Node, makers: Mapping[tuple[str, ...], int]) -> Mistake:
    """A warning where the run may have been made apart from the pipeline, else an error."""
    run = Path(node.value).parts[:3]
    folder = "/".join(run)
    message = f"{key}: no stage of {pipeline.path} makes {folder}"
    if Path(folder).exists() or (pipeline.path.parent / f"{run[2]}.yaml").is_file():
        return Mistake(node.place, message, "it must be there before", level="warning")
    near = difflib.get_close_matches(folder, ["/".join(maker) for maker in makers], 1)
    return Mistake(node.place, message, f"did you mean {near[0]}?" if near else "add its recipe")
