"""Launcher configs: which file a name means, and what it asks for. They are accelerate's own YAML.

A config says strategy and number of processes. What a recipe decides (batch, accumulation, clipping, precision) may not
stand in it a second time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import alignment
from alignment.errors import RecipeError

FOLDER = "accelerate_configs"
# Keys of deepspeed_config to the recipe's key with the same meaning.
_RECIPE_KEYS = {
    "gradient_accumulation_steps": "train.global_batch_size",
    "gradient_clipping": "train.max_grad_norm",
    "train_batch_size": "train.global_batch_size",
    "train_micro_batch_size_per_gpu": "train.per_device_train_batch_size",
}


@dataclass(frozen=True)
class LaunchConfig:
    """What a config file asks for."""

    path: Path
    strategy: str  # ddp, zero1, zero2, zero3 or fsdp2
    num_processes: int | None  # over all machines


def find_config(name: str, recipe_path: Path | None = None) -> LaunchConfig:
    """The config that a name or a path means.

    Args:
        name: `zero3` for accelerate_configs/zero3.yaml (in the current folder, above the recipe, or with this package), or a file.
        recipe_path: a recipe or pipeline, whose repository may have configs of its own.

    Raises:
        RecipeError: there is none of that name, or it asks for something that this project does not run.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml", ".json") or len(path.parts) > 1:
        if not path.is_file():
            raise RecipeError(
                f"--accelerate_config: no file {path}; {_say_known(recipe_path)}, or a file was expected."
            )
        return read_config(path)
    for folder in _config_folders(recipe_path):
        if (folder / f"{name}.yaml").is_file():
            return read_config(folder / f"{name}.yaml")
    raise RecipeError(f"--accelerate_config: {name!r} is not known; {_say_known(recipe_path)}, or a file was expected.")


def known_configs(recipe_path: Path | None = None) -> list[str]:
    """Names that `find_config` finds."""
    return sorted({path.stem for folder in _config_folders(recipe_path) for path in folder.glob("*.yaml")})


def _say_known(recipe_path: Path | None) -> str:
    return f"one of {', '.join(known_configs(recipe_path)) or '(none are installed)'}"


def _config_folders(recipe_path: Path | None) -> list[Path]:
    package = Path(alignment.__file__).resolve().parent
    above = list(recipe_path.resolve().parents) if recipe_path else []
    # Of an installed package its own folder, of a checkout the repository's.
    places = [Path.cwd(), *above, package, package.parent.parent]
    return [folder for place in dict.fromkeys(places) if (folder := place / FOLDER).is_dir()]


def read_config(path: Path) -> LaunchConfig:
    """What a config file asks for.

    Raises:
        RecipeError: it is not a config, or asks for something that would not train as this project promises.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {' '.join(str(error).split())}; YAML of accelerate was expected.") from error
    if not isinstance(content, Mapping):
        raise RecipeError(
            f"{path}: found {type(content).__name__}; keys of accelerate, as in {FOLDER}/ddp.yaml, were expected."
        )
    return LaunchConfig(path, _read_strategy(path, content), content.get("num_processes"))


def _read_strategy(path: Path, content: Mapping[str, Any]) -> str:
    kind = content.get("distributed_type")
    if content.get("use_cpu"):
        raise RecipeError(
            f"{path}: use_cpu: true; nothing was expected: the CPU is used where there is no GPU. Remove it; `CUDA_VISIBLE_DEVICES=` "
            "before a command hides GPUs from it."
        )
    if kind == "MULTI_GPU":
        return "ddp"
    if kind == "DEEPSPEED":
        return _read_zero(path, content.get("deepspeed_config") or {})
    if kind == "FSDP":
        version = (content.get("fsdp_config") or {}).get("fsdp_version", 1)
        if version != 2:
            raise RecipeError(f"{path}: fsdp_version: {version}; 2 was expected. Write it as {FOLDER}/fsdp2.yaml does.")
        return "fsdp2"
    raise RecipeError(
        f"{path}: distributed_type: {kind}; MULTI_GPU, DEEPSPEED or FSDP was expected, on CPUs too. Start from a file of {FOLDER}/."
    )


def _read_zero(path: Path, zero: Mapping[str, Any]) -> str:
    if "deepspeed_config_file" in zero:
        raise RecipeError(
            f"{path}: deepspeed_config_file; zero_stage and its like were expected in deepspeed_config itself, for the rest is the recipe's."
        )
    for key, ours in _RECIPE_KEYS.items():
        if zero.get(key, "auto") != "auto":
            raise RecipeError(
                f"{path}: {key}: {zero[key]}; 'auto' was expected. Remove it: {ours} of the recipe decides it."
            )
    stage = zero.get("zero_stage", 2)
    if stage not in (1, 2, 3):
        raise RecipeError(f"{path}: zero_stage: {stage}; 1, 2 or 3 was expected. Use ddp to deal nothing out.")
    if stage == 3 and zero.get("zero3_save_16bit_model") is not True:
        raise RecipeError(
            f"{path}: zero3_save_16bit_model: {zero.get('zero3_save_16bit_model')}; true was expected, or no weights could be saved."
        )
    return f"zero{stage}"
