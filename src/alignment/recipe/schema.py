"""What a recipe may say: one frozen pydantic model per stage, one field per key.

This file is the manual: the comment behind a field becomes its line in `docs/recipe.md` and in the JSON schema that
editors read. A stage has exactly the keys that it reads, so a key that a stage would ignore cannot be written for it.
Reading YAML, locating mistakes and suggesting names is the loader's; nothing here opens a file or imports torch.
"""

import difflib
from collections.abc import Callable
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, Strict, model_validator

from alignment.recipe.model_config import ModelConfigSpec

# ------------------------------------------------------------------------------------------------ scalars

Scalar = str | int | float | bool


def _freeze(mapping: dict) -> MappingProxyType:
    return MappingProxyType(dict(mapping))


def _mapping(value_type: Any) -> Any:
    """A read-only dict from string to `value_type`."""
    return Annotated[dict[str, value_type], AfterValidator(_freeze), PlainSerializer(dict)]


def _sequence(item_type: Any) -> Any:
    """A YAML list, kept as a tuple."""
    return Annotated[tuple[item_type, ...], Strict(False)]


Strings = _sequence(str)
StringMap = _mapping(str)
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class BrokenRule(ValueError):
    """Keys that are right one by one and do not go together. `at`: the keys concerned, from the section on."""

    def __init__(self, message: str, *at: str) -> None:
        super().__init__(message)
        self.at = at


class Spec(BaseModel):
    """Base of every section: unknown keys refused, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, protected_namespaces=())

    # Rules between keys; each reads attributes and raises BrokenRule. The loader also asks them one by one.
    RULES: ClassVar[tuple[Callable[[Any], None], ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> "Spec":
        for rule in self.RULES:
            rule(self)
        return self


# ------------------------------------------------------------------------------------------------ model


def _one_origin(model: "ModelSpec") -> None:
    if (model.path is None) == (model.config is None):
        raise BrokenRule("give exactly one of 'path' (a folder or Hub id) and 'config' (a new model)", "path", "config")


def _revision_of_path(model: "ModelSpec") -> None:
    if model.config is not None and model.revision is not None:
        raise BrokenRule("'revision' belongs to a 'path'; a new model from 'config' has none", "revision")


class ModelSpec(Spec):
    """The model that training starts from."""

    path: str | None = Field(None, description="Hub id, or a folder such as runs/STUDY/sft/final; or give `config`")
    config: ModelConfigSpec | None = Field(None, description="architecture of a new model; or give `path`")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the saved weights; auto: that of the weights it starts from"
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"] = Field(
        "sdpa", description="attention kernel"
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with a Hub model")

    RULES = (_one_origin, _revision_of_path)


class LoadedModelSpec(Spec):
    """The model that training starts from."""

    path: str = Field(description="Hub id, or a folder such as runs/STUDY/sft/final")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the saved weights; auto: that of the weights it starts from"
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"] = Field(
        "sdpa", description="attention kernel"
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with a Hub model")


class TokenizerSpec(Spec):
    """Which tokenizer to use."""

    path: str | None = Field(None, description="Hub id or folder; default: the model's own")


class NewTokenizerSpec(Spec):
    """The tokenizer to train."""

    algorithm: Literal["bpe", "unigram"] = Field("bpe", description="byte-level BPE, or SentencePiece unigram")
    vocab_size: Annotated[int, Field(ge=260)] = Field(description="entries, special tokens and bytes included")
    special_tokens: Strings = Field((), description="further special tokens, beside those the chat template needs")


class LoraSpec(Spec):
    """Train low-rank adapters (https://arxiv.org/abs/2106.09685) instead of all weights."""

    r: Positive = Field(16, description="rank")
    lora_alpha: Positive = Field(32, description="scale: updates are multiplied by lora_alpha / r")
    lora_dropout: Fraction = Field(0.0, description="dropout before the adapter")
    target_modules: str | Strings = Field("all-linear", description="module names, or all-linear")
    modules_to_save: Strings = Field((), description="modules trained whole beside the adapters, e.g. embed_tokens")
    use_dora: bool = Field(False, description="weight-decomposed LoRA, https://arxiv.org/abs/2402.09353")
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r), https://arxiv.org/abs/2312.03732")
    load_in_4bit: bool = Field(False, description="QLoRA: base weights in nf4; needs the [qlora] extra and a GPU")
    save: Literal["merged", "adapter"] = Field(
        "merged", description="merged: final/ is a whole model; adapter: only it"
    )
    start: Literal["merge", "continue"] = Field(
        "merge", description="when model.path is a LoRA run: train a new adapter on the merged model, or go on with its"
    )


class ChatSpec(Spec):
    """How messages become tokens."""

    template: str = Field("from_tokenizer", description="a template's name, a .jinja file, or from_tokenizer")
    pad_token: str | None = Field(
        None, description="a token of the vocabulary to pad with; default: a reserved or new one"
    )
    system: str | None = Field(None, description="system message for rows that have none")


class RowChatSpec(ChatSpec):
    """How messages become tokens."""

    control_tokens: Literal["refuse", "escape"] = Field(
        "refuse", description="messages that spell a special token: bad rows, or encoded as the text that they are"
    )


class SftChatSpec(RowChatSpec):
    """How messages become tokens, and which of them are trained on."""

    train_on: Literal["assistant", "last_assistant", "all"] = Field(
        "assistant", description="all assistant turns, the last one only, or every token"
    )


# ------------------------------------------------------------------------------------------------ data

Format = Literal["messages", "prompt_completion", "alpaca", "sharegpt", "preference", "text"]


def _one_amount(source: "SourceSpec") -> None:
    if source.rows is not None and source.repeat is not None:
        raise BrokenRule(
            "give at most one of 'rows' and 'repeat'; without either the whole split is used once", "rows", "repeat"
        )


class SourceSpec(Spec):
    """One source of rows."""

    path: str = Field(description="Hub id, or a file or folder relative to the recipe; ${VAR} is replaced")
    name: str | None = Field(None, description="configuration (subset) of a Hub dataset")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub dataset")
    split: str | None = Field(
        None, description="split; default: train for `data.train`; needed for Hub ids in `data.eval`"
    )
    data_files: Strings = Field((), description="file patterns inside the folder or Hub dataset")
    format: Format = Field(description="how the rows are laid out")
    columns: StringMap = Field({}, description="our column name: the source's column name")
    roles: StringMap = Field({}, description="the source's role name: system, user, assistant or tool")
    system: str | None = Field(None, description="system message for rows of this source that have none")
    where: _mapping(Scalar) = Field({}, description="only rows whose columns have these values")
    rows: Positive | None = Field(None, description="number of rows to draw without repetition")
    repeat: Annotated[float, Field(gt=0)] | None = Field(
        None, description="how often to use the split; 0.5 is half of it"
    )

    RULES = (_one_amount,)


def _one_amount_or_share(source: "TrainSourceSpec") -> None:
    amounts = {"rows": source.rows, "repeat": source.repeat, "share": source.share}
    given = [name for name, amount in amounts.items() if amount is not None]
    if "share" in given and len(given) > 1:
        raise BrokenRule(f"give at most one of 'rows', 'repeat' and 'share'; found {' and '.join(given)}", *given)


class TrainSourceSpec(SourceSpec):
    """One source of rows."""

    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="part of the mixture, in the unit of `data.share_of`"
    )

    RULES = (_one_amount, _one_amount_or_share)


def _shares_have_a_unit(data: "MixtureSpec") -> None:
    shared = data.temperature is not None or any(source.share is not None for source in data.train)
    if shared and data.share_of is None:
        raise BrokenRule("'share' and 'temperature' need 'share_of': rows or tokens", "share_of", "temperature")
    for name, value in (("share_of", data.share_of), ("total", data.total), ("max_repeat", data.max_repeat)):
        if not shared and value is not None:
            raise BrokenRule(f"'{name}' is read with 'share' or 'temperature' only", name)


def _shares_fit(data: "MixtureSpec") -> None:
    shares = [source.share for source in data.train if source.share is not None]
    if not shares:
        return
    total = sum(shares)
    if data.temperature is not None:
        raise BrokenRule("give 'share' of sources or a 'temperature', not both", "temperature")
    if total > 1 + 1e-9:
        raise BrokenRule(f"the shares of 'train' add up to {total:g}; at most 1 was expected", "train")
    if len(shares) == len(data.train) and total < 1 - 1e-9:
        raise BrokenRule(f"the shares of 'train' add up to {total:g}; 1 was expected", "train")
    if len(shares) < len(data.train) and total > 1 - 1e-9:
        raise BrokenRule("the shares of 'train' add up to 1, and a source without 'share' is left", "train")
    if len(shares) < len(data.train) and data.total is not None:
        raise BrokenRule("'total' follows from the sources without 'share'", "total")


def _temperature_decides_alone(data: "MixtureSpec") -> None:
    amounts = [source for source in data.train if source.rows is not None or source.repeat is not None]
    if data.temperature is not None and amounts:
        raise BrokenRule(
            "'temperature' decides how much of each source is used; remove its 'rows' or 'repeat'", "train"
        )


class MixtureSpec(Spec):
    """A named mixture: training sources that several recipes share."""

    train: Annotated[_sequence(TrainSourceSpec), Field(min_length=1)] = Field(description="training sources")
    share_of: Literal["rows", "tokens"] | None = Field(None, description="what `share` and `temperature` count")
    temperature: Annotated[float, Field(ge=1)] | None = Field(
        None, description="shares in proportion to size**(1/temperature): 1 as the sizes are, large: all alike"
    )
    total: Positive | None = Field(
        None, description="rows or tokens of the mixture; default: as many as `max_repeat` allows"
    )
    max_repeat: Annotated[float, Field(ge=1)] | None = Field(
        None, description="how often a row may be used to fill a share; default: once"
    )

    RULES = (_shares_have_a_unit, _shares_fit, _temperature_decides_alone)


class DataSpec(MixtureSpec):
    """Which rows to train and evaluate on."""

    max_length: Positive = Field(1024, description="longest row in tokens")
    on_too_long: Literal["truncate", "drop", "error"] = Field("drop", description="what to do with longer rows")
    on_bad_row: Literal["error", "drop"] = Field("error", description="what to do with a row that cannot be rendered")
    mixture: str | None = Field(
        None, description="a named mixture (mixtures/NAME.yaml, or a file) in place of `train` and how it is shared"
    )
    eval: _sequence(SourceSpec) = Field((), description="held-out sources")


class PackedDataSpec(DataSpec):
    """Which rows to train and evaluate on."""

    packing: bool = Field(
        False, description="fill each row of max_length tokens with whole examples that cannot see each other"
    )


class PretrainDataSpec(DataSpec):
    """Which documents to train and evaluate on; they are packed, and longer ones are split."""

    on_too_long: Literal["split", "truncate", "drop", "error"] = Field(
        "split", description="what to do with longer documents"
    )
    packing: bool = Field(
        True, description="fill each row of max_length tokens with documents that cannot see each other"
    )


class TextDataSpec(Spec):
    """Which text the tokenizer is trained on."""

    train: Annotated[_sequence(SourceSpec), Field(min_length=1)] = Field(description="training sources")


class EvalDataSpec(Spec):
    """Which rows to evaluate on."""

    max_length: Positive = Field(1024, description="longest row in tokens")
    on_too_long: Literal["truncate", "drop", "error"] = Field("drop", description="what to do with longer rows")
    on_bad_row: Literal["error", "drop"] = Field("error", description="what to do with a row that cannot be rendered")
    eval: Annotated[_sequence(SourceSpec), Field(min_length=1)] = Field(description="held-out sources")


# ------------------------------------------------------------------------------------------------ training

Scheduler = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_min_lr",
    "warmup_stable_decay",
]  # fmt: skip
# What each scheduler of transformers 5.23 reads from lr_scheduler_kwargs (optimization.py).
SCHEDULER_KWARGS = {
    "cosine": {"num_cycles"},
    "polynomial": {"lr_end", "power"},
    "inverse_sqrt": {"timescale"},
    "cosine_with_min_lr": {"num_cycles", "min_lr", "min_lr_rate"},
    "warmup_stable_decay": {"num_decay_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"},
}
Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor", "sgd"
]  # fmt: skip


def _one_duration(train: "TrainSpec") -> None:
    if (train.num_train_epochs is None) == (train.max_steps is None):
        raise BrokenRule("give exactly one of 'num_train_epochs' and 'max_steps'", "num_train_epochs", "max_steps")


def _scheduler_reads_kwargs(train: "TrainSpec") -> None:
    known = sorted(SCHEDULER_KWARGS.get(train.lr_scheduler_type, ()))
    for name in train.lr_scheduler_kwargs:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise BrokenRule(
                f"lr_scheduler_kwargs: '{name}' is not read by lr_scheduler_type {train.lr_scheduler_type}; "
                + (f"did you mean '{near[0]}'?" if near else f"it reads: {', '.join(known) or 'none'}"),
                f"lr_scheduler_kwargs.{name}",
            )


def _constant_has_no_warmup(train: "TrainSpec") -> None:
    if train.lr_scheduler_type == "constant" and train.warmup_steps:
        raise BrokenRule(
            "lr_scheduler_type constant ignores warmup_steps; use constant_with_warmup", "lr_scheduler_type"
        )


def _best_is_evaluated(train: "TrainSpec") -> None:
    if train.keep == "best" and train.eval_steps is None:
        raise BrokenRule("keep: best needs eval_steps", "keep")


def _best_is_saved(train: "TrainSpec") -> None:
    if train.keep == "best" and train.save_steps != train.eval_steps:
        raise BrokenRule(
            "keep: best needs save_steps equal to eval_steps, so that the best weights are on disk", "keep"
        )


class TrainSpec(Spec):
    """The optimisation. Nothing here depends on how many processes run it."""

    num_train_epochs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="passes over the rows; or give `max_steps`"
    )
    max_steps: Positive | None = Field(None, description="optimizer steps; or give `num_train_epochs`")
    global_batch_size: Positive = Field(
        32, description="rows in one optimizer step over all processes; accumulation is derived"
    )
    per_device_train_batch_size: Positive = Field(8, description="rows in one forward pass of one process")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak learning rate")
    lr_scheduler_type: Scheduler = Field("cosine", description="shape of the schedule")
    lr_scheduler_kwargs: _mapping(Scalar) = Field({}, description="further arguments of that schedule")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="steps of linear warm-up")
    optim: Optimizer = Field("adamw_torch_fused", description="optimizer")
    adam_beta1: Fraction = Field(0.9, description="decay of the first moment")
    adam_beta2: Fraction = Field(0.999, description="decay of the second moment")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="decoupled weight decay")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradient norm is clipped to this")
    bf16: Literal["auto"] | bool = Field(
        "auto", description="compute in bfloat16; auto: where the device is faster with it"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    logging_steps: Positive = Field(10, description="steps between two lines of metrics.jsonl")
    eval_steps: Positive | None = Field(None, description="steps between two evaluations; default: at the end only")
    save_steps: Positive | None = Field(None, description="steps between two checkpoints; default: at the end only")
    save_total_limit: Positive = Field(2, description="checkpoints kept")
    keep: Literal["last", "best"] = Field(
        "last", description="which weights become final/: the last or those of the best eval loss"
    )

    RULES = (_one_duration, _scheduler_reads_kwargs, _constant_has_no_warmup, _best_is_evaluated, _best_is_saved)


# ------------------------------------------------------------------------------------------------ stages' own

DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "discopop", "apo_zero", "apo_down", "sigmoid_norm",
]  # fmt: skip


class DpoSpec(Spec):
    """Direct preference optimisation, https://arxiv.org/abs/2305.18290."""

    loss_type: DpoLoss = Field("sigmoid", description="loss, as TRL names them")
    beta: Annotated[float, Field(gt=0)] = Field(0.1, description="strength of the pull to the reference")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="share of pairs assumed mislabelled"
    )
    sft_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the mean negative log-likelihood of `chosen`"
    )
    reference: str = Field(description="start (the model it starts from), base (below its LoRA), or a folder or Hub id")


class RewardSpec(Spec):
    """Bradley-Terry reward model."""

    center_rewards_coefficient: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="weight of the squared sum of rewards that centres them at 0, https://arxiv.org/abs/2312.09244",
    )


class MetricSpec(Spec):
    """One measured number."""

    metric: str = Field(description="a name from `alignment.measure.metrics.METRICS`")
    name: str | None = Field(None, description="name in the results; default: the metric's")
    where: _mapping(Scalar) = Field({}, description="only rows whose columns have these values")
    by: str | None = Field(None, description="also once for each value of this column, as NAME/VALUE")


class EvalSpec(Spec):
    """What is measured on the held-out rows, before and after training."""

    per_device_eval_batch_size: Positive = Field(8, description="rows in one forward pass of one process")
    num_samples: Annotated[int, Field(ge=0)] = Field(8, description="generations shown in the report, before and after")
    max_new_tokens: Positive = Field(128, description="longest generation in tokens")
    metrics: _sequence(str | MetricSpec) = Field((), description="metrics, by name or with `where` and `by`")


class ScoreEvalSpec(Spec):
    """What is measured on the held-out pairs, before and after training."""

    per_device_eval_batch_size: Positive = Field(8, description="pairs in one forward pass of one process")
    metrics: _sequence(str | MetricSpec) = Field((), description="metrics, by name or with `where` and `by`")


class EvaluateSpec(EvalSpec):
    """What is measured."""

    metrics: Annotated[_sequence(str | MetricSpec), Field(min_length=1)] = Field(
        description="metrics, by name or with `where` and `by`"
    )
    against: str | None = Field(None, description="a folder or Hub id to compare with")


# ------------------------------------------------------------------------------------------------ recipes


class Recipe(Spec):
    """What every recipe has."""

    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="everything random is drawn from it: rows, weights, dropout"
    )


class TokenizerRecipe(Recipe):
    """Train a tokenizer."""

    stage: Literal["tokenizer"]
    tokenizer: NewTokenizerSpec
    chat: ChatSpec = ChatSpec(template="chatml")
    data: TextDataSpec


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

    RULES = (_new_model_has_tokenizer,)


class SftRecipe(Recipe):
    """Supervised fine-tuning on conversations."""

    stage: Literal["sft"]
    model: LoadedModelSpec
    tokenizer: TokenizerSpec = TokenizerSpec()
    lora: LoraSpec | None = None
    chat: SftChatSpec = SftChatSpec()
    data: PackedDataSpec
    train: TrainSpec
    eval: EvalSpec = EvalSpec()


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

    RULES = (_base_needs_lora,)


class EvaluateRecipe(Recipe):
    """Measure a model on held-out rows."""

    stage: Literal["evaluate"]
    model: LoadedModelSpec
    chat: RowChatSpec = RowChatSpec()
    data: EvalDataSpec
    evaluate: EvaluateSpec


RECIPES: dict[str, type[Recipe]] = {
    "tokenizer": TokenizerRecipe,
    "pretrain": PretrainRecipe,
    "sft": SftRecipe,
    "reward": RewardRecipe,
    "dpo": DpoRecipe,
    "evaluate": EvaluateRecipe,
}
