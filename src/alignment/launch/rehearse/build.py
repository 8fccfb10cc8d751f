"""Everything that a rehearsal needs on disk, made in a process of its own: rows, stand-ins, and the rehearsed recipe.

FOLDER/recipe.yaml    FOLDER/data/*.jsonl    FOLDER/inputs/*    FOLDER/built.json: what stands in for what
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from alignment.launch.configs import LaunchConfig
from alignment.launch.rehearse.inputs import Origin, find_origin, named_inputs
from alignment.launch.rehearse.rows import DrawnSource, draw_rows, generate_rows
from alignment.launch.rehearse.shrink import Remark, build_recipe, shrink, template_files
from alignment.launch.rehearse.stand_ins import (
    collect_texts,
    longest_row,
    make_tokenizer,
    train_stand_in,
    write_lora_run,
    write_model,
)
from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.resolved import recipe_text
from alignment.recipe.schema import Recipe

BUILT = "built.json"
RECIPE = "recipe.yaml"
_LONGEST = 1024  # tokens of a row, at the most
_LONGEST_PIECE = 256  # where longer documents are split
_STAND_IN = "chatml"  # for templates that come with a tokenizer which is not here
_FILLER = SourceSpec(path="filler", format="text")


@dataclass(frozen=True)
class Built:
    """What was put in place of what."""

    stand_ins: tuple[str, ...]  # sentences
    remarks: tuple[Remark, ...]  # what is therefore not proven
    streamed: tuple[str, ...] = ()  # sources whose rows are the Hub's, for this rehearsal


def build(
    recipe: Recipe,
    recipe_path: Path,
    folder: Path,
    config: LaunchConfig | None,
    online: Mapping[str, str] | None = None,
) -> None:
    """Writes the folder of a rehearsal. It must be empty.

    Args:
        online: environment variables of a process that may ask the Hub for rows; None: none is asked.

    Raises:
        RecipeError, DataError: an input that cannot be found out, a source that cannot be read.
    """
    torch.set_num_threads(1)
    recipe_dir = recipe_path.resolve().parent
    drawn = draw_rows(recipe, recipe_dir, folder / "scratch", online)
    origins = {place: find_origin(path, recipe_path) for place, path in named_inputs(recipe)}
    rows = [row for source in drawn for row in source.rows]
    texts = collect_texts([*rows, *generate_rows(_FILLER, 200, "filler")])
    tokenizers = _make_tokenizers(recipe, recipe_dir, origins, texts)
    stand_ins = {
        place: _write_input(place, origin, tokenizers[place], folder, recipe) for place, origin in origins.items()
    }
    fields, remarks = shrink(
        recipe,
        inputs=stand_ins,
        sources=_write_rows(drawn, folder / "data"),
        max_length=_choose_length(recipe, rows, origins, tokenizers),
        accumulates=_accumulates(recipe, config),
    )
    for name in template_files(recipe):
        shutil.copy2(recipe_dir / name, folder / Path(name).name)
    (folder / RECIPE).write_text(recipe_text(build_recipe(fields)), encoding="utf-8")
    remarks += _missing_rows(drawn) + _missing_inputs(origins, recipe)
    streamed = dict.fromkeys(source.spec.path for source in drawn if source.is_streamed)
    stood_in = tuple(_describe(place, origin) for place, origin in origins.items())
    built = Built(stood_in, tuple(remarks), tuple(streamed))
    (folder / BUILT).write_text(json.dumps(asdict(built), indent=1, ensure_ascii=False), encoding="utf-8")
    shutil.rmtree(folder / "scratch", ignore_errors=True)


def read_built(folder: Path) -> Built:
    """What `build` left."""
    fields = json.loads((folder / BUILT).read_text(encoding="utf-8"))
    remarks = tuple(Remark(**remark) for remark in fields["remarks"])
    return Built(tuple(fields["stand_ins"]), remarks, tuple(fields["streamed"]))


# ------------------------------------------------------------------------------------------------ inputs


def _make_tokenizers(
    recipe: Recipe, recipe_dir: Path, origins: Mapping[tuple[str, str], Origin], texts: Sequence[str]
) -> dict[tuple[str, str], PreTrainedTokenizerBase]:
    """The tokenizer of each input."""
    templates = {place: _find_template(recipe, place, origin, recipe_dir) for place, origin in origins.items()}
    stand_in = None
    if any(origin.tokenizer is None for origin in origins.values()):
        special = [token for origin in origins.values() for token in origin.special_tokens]
        stand_in = train_stand_in(texts, [_own_template(recipe, recipe_dir), *templates.values()], special)
    return {place: make_tokenizer(origin, stand_in, templates[place]) for place, origin in origins.items()}


def _own_template(recipe: Recipe, recipe_dir: Path) -> str:
    """What the rehearsed stage renders with: the template whose tokens must be there."""
    named = recipe.chat.template if "chat" in type(recipe).model_fields else "from_tokenizer"
    return str(recipe_dir / named) if named.endswith(".jinja") else named if named != "from_tokenizer" else _STAND_IN


def _find_template(recipe: Recipe, place: tuple[str, str], origin: Origin, recipe_dir: Path) -> str:
    """The chat template that comes with an input's tokenizer."""
    return origin.template or (_own_template(recipe, recipe_dir) if place[0] != "ppo" else _STAND_IN)


def _write_rows(drawn: Sequence[DrawnSource], folder: Path) -> dict[str, list[tuple[str, int]]]:
    """One file a source; of each split the path from the recipe and the number of rows."""
    folder.mkdir()
    files: dict[str, list[tuple[str, int]]] = {}
    for source in drawn:
        same = files.setdefault(source.split, [])
        path = folder / f"{source.split}-{len(same)}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in source.rows]
        path.write_text("".join(lines), encoding="utf-8")
        same.append((f"{folder.name}/{path.name}", len(source.rows)))
    return files


def _write_input(
    place: tuple[str, str], origin: Origin, tokenizer: PreTrainedTokenizerBase, folder: Path, recipe: Recipe
) -> str:
    target = folder / "inputs" / place[1 if place[0] == "ppo" else 0]
    seed = recipe.seed + 1 + len(place[0])
    if place == ("ppo", "reward_model"):
        origin = replace(origin, kind="reward")
    if place == ("tokenizer", "path"):
        tokenizer.save_pretrained(str(target))
    elif place == ("model", "path") and "lora" in type(recipe).model_fields and _continues(recipe):
        write_lora_run(origin, tokenizer, target, seed, recipe.lora)
    else:
        write_model(origin, tokenizer, target, seed)
    return str(target)


def _continues(recipe: Recipe) -> bool:
    return recipe.lora is not None and recipe.lora.start == "continue"


def _choose_length(
    recipe: Recipe,
    rows: Sequence[Mapping[str, Any]],
    origins: Mapping[tuple[str, str], Origin],
    tokenizers: Mapping[tuple[str, str], PreTrainedTokenizerBase],
) -> int | None:
    """Long enough for the rows that were drawn; another tokenizer may need more tokens than the recipe allows for them."""
    if "max_length" not in type(recipe.data).model_fields:
        return None
    asked = recipe.data.max_length
    if recipe.stage == "pretrain":
        return min(asked, _LONGEST_PIECE)
    place = ("model", "path")
    needed = min(-(-longest_row(rows, tokenizers[place]) // 64) * 64, _LONGEST)
    return min(asked, needed) if origins[place].tokenizer else needed


def _accumulates(recipe: Recipe, config: LaunchConfig | None) -> bool:
    """Whether a step takes several passes on as many processes as the launcher's config says."""
    if "train" not in type(recipe).model_fields:
        return False
    processes = (config.num_processes if config else None) or 1
    return recipe.train.global_batch_size > recipe.train.per_device_train_batch_size * processes


# ------------------------------------------------------------------------------------------------ said aloud


def _missing_rows(drawn: Sequence[DrawnSource]) -> list[Remark]:
    found: dict[str, str] = {}
    for source in drawn:
        if source.missing:
            found.setdefault(source.spec.path, source.missing)
    return [
        Remark(f"rows of {path}: their columns, roles and lengths", f"{why}; rows of its format were generated")
        for path, why in found.items()
    ]


def _missing_inputs(origins: Mapping[tuple[str, str], Origin], recipe: Recipe) -> list[Remark]:
    remarks = []
    asks = "chat" in type(recipe).model_fields and recipe.chat.template == "from_tokenizer"
    for (section, _), origin in origins.items():
        if origin.config and section != "tokenizer":
            why = "a tiny model of its architecture stood in"
            why += f"; architecture assumed: {origin.known_from}" if origin.is_assumed else ""
            remarks.append(Remark(f"weights of {origin.path}", why))
        if origin.tokenizer is None:
            remarks.append(Remark(f"tokenizer of {origin.path}", "it is not on this disk; one was trained on the rows"))
            if asks and origin.template is None and section == "model":
                remarks.append(
                    Remark(f"chat template of {origin.path}", f"it comes with that tokenizer; {_STAND_IN} stood in")
                )
    return remarks


def _describe(place: tuple[str, str], origin: Origin) -> str:
    architecture = f"{origin.config['model_type']}, {origin.known_from}" if origin.config else origin.known_from
    tokenizer = "its own tokenizer" if origin.tokenizer else "a tokenizer trained on the rows"
    return f"{'.'.join(place)} {origin.path}: {architecture}; {tokenizer}"
