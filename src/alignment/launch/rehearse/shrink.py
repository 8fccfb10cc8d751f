"""The recipe with everything that only costs time made small. Pure: fields of a recipe in, fields and remarks out.

What decides whether the run works stays as it is: stage, loss, chat template, LoRA targets, the shape of the schedule, packing,
precision, gradient checkpointing, what is done with bad and long rows.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.launch.rehearse.families import shrink_config
from alignment.recipe.resolved import recipe_fields
from alignment.recipe.schema import RECIPES, PpoRecipe, Recipe

RANKS = 2
_BATCH = 4  # rows of a step, where the recipe has as many
_NEW_TOKENS = 6
_VOCAB_SIZE = 512
_SCHEDULE_STEPS = {"num_decay_steps"}  # keys of lr_scheduler_kwargs that count steps


@dataclass(frozen=True)
class Steps:
    """When the rehearsed run writes a checkpoint, is killed, and ends, in optimizer steps."""

    checkpoint: int
    killed: int
    last: int


@dataclass(frozen=True)
class Remark:
    """Something that the rehearsal does otherwise than the recipe, and therefore cannot prove."""

    what: str
    why: str


def plan_steps(recipe: Recipe) -> Steps:
    """Three steps to the checkpoint, two that are lost and made again, one more; of PPO an update each."""
    if not isinstance(recipe, PpoRecipe):
        return Steps(checkpoint=3, killed=5, last=6)
    update = min(recipe.ppo.num_ppo_epochs, 2) * min(recipe.ppo.num_mini_batches, 2)
    return Steps(checkpoint=update, killed=2 * update, last=3 * update)


def shrink(
    recipe: Recipe,
    *,
    inputs: Mapping[tuple[str, str], str],
    sources: Mapping[str, Sequence[tuple[str, int]]],
    max_length: int | None,
    accumulates: bool,
) -> tuple[dict[str, Any], list[Remark]]:
    """Fields of the rehearsed recipe, and what they leave unproven.

    Args:
        inputs: (section, key) to the folder that stands in for the model or tokenizer named there.
        sources: of each split, the file and the number of rows of each source.
        max_length: longest row in tokens; None for a stage without one.
        accumulates: the recipe's batch takes several passes on the processes that it is meant for.
    """
    fields = recipe_fields(recipe)
    remarks: list[Remark] = []
    _shrink_data(fields, sources, max_length)
    for (section, key), path in inputs.items():
        fields[section][key] = path
    if "model" in fields:
        remarks += _shrink_model(fields["model"], max_length or 0)
    if fields.get("lora"):
        remarks += _shrink_lora(fields["lora"])
    if "train" in fields:
        remarks += _shrink_train(fields["train"], plan_steps(recipe), accumulates)
    if recipe.stage == "tokenizer":
        fields["tokenizer"]["vocab_size"] = min(fields["tokenizer"]["vocab_size"], _VOCAB_SIZE)
    if "ppo" in fields:
        fields["train"].pop("logging_steps", None)
        remarks += _shrink_ppo(fields["ppo"])
    for name in ("eval", "evaluate"):
        if name in fields:
            _shrink_eval(fields[name])
    _place_templates(fields)
    return fields, remarks


def build_recipe(fields: Mapping[str, Any]) -> Recipe:
    """The recipe of such fields, judged by the same rules as any other."""
    return RECIPES[fields["stage"]].model_validate(fields)


# ------------------------------------------------------------------------------------------------ sections


def _shrink_data(
    fields: dict[str, Any], sources: Mapping[str, Sequence[tuple[str, int]]], max_length: int | None
) -> None:
    data = fields["data"]
    for split, files in sources.items():
        for source, (path, num_rows) in zip(data[split], files, strict=True):
            source["path"] = path
            for key in ("name", "revision", "split", "data_files", "stream"):
                source.pop(key, None)
            if source.get("rows"):
                source["rows"] = min(source["rows"], num_rows)
            if source.get("repeat"):
                source["repeat"] = max(source["repeat"], 1 / num_rows)
    data.pop("total", None)
    if max_length is not None:
        data["max_length"] = max_length


def _shrink_model(model: dict[str, Any], max_length: int) -> Iterator[Remark]:
    model.pop("revision", None)
    kernel = model["attn_implementation"]
    if kernel.startswith("flash") or kernel == "flex_attention":
        model["attn_implementation"] = "sdpa"
        yield Remark(f"attention kernel {kernel}", "it needs a GPU; rehearsed with sdpa")
    if model.get("config"):
        config = model["config"]
        small = shrink_config(config, max_length)
        # Only what the recipe gives: everything else is transformers' default there and here.
        model["config"] = {key: small.get(key, value) for key, value in config.items()}


def _shrink_lora(lora: dict[str, Any]) -> Iterator[Remark]:
    if lora["load_in_4bit"]:
        lora["load_in_4bit"] = False
        yield Remark("base weights in 4 bits", "they need bitsandbytes; rehearsed in 16 or 32 bits")


def _shrink_train(train: dict[str, Any], steps: Steps, accumulates: bool) -> Iterator[Remark]:
    train.pop("num_train_epochs", None)
    train["max_steps"] = steps.last
    batch = train["global_batch_size"]
    if batch % RANKS:
        yield Remark(f"a global batch of {batch} on several processes", f"it cannot be dealt out to {RANKS}")
    train["global_batch_size"] = _BATCH if batch >= _BATCH else RANKS
    passes = RANKS if accumulates else 1
    train["per_device_train_batch_size"] = max(1, train["global_batch_size"] // RANKS // passes)
    train["logging_steps"] = 1
    train["save_steps"] = steps.checkpoint
    if train.get("eval_steps"):
        train["eval_steps"] = steps.checkpoint
    train["warmup_steps"] = min(train["warmup_steps"], 2)
    for key in _SCHEDULE_STEPS & set(train["lr_scheduler_kwargs"]):
        train["lr_scheduler_kwargs"][key] = min(train["lr_scheduler_kwargs"][key], 2)
    if "bnb" in train["optim"] or "paged" in train["optim"]:
        yield Remark(f"optimizer {train['optim']}", "it needs bitsandbytes; rehearsed with adamw_torch")
        train["optim"] = "adamw_torch"


def _shrink_ppo(ppo: dict[str, Any]) -> Iterator[Remark]:
    for key, most in (
        ("max_new_tokens", _NEW_TOKENS),
        ("per_device_rollout_batch_size", _BATCH),
        ("num_ppo_epochs", 2),
        ("num_mini_batches", 2),
        ("critic_warmup_updates", 1),
    ):
        ppo[key] = min(ppo[key], most)
    if ppo["sampler"] != "transformers":
        yield Remark(f"sampler {ppo['sampler']}", "it needs a GPU; rehearsed with transformers")
        ppo["sampler"] = "transformers"
        for key in ("sampler_url", "sampler_memory", "importance_cap"):
            ppo.pop(key, None)
    if ppo["share_base"] and ppo["value_model"] == "reward":
        yield Remark("share_base with value_model: reward", "the stand-in is no LoRA run; the critic begins at start")
        ppo["value_model"] = "start"
    if ppo["stop_on"]:
        yield Remark(f"alerts that end the run: {', '.join(ppo['stop_on'])}", "a tiny model may raise any of them")
        ppo["stop_on"] = []


def _shrink_eval(section: dict[str, Any]) -> None:
    for key, most in (("per_device_eval_batch_size", _BATCH), ("num_samples", 2), ("max_new_tokens", _NEW_TOKENS)):
        if key in section:
            section[key] = min(section[key], most)


# ------------------------------------------------------------------------------------------------ templates


def template_files(recipe: Recipe) -> list[str]:
    """Chat templates that are files, as the recipe writes them."""
    fields = recipe_fields(recipe)
    named = [fields.get("chat", {}).get("template"), fields.get("ppo", {}).get("reward_template")]
    return [name for name in named if name and name.endswith(".jinja")]


def _place_templates(fields: dict[str, Any]) -> None:
    """They are copied beside the rehearsed recipe."""
    for section, key in (("chat", "template"), ("ppo", "reward_template")):
        name = fields.get(section, {}).get(key, "")
        if name.endswith(".jinja"):
            fields[section][key] = os.path.basename(name)
