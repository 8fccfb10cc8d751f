"""What a recipe starts from: its architecture and tokenizer, found on this disk, through the recipe that makes it, or by name.

Nothing here loads a model or uses a network; `stand_ins.py` makes from an `Origin` what the rehearsal starts from.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.errors import RecipeError
from alignment.gallery import find_galleries
from alignment.launch.rehearse.families import FAMILIES, find_family
from alignment.recipe.loader import load_recipe
from alignment.recipe.model_spec import LoraSpec
from alignment.recipe.pipeline import INPUTS
from alignment.recipe.places import means_local_model
from alignment.recipe.schema import Recipe

_WORDS = ("start", "base", "reward")  # of dpo.reference and ppo.value_model: not paths
_MAX_PARENTS = 12


@dataclass(frozen=True)
class Origin:
    """What a path means."""

    path: str  # as the recipe writes it
    config: dict[str, Any] = field(default_factory=dict)  # model_type and what else is known of the architecture
    known_from: str = ""  # how the architecture is known
    is_assumed: bool = False  # from its name alone
    tokenizer: str | None = None  # folder of the real tokenizer; None: it is not on this disk
    template: str | None = None  # the chat template that its tokenizer was given by the stage that makes it
    kind: str = "causal"  # or reward
    lora: LoraSpec | None = None  # of the run that makes it
    special_tokens: tuple[str, ...] = ()
    vocab_size: int | None = None  # of a tokenizer that a recipe will make
    hub_id: str | None = None  # of the model on the Hub that it goes back to


def named_inputs(recipe: Recipe) -> Iterator[tuple[tuple[str, str], str]]:
    """(section, key) and path of every model and tokenizer that a recipe names."""
    for section, key in INPUTS:
        if section not in type(recipe).model_fields or (section, recipe.stage) == ("tokenizer", "tokenizer"):
            continue
        path = getattr(getattr(recipe, section), key)
        if path is not None and path not in _WORDS:
            yield (section, key), path


def find_origin(path: str, recipe_path: Path, depth: int = 0) -> Origin:
    """What `path` of the recipe in `recipe_path` means.

    Raises:
        RecipeError: neither this disk, nor a recipe beside it, nor the name says which architecture it is.
    """
    folder = Path(path).expanduser()
    if (folder / "final").is_dir():
        folder = folder / "final"
    if folder.is_dir():
        return _read_folder(path, folder, recipe_path, depth)
    if path.startswith("runs/"):
        return _follow_run(path, recipe_path, depth)
    if means_local_model(path):
        raise RecipeError(
            f"{recipe_path}: {path}: no such folder, and no recipe is known to make it; a model was expected. Correct the path."
        )
    return _know_hub_model(path, recipe_path)


def _read_folder(path: str, folder: Path, recipe_path: Path, depth: int) -> Origin:
    tokenizer = str(folder) if (folder / "tokenizer.json").is_file() else None
    if (folder / "adapter_config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        found = find_origin(base, recipe_path, _deeper(path, depth))
        return replace(found, path=path, tokenizer=tokenizer or found.tokenizer)
    if not (folder / "config.json").is_file():
        if tokenizer:
            return Origin(path, known_from="a tokenizer on this disk", tokenizer=tokenizer)
        raise RecipeError(
            f"{recipe_path}: {path}: {folder} has no config.json; a model was expected. Correct the path."
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = "reward" if "ForSequenceClassification" in "".join(config.get("architectures") or ()) else "causal"
    return Origin(path, config, f"config.json in {folder}", tokenizer=tokenizer, kind=kind)


def _deeper(path: str, depth: int) -> int:
    if depth >= _MAX_PARENTS:
        raise RecipeError(
            f"{path}: {depth} runs stand one behind another without a base model; recipes name each other."
        )
    return depth + 1


# ------------------------------------------------------------------------------------------------ runs


def _follow_run(path: str, recipe_path: Path, depth: int) -> Origin:
    """Through the recipe that makes the run, down to its config or base model."""
    maker = _find_maker(path, recipe_path)
    if maker is None:
        raise RecipeError(
            f"{recipe_path}: {path}: no such folder, and no recipe found that makes it; recipes/{'/'.join(Path(path).parts[1:3])}.yaml "
            "was expected. Train it first, or put its recipe there."
        )
    recipe = load_recipe(maker)
    if recipe.stage == "tokenizer":
        return Origin(
            path,
            known_from=f"made by {maker.parent.name}/{maker.name}",
            template=recipe.chat.template,
            special_tokens=recipe.tokenizer.special_tokens,
            vocab_size=recipe.tokenizer.vocab_size,
        )
    named = f"{maker.parent.name}/{maker.name}"
    chat = recipe.chat.template if "chat" in type(recipe).model_fields else "from_tokenizer"
    lora = recipe.lora if "lora" in type(recipe).model_fields else None
    kind = "reward" if recipe.stage == "reward" else "causal"
    if "model" not in type(recipe).model_fields:
        raise RecipeError(f"{recipe_path}: {path}: {maker} is a recipe of stage {recipe.stage}, which makes no model.")
    if recipe.model.path is None:
        tokens = find_origin(recipe.tokenizer.path, maker, _deeper(path, depth))
        config = {"model_type": recipe.model.config.model_type} | recipe.model.config.arguments()
        found = replace(tokens, config=config)
    else:
        found = find_origin(recipe.model.path, maker, _deeper(path, depth))
    known = f"made by {named}" + (f" from {recipe.model.path}: {found.known_from}" if recipe.model.path else "")
    template = found.template if chat == "from_tokenizer" else _place_template(chat, maker)
    return replace(found, path=path, known_from=known, template=template, kind=kind, lora=lora)


def _place_template(template: str, maker: Path) -> str:
    return str(maker.parent / template) if template.endswith(".jinja") else template


def _find_maker(path: str, recipe_path: Path) -> Path | None:
    """The recipe whose run folder `path` is in: beside this one, in a study beside it, or in a gallery."""
    parts = Path(path).parts
    if len(parts) < 3:
        return None
    study, stem = parts[1], parts[2]
    own = recipe_path.resolve().parent
    folders = [own] if own.name == study else []
    folders += [place / study for place in (own.parent, *find_galleries())]
    return next((found for folder in folders if (found := folder / f"{stem}.yaml").is_file()), None)


# ------------------------------------------------------------------------------------------------ the Hub


def _know_hub_model(path: str, recipe_path: Path) -> Origin:
    config, tokenizer = _cached(path, "config.json"), _cached(path, "tokenizer.json")
    found_tokenizer = path if tokenizer else None
    if config:
        fields = json.loads(Path(config).read_text(encoding="utf-8"))
        return Origin(path, fields, "its config.json in the cache of the Hub", tokenizer=found_tokenizer)
    family = find_family(path)
    if family is None:
        raise RecipeError(
            f"{recipe_path}: {path}: it is not on this disk, and its name says no architecture; one of "
            f"{', '.join(sorted(set(FAMILIES.values())))} would be known. Fetch it first: hf download {path} config.json tokenizer.json "
            "tokenizer_config.json"
        )
    return Origin(
        path, {"model_type": family}, f"the name says {family}", is_assumed=True, tokenizer=found_tokenizer, hub_id=path
    )


def _cached(path: str, file: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, file)
    return found if isinstance(found, str) else None
