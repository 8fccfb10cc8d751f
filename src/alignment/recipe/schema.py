"""What a recipe may say: one frozen pydantic model per stage, one section per key.

The sections are in the modules beside this one (`*_spec.py`): these are the manual. A stage has exactly the keys that it reads, so a
key that a stage would ignore cannot be written for it.
"""

from typing import Annotated, Literal

from pydantic import Field

from alignment.recipe.curate_spec import CurateDataSpec, CurateSpec
from alignment.recipe.data_spec import (
    STAGE_FORMATS,
    DataSpec,
    EvalDataSpec,
    PackedDataSpec,
    PretrainDataSpec,
    PromptDataSpec,
    TextDataSpec,
)
from alignment.recipe.metric_spec import kl_has_other_model, metrics_can_be_measured
from alignment.recipe.model_spec import (
    ChatSpec,
    LoadedModelSpec,
    LoraSpec,
    ModelSpec,
    NewTokenizerSpec,
    RowChatSpec,
    SftChatSpec,
    SftLoraSpec,
    TokenizerSpec,
)
from alignment.recipe.spec import BrokenRule, Spec
from alignment.recipe.stage_spec import KL_HORIZON, DpoSpec, EvalSpec, EvaluateSpec, PpoSpec, RewardSpec, ScoreEvalSpec
from alignment.recipe.train_spec import PpoTrainSpec, TrainSpec


def _stage_reads_formats(recipe: "Recipe") -> None:
    # A stage has the splits that its data section has.
    splits = [split for split in ("train", "eval") if split in type(recipe.data).model_fields]
    sources = {f"data.{split}.{n}": one for split in splits for n, one in enumerate(getattr(recipe.data, split))}
    known = STAGE_FORMATS[recipe.stage]
    wrong = {place: source.format for place, source in sources.items() if source.format not in known}
    if wrong:
        raise BrokenRule(
            f"stage {recipe.stage} cannot use the format of {', '.join(f'{place} ({name})' for place, name in wrong.items())}; "
            f"it reads: {', '.join(known)}",
            f"{next(iter(wrong))}.format",
        )


class Recipe(Spec):
    """What every recipe has."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(  # what NumPy's generators take
        0, description="everything random is drawn from it: rows, weights, dropout"
    )

    RULES = (_stage_reads_formats,)


class TokenizerRecipe(Recipe):
    """Train a tokenizer."""

    stage: Literal["tokenizer"]
    tokenizer: NewTokenizerSpec
    chat: ChatSpec = ChatSpec(template="chatml")
    data: TextDataSpec


def _evaluations_have_rows(recipe: "Recipe") -> None:
    if recipe.train.eval_steps is not None and not recipe.data.eval:
        raise BrokenRule(
            "train.eval_steps: there are no held-out rows to evaluate on; give 'data.eval', or remove it",
            "train.eval_steps",
        )


def _metrics_have_rows(recipe: "Recipe") -> None:
    if recipe.eval.metrics and not recipe.data.eval:
        raise BrokenRule(
            "eval.metrics: there are no held-out rows to measure on; give 'data.eval', or remove it", "eval.metrics"
        )


# Of the stages that train a model.
_TRAINING_RULES = (*Recipe.RULES, _evaluations_have_rows, _metrics_have_rows, metrics_can_be_measured)


def _new_model_has_tokenizer(recipe: "PretrainRecipe") -> None:
    if recipe.model.config is not None and recipe.tokenizer.path is None:
        raise BrokenRule(
            "a model from 'model.config' has no tokenizer of its own: give 'tokenizer.path'", "model.config"
        )


class PretrainRecipe(Recipe):
    """Train a causal language model from its config, or on from a checkpoint."""

    stage: Literal["pretrain"]
    model: ModelSpec
    tokenizer: TokenizerSpec = TokenizerSpec()
    data: PretrainDataSpec
    train: TrainSpec
    eval: EvalSpec = EvalSpec()

    RULES = (*_TRAINING_RULES, _new_model_has_tokenizer)


class SftRecipe(Recipe):
    """Supervised fine-tuning on conversations."""

    stage: Literal["sft"]
    model: LoadedModelSpec
    tokenizer: TokenizerSpec = TokenizerSpec()
    lora: SftLoraSpec | None = None
    chat: SftChatSpec = SftChatSpec()
    data: PackedDataSpec
    train: TrainSpec
    eval: EvalSpec = EvalSpec()

    RULES = _TRAINING_RULES


class RewardRecipe(Recipe):
    """Reward model from preferences."""

    stage: Literal["reward"]
    model: LoadedModelSpec
    tokenizer: TokenizerSpec = TokenizerSpec()
    lora: LoraSpec | None = None
    chat: RowChatSpec = RowChatSpec()
    data: DataSpec
    train: TrainSpec
    reward: RewardSpec = RewardSpec()
    eval: ScoreEvalSpec = ScoreEvalSpec()

    RULES = _TRAINING_RULES


def _base_needs_lora(recipe: "DpoRecipe") -> None:
    if recipe.dpo.reference == "base" and recipe.lora is None:
        raise BrokenRule(
            "dpo.reference: base is the model below a LoRA adapter; this recipe has no 'lora' section", "dpo.reference"
        )


class DpoRecipe(Recipe):
    """Direct preference optimisation."""

    stage: Literal["dpo"]
    model: LoadedModelSpec
    tokenizer: TokenizerSpec = TokenizerSpec()
    lora: LoraSpec | None = None
    chat: RowChatSpec = RowChatSpec()
    data: DataSpec
    train: TrainSpec
    dpo: DpoSpec
    eval: EvalSpec = EvalSpec()

    RULES = (*_TRAINING_RULES, _base_needs_lora)


def _whole_updates(recipe: "PpoRecipe") -> None:
    size = recipe.ppo.num_ppo_epochs * recipe.ppo.num_mini_batches
    for name in ("max_steps", "eval_steps", "save_steps"):
        steps = getattr(recipe.train, name)
        if steps is not None and steps % size:
            near = [multiple for multiple in (steps // size * size, (steps // size + 1) * size) if multiple]
            raise BrokenRule(
                f"{name}: {steps} is not a whole number of updates: {recipe.ppo.num_ppo_epochs} epochs x "
                f"{recipe.ppo.num_mini_batches} mini-batches are {size} steps; write {' or '.join(map(str, near))}",
                f"train.{name}",
            )


def _reference_of_adapter(recipe: "PpoRecipe") -> None:
    if recipe.lora is not None and recipe.lora.start == "continue":
        raise BrokenRule(
            "lora.start: continue: the reference is the model with its adapter off, which would be the base and not the model "
            "that training starts from; write start: merge",
            "lora.start",
        )


def _adapters_on_shared_base(recipe: "PpoRecipe") -> None:
    if not recipe.ppo.share_base:
        return
    if recipe.lora is None:
        raise BrokenRule(
            "share_base: one base is policy, reference and critic only below adapters; add a 'lora' section",
            "ppo.share_base",
        )
    if recipe.lora.load_in_4bit:
        raise BrokenRule(
            "share_base: 4-bit weights that several models share were never run; leave one of the two out",
            "ppo.share_base",
            "lora.load_in_4bit",
        )


def _gold_has_rows(recipe: "PpoRecipe") -> None:
    if recipe.ppo.gold is not None and not recipe.data.eval:
        raise BrokenRule(
            "ppo.gold: it is asked about held-out rows, and there are none; give 'data.eval', or remove it", "ppo.gold"
        )


def _hacking_is_looked_for(recipe: "PpoRecipe") -> None:
    if "reward_hacking" in recipe.ppo.stop_on and (recipe.train.eval_steps is None or not recipe.data.eval):
        raise BrokenRule(
            "ppo.stop_on: reward_hacking compares the evaluations of a training, and there is one at most; give "
            "'train.eval_steps' and 'data.eval'",
            "ppo.stop_on",
        )


def _kl_coef_stays_positive(recipe: "PpoRecipe") -> None:
    """The controller multiplies by 1 + error * completions / horizon, and its error goes down to -0.2."""
    completions = recipe.train.global_batch_size * recipe.ppo.num_mini_batches
    horizon = recipe.ppo.kl_horizon or KL_HORIZON
    if recipe.ppo.kl_target is not None and 5 * horizon <= completions:
        raise BrokenRule(
            f"ppo.kl_horizon: {horizon} is at most a fifth of the {completions} completions of an update, so that one update could "
            f"take all of kl_coef away; write at least {completions // 5 + 1}",
            "ppo.kl_horizon" if recipe.ppo.kl_horizon else "ppo.kl_target",
        )


class PpoRecipe(Recipe):
    """Reinforcement learning from rewards, with a critic (PPO)."""

    stage: Literal["ppo"]
    model: LoadedModelSpec
    tokenizer: TokenizerSpec = TokenizerSpec()
    lora: LoraSpec | None = None
    chat: ChatSpec = ChatSpec()
    data: PromptDataSpec
    train: PpoTrainSpec
    ppo: PpoSpec
    eval: EvalSpec = EvalSpec()

    RULES = (
        *_TRAINING_RULES,
        _whole_updates,
        _reference_of_adapter,
        _adapters_on_shared_base,
        _gold_has_rows,
        _hacking_is_looked_for,
        _kl_coef_stays_positive,
    )


class EvaluateRecipe(Recipe):
    """Measure a model on held-out rows."""

    stage: Literal["evaluate"]
    model: LoadedModelSpec
    chat: RowChatSpec = RowChatSpec()
    data: EvalDataSpec
    evaluate: EvaluateSpec

    RULES = (*Recipe.RULES, metrics_can_be_measured, kl_has_other_model)


class CurateRecipe(Recipe):
    """Raw rows to clean rows: duplicates, noise, personal data and evaluation items taken out."""

    stage: Literal["curate"]
    data: CurateDataSpec
    curate: CurateSpec


RECIPES: dict[str, type[Recipe]] = {
    "curate": CurateRecipe,
    "tokenizer": TokenizerRecipe,
    "pretrain": PretrainRecipe,
    "sft": SftRecipe,
    "reward": RewardRecipe,
    "dpo": DpoRecipe,
    "ppo": PpoRecipe,
    "evaluate": EvaluateRecipe,
}
