"""What a recipe may say: one frozen pydantic model per stage, one field per key.

This file is the manual: the comment behind a field becomes its line in `docs/recipe.md` and in the JSON schema that
editors read. A stage has exactly the keys that it reads, so a key that a stage would ignore cannot be written for it.
Reading YAML, locating mistakes and suggesting names is the loader's; nothing here opens a file or imports torch.
"""

import difflib
from collections.abc import Callable
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from alignment.recipe.model_config import BrokenRule, ModelConfigSpec
from alignment.recipe.places import SPLIT, data_suffix, keeps_its_code, means_local_data
from alignment.recipe.shape import expected, kinds

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
PositiveNumber = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonEmpty = Annotated[str, Field(min_length=1)]


def _revive(section: "type[Spec]", text: str) -> "Spec":
    return section.model_validate_json(text)


class Spec(BaseModel):
    """Base of every section: unknown keys refused, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, protected_namespaces=())

    # Rules between keys; each reads attributes and raises BrokenRule. The loader also asks them one by one.
    RULES: ClassVar[tuple[Callable[[Any], None], ...]] = ()

    def __deepcopy__(self, memo: dict) -> "Spec":
        return self  # nothing of it can change

    def __reduce__(self) -> tuple:
        # Read-only mappings cannot be pickled; workers of a curation get their specs this way.
        return _revive, (type(self), self.model_dump_json())

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


def _code_is_pinned(model: "ModelSpec | LoadedModelSpec") -> None:
    """Code that may change under its name is run by nobody who has read it."""
    if model.trust_remote_code and model.path is not None and not keeps_its_code(model.path, model.revision):
        raise BrokenRule(
            "'trust_remote_code' runs Python of that repository: give the 'revision' that you have read, a commit of 40 hex digits "
            "(a folder's path begins with ./)",
            "trust_remote_code",
            "revision",
        )


class ModelSpec(Spec):
    """The model that training starts from."""

    path: NonEmpty | None = Field(
        None, description="Hub id, or a folder such as runs/STUDY/sft/final; or give `config`"
    )
    config: ModelConfigSpec | None = Field(None, description="architecture of a new model; or give `path`")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the saved weights; auto: that of the weights it starts from"
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"] = Field(
        "sdpa", description="attention kernel"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with a Hub model; `revision` must be a commit then"
    )

    RULES = (_one_origin, _revision_of_path, _code_is_pinned)


class LoadedModelSpec(Spec):
    """The model that training starts from."""

    path: NonEmpty = Field(description="Hub id, or a folder such as runs/STUDY/sft/final")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the saved weights; auto: that of the weights it starts from"
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"] = Field(
        "sdpa", description="attention kernel"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with a Hub model; `revision` must be a commit then"
    )

    RULES = (_code_is_pinned,)


class TokenizerSpec(Spec):
    """Which tokenizer to use."""

    path: NonEmpty | None = Field(None, description="Hub id or folder; default: the model's own")


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
    load_in_4bit: bool = Field(False, description="QLoRA: base weights in nf4; needs the [qlora] extra")
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

Format = Literal["messages", "prompt_completion", "alpaca", "sharegpt", "preference", "prompt", "text"]
# The formats whose rows a stage can use.
STAGE_FORMATS: dict[str, tuple[str, ...]] = {
    "curate": get_args(Format),
    "tokenizer": ("text", "prompt_completion", "messages", "alpaca", "sharegpt"),
    "pretrain": ("text", "prompt_completion"),
    "sft": ("messages", "prompt_completion", "alpaca", "sharegpt"),
    "reward": ("preference",),
    "dpo": ("preference",),
    "ppo": ("prompt", "messages", "prompt_completion", "alpaca", "sharegpt", "preference"),
    "evaluate": ("text", "prompt_completion", "messages", "alpaca", "sharegpt", "preference"),
}


def _one_amount(source: "SourceSpec") -> None:
    if source.rows is not None and source.repeat is not None:
        raise BrokenRule(
            "give at most one of 'rows' and 'repeat'; without either the whole split is used once", "rows", "repeat"
        )


def _stream_is_bounded(source: "SourceSpec") -> None:
    if source.stream and source.rows is None:
        raise BrokenRule("a 'stream' is read up to a number of rows: give 'rows', and no other amount", "stream")
    if source.stream and "[" in (source.split or ""):
        raise BrokenRule("a 'stream' has no slices, which need the length of the split: give its name alone", "split")


def _split_can_be_read(source: "SourceSpec") -> None:
    if source.split is not None and not SPLIT.fullmatch(source.split):
        raise BrokenRule(
            f"split {source.split!r}; a name, or a slice of it such as train[:90%] or train[100:200], was expected",
            "split",
        )


def _hub_keys_of_hub(source: "SourceSpec") -> None:
    """As far as the path's text says it; what exists on this disk is for the reader of sources to find out."""
    # A variable may hold a Hub id.
    if not means_local_data(source.path) or (source.path.startswith("${") and data_suffix(source.path) is None):
        return
    values = {"name": source.name, "revision": source.revision, "stream": source.stream}
    given = [name for name, value in values.items() if value not in (None, False)]
    if given:
        raise BrokenRule(
            f"{source.path}: '{given[0]}' belongs to a Hub dataset, and this is a local path; remove the key", given[0]
        )


def _roles_are_read(source: "SourceSpec") -> None:
    if source.roles and source.format in ("alpaca", "text"):
        raise BrokenRule(f"'roles' is not read by format {source.format}, whose rows name none; remove it", "roles")


def _system_is_read(source: "SourceSpec") -> None:
    if source.system and source.format == "text":
        raise BrokenRule("'system' is not read by format text, whose rows are no conversations; remove it", "system")


class SourceSpec(Spec):
    """One source of rows."""

    path: NonEmpty = Field(description="Hub id, or a file or folder relative to the recipe; ${VAR} is replaced")
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
    stream: bool = Field(
        False, description="of a Hub dataset keep its first `rows` rows only, shards in an order that the seed draws"
    )

    RULES = (
        _one_amount,
        _stream_is_bounded,
        _split_can_be_read,
        _hub_keys_of_hub,
        _roles_are_read,
        _system_is_read,
    )


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

    RULES = (*SourceSpec.RULES, _one_amount_or_share)


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


def _documents_have_no_turns(data: "PretrainDataSpec") -> None:
    """Prompts and completions are joined as they are."""
    for split, sources in (("train", data.train), ("eval", data.eval)):
        for index, source in enumerate(sources):
            for name, value in (("roles", source.roles), ("system", source.system)):
                if value and source.format == "prompt_completion":
                    raise BrokenRule(
                        f"{split}.{index}: '{name}' is not read in stage pretrain, whose rows are running text; remove it",
                        f"{split}.{index}.{name}",
                    )


class PretrainDataSpec(DataSpec):
    """Which documents to train and evaluate on; they are packed, and longer ones are split."""

    on_too_long: Literal["split", "truncate", "drop", "error"] = Field(
        "split", description="what to do with longer documents"
    )
    packing: bool = Field(
        True, description="fill each row of max_length tokens with documents that cannot see each other"
    )

    RULES = (*DataSpec.RULES, _documents_have_no_turns)


class PromptDataSpec(Spec):
    """Which prompts to answer. Of conversations the prompt is what stands before the last answer."""

    max_length: Positive = Field(512, description="longest prompt in tokens")
    on_too_long: Literal["drop", "error"] = Field("drop", description="what to do with longer prompts; none is cut")
    on_bad_row: Literal["error", "drop"] = Field("error", description="what to do with a row that cannot be rendered")
    train: Annotated[_sequence(SourceSpec), Field(min_length=1)] = Field(description="training sources")
    eval: _sequence(SourceSpec) = Field((), description="held-out sources")


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
_Ramp = Literal["linear", "cosine", "1-sqrt"]
# What each scheduler of transformers 5.23 reads from lr_scheduler_kwargs (optimization.py), and the values that make a schedule.
SCHEDULER_KWARGS: dict[str, dict[str, Any]] = {
    "cosine": {"num_cycles": PositiveNumber},
    "polynomial": {"lr_end": Annotated[float, Field(ge=0)], "power": PositiveNumber},
    "inverse_sqrt": {"timescale": Positive},
    "cosine_with_min_lr": {
        "num_cycles": PositiveNumber, "min_lr": Annotated[float, Field(ge=0)], "min_lr_rate": Fraction,
    },
    "warmup_stable_decay": {
        "num_decay_steps": Positive, "warmup_type": _Ramp, "decay_type": _Ramp, "min_lr_ratio": Fraction,
        "num_cycles": PositiveNumber,
    },
}  # fmt: skip
# Of these it needs exactly one.
SCHEDULER_NEEDS = {"cosine_with_min_lr": ("min_lr", "min_lr_rate"), "warmup_stable_decay": ("num_decay_steps",)}
# The key that says where a schedule ends, and its default.
_SCHEDULER_ENDS = {"polynomial": ("lr_end", 1e-7), "cosine_with_min_lr": ("min_lr", 0.0)}
Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor", "sgd"
]  # fmt: skip


def _one_duration(train: "TrainSpec") -> None:
    if (train.num_train_epochs is None) == (train.max_steps is None):
        raise BrokenRule("give exactly one of 'num_train_epochs' and 'max_steps'", "num_train_epochs", "max_steps")


def _scheduler_reads_kwargs(train: "TrainSpec") -> None:
    types = SCHEDULER_KWARGS.get(train.lr_scheduler_type, {})
    known = sorted(types)
    for name, value in train.lr_scheduler_kwargs.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise BrokenRule(
                f"lr_scheduler_kwargs: '{name}' is not read by lr_scheduler_type {train.lr_scheduler_type}; "
                + (f"did you mean '{near[0]}'?" if near else f"it reads: {', '.join(known) or 'none'}"),
                f"lr_scheduler_kwargs.{name}",
            )
        if not _is_of_type(value, types[name]):
            raise BrokenRule(
                f"lr_scheduler_kwargs.{name}: found {value!r}; {expected(kinds(types[name]))} was expected",
                f"lr_scheduler_kwargs.{name}",
            )
    _check_needed_kwargs(train)


def _is_of_type(value: Scalar, wanted: Any) -> bool:
    try:
        TypeAdapter(wanted, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        return False
    return True


def _check_needed_kwargs(train: "TrainSpec") -> None:
    needed = SCHEDULER_NEEDS.get(train.lr_scheduler_type, ())
    given = [name for name in needed if name in train.lr_scheduler_kwargs]
    if needed and len(given) != 1:
        raise BrokenRule(
            f"lr_scheduler_type {train.lr_scheduler_type} needs {'one of ' if len(needed) > 1 else ''}{', '.join(needed)} in "
            f"lr_scheduler_kwargs; found {' and '.join(given) or 'none'}",
            "lr_scheduler_type",
            *(f"lr_scheduler_kwargs.{name}" for name in given),
        )


def _schedule_falls(train: "TrainSpec") -> None:
    if train.lr_scheduler_type not in _SCHEDULER_ENDS:
        return
    name, default = _SCHEDULER_ENDS[train.lr_scheduler_type]
    end = train.lr_scheduler_kwargs.get(name, default)
    if isinstance(end, int | float) and end >= train.learning_rate:
        raise BrokenRule(
            f"lr_scheduler_kwargs.{name}: {end:g} is not below learning_rate {train.learning_rate:g}, from which it falls; "
            "lower it",
            "lr_scheduler_type",
            f"lr_scheduler_kwargs.{name}",
        )


def _polynomial_has_steps(train: "TrainSpec") -> None:
    """It divides by the steps that follow the warm-up, at the very last one."""
    if train.lr_scheduler_type == "polynomial" and train.warmup_steps == train.max_steps:
        raise BrokenRule(
            f"warmup_steps: {train.warmup_steps} are all of max_steps; lr_scheduler_type polynomial needs steps after them",
            "warmup_steps",
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
    hang_timeout: Annotated[float, Field(ge=0)] = Field(
        1800.0, description="seconds without progress in training after which a rank counts as hung; 0: never"
    )
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        0, description="times that a run with a lost or hung rank is started again from its last checkpoint"
    )

    on_loss_spike: Literal["ignore", "alert", "stop"] = Field(
        "alert",
        description="what follows a logged loss far above the lines before it: nothing, a line in log and report, or the end of the run",
    )

    RULES = (
        _one_duration,
        _scheduler_reads_kwargs,
        _schedule_falls,
        _polynomial_has_steps,
        _constant_has_no_warmup,
        _best_is_evaluated,
        _best_is_saved,
    )


class PpoTrainSpec(TrainSpec):
    """The optimisation. Steps are optimizer steps; an update is `num_ppo_epochs` x `num_mini_batches` of them."""

    num_train_epochs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="passes over the prompts; or give `max_steps`"
    )
    max_steps: Positive | None = Field(
        None, description="optimizer steps, in whole updates; or give `num_train_epochs`"
    )
    global_batch_size: Positive = Field(
        32, description="completions in one optimizer step (a mini-batch) over all processes; accumulation is derived"
    )
    per_device_train_batch_size: Positive = Field(8, description="completions in one forward pass of one process")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak learning rate of the policy")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        1.0, description="gradient norms of policy and critic are clipped to this, each by itself (ZeRO: both together)"
    )
    logging_steps: Positive | None = Field(
        None, description="steps between two lines of metrics.jsonl; default: one update"
    )
    eval_steps: Positive | None = Field(
        None, description="steps between two evaluations, in whole updates; default: at the end only"
    )
    save_steps: Positive | None = Field(
        None, description="steps between two checkpoints, in whole updates; default: at the end only"
    )
    keep: Literal["last"] = Field("last", description="which weights become final/")
    on_loss_spike: Literal["ignore"] = Field(
        "ignore", description="losses of a policy and its critic rise and fall as both change; see `ppo.alerts`"
    )


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
    reference: NonEmpty = Field(
        description="start (the model it starts from), base (below its LoRA), or a folder or Hub id"
    )


class RewardSpec(Spec):
    """Bradley-Terry reward model."""

    center_rewards_coefficient: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="weight of the squared sum of rewards that centres them at 0, https://arxiv.org/abs/2312.09244",
    )


# The scorers of `alignment.measure.scorers.SCORERS`; a test holds the two alike.
ScorerName = Literal["exact_match", "contains_answer", "last_number", "honest", "stops"]
AlertName = Literal["kl", "length", "entropy", "reward_hacking"]
KL_HORIZON = 10_000  # completions, where kl_horizon is not given


class RewardTermSpec(Spec):
    """A programmatic reward with its weight."""

    reward: ScorerName = Field(description="a name from `alignment.measure.scorers.SCORERS`")
    weight: float = Field(1.0, description="what its score is multiplied by")


class AlertSpec(Spec):
    """When a run is said to go wrong."""

    kl_per_token: Annotated[float, Field(gt=0)] = Field(
        2.0, description="kl: nats per generated token above this, mean of an update"
    )
    length_factor: Annotated[float, Field(gt=1)] = Field(
        4.0, description="length: mean completion this many times longer or shorter than in the first update"
    )
    entropy_fraction: Fraction = Field(
        0.05, description="entropy: nats per generated token below this part of the first update's"
    )
    standard_errors: Annotated[float, Field(gt=0)] = Field(
        2.0, description="reward_hacking: held-out score up and gold score down by more than this many"
    )


def _something_rewards(ppo: "PpoSpec") -> None:
    if ppo.reward_model is None and not ppo.rewards:
        raise BrokenRule(
            "nothing rewards a completion: give 'reward_model' (a reward run or Hub id), 'rewards', or both",
            "reward_model",
            "rewards",
        )


def _keys_of_reward_model(ppo: "PpoSpec") -> None:
    if ppo.reward_model is not None:
        return
    for name in ("reward_weight", "reward_template"):
        if getattr(ppo, name) != type(ppo).model_fields[name].default:
            raise BrokenRule(f"'{name}' is the reward model's, and there is no 'reward_model'", name)
    if ppo.value_model == "reward":
        raise BrokenRule("value_model: reward is the model of 'reward_model', and there is none", "value_model")


def _target_of_horizon(ppo: "PpoSpec") -> None:
    if ppo.kl_target is None and ppo.kl_horizon is not None:
        raise BrokenRule(
            "kl_horizon belongs to the adaptive controller; give 'kl_target' or leave it out", "kl_horizon"
        )
    if ppo.kl_target is not None and ppo.kl_coef == 0:
        raise BrokenRule("kl_coef: 0 stays 0 whatever kl_target says: the controller multiplies it", "kl_coef")


def _cap_of_engine(ppo: "PpoSpec") -> None:
    if ppo.sampler == "transformers" and ppo.importance_cap is not None:
        raise BrokenRule(
            "importance_cap corrects for an engine that samples with other kernels; sampler: transformers is the policy itself",
            "importance_cap",
        )


def _keys_of_engine(ppo: "PpoSpec") -> None:
    for name, sampler in (("sampler_url", "vllm_server"), ("sampler_memory", "vllm_colocate")):
        if getattr(ppo, name) is not None and ppo.sampler != sampler:
            raise BrokenRule(f"{name} is read by sampler: {sampler}, and this is {ppo.sampler}", name)


def _critic_of_shared_base(ppo: "PpoSpec") -> None:
    if ppo.share_base and ppo.value_model not in (None, "start", "reward"):
        raise BrokenRule(
            "share_base puts the critic on the policy's base; value_model may be start or reward",
            "value_model",
            "share_base",
        )


def _gold_is_watched(ppo: "PpoSpec") -> None:
    if "reward_hacking" in ppo.stop_on and ppo.gold is None:
        raise BrokenRule("stop_on: reward_hacking compares the score with a gold score; give 'gold'", "stop_on")


class PpoSpec(Spec):
    """Proximal policy optimisation with a learned critic, https://arxiv.org/abs/1707.06347 and 2203.02155."""

    reward_model: NonEmpty | None = Field(
        None, description="a reward run, folder or Hub id; it reads messages, not our ids"
    )
    reward_template: str = Field(
        "from_tokenizer", description="chat template of the reward model: a name, a .jinja file, or from_tokenizer"
    )
    reward_weight: float = Field(1.0, description="what its score is multiplied by")
    rewards: _sequence(ScorerName | RewardTermSpec) = Field((), description="programmatic rewards, added to the score")
    gold: ScorerName | None = Field(
        None, description="a programmatic score that is measured on held-out rows and never trained on"
    )
    value_model: NonEmpty | None = Field(
        None,
        description="what the critic starts from: reward, start (the start model with a zero head), a folder or Hub id; "
        "default: the reward model where there is one, else start",
    )
    share_base: bool = Field(
        False,
        description="LoRA: policy, reference, critic, and a reward model that is LoRA on the same weights, share them in memory",
    )
    sampler: Literal["transformers", "vllm_colocate", "vllm_server"] = Field(
        "transformers", description="what generates completions; vLLM needs the [vllm] extra and a GPU"
    )
    importance_cap: Annotated[float, Field(ge=1)] | None = Field(
        None, description="greatest weight of a token that an engine other than the policy sampled; default: 2"
    )
    sampler_url: str | None = Field(
        None, description="address of the server of vllm_server; default: http://localhost:8000"
    )
    sampler_memory: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="part of each GPU's memory that vllm_colocate takes; default: 0.3"
    )
    max_new_tokens: Positive = Field(128, description="longest completion in tokens")
    temperature: Annotated[float, Field(gt=0)] = Field(
        1.0, description="of sampling, and of every log-probability of policy and reference"
    )
    per_device_rollout_batch_size: Positive = Field(
        32, description="completions in one generation or scoring pass of one process"
    )
    num_ppo_epochs: Positive = Field(4, description="passes over the completions of an update")
    num_mini_batches: Positive = Field(
        1, description="optimizer steps in such a pass; an update has this many times global_batch_size completions"
    )
    kl_coef: Annotated[float, Field(ge=0)] = Field(0.05, description="weight of the KL penalty (k1) in the reward")
    kl_target: Annotated[float, Field(gt=0)] | None = Field(
        None, description="nats per completion that adaptive control steers to; default: kl_coef stays fixed"
    )
    kl_horizon: Positive | None = Field(
        None, description="completions in which the controller corrects an error; default: 10000"
    )
    gamma: Fraction = Field(1.0, description="discount")
    lam: Fraction = Field(0.95, description="lambda of the advantages, https://arxiv.org/abs/1506.02438")
    lam_critic: Fraction | None = Field(None, description="lambda of the critic's targets; default: lam")
    cliprange: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="the ratio is clipped to 1 - this ...")
    cliprange_high: Annotated[float, Field(gt=0)] | None = Field(
        None, description="... and 1 + this; default: cliprange"
    )
    cliprange_value: Annotated[float, Field(ge=0)] = Field(
        0.2, description="values may move this far from the old ones in an update; 0: as far as they want"
    )
    vf_coef: Annotated[float, Field(gt=0)] = Field(0.1, description="weight of the critic's loss")
    critic_learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="peak learning rate of the critic; default: train.learning_rate"
    )
    critic_warmup_updates: Annotated[int, Field(ge=0)] = Field(
        0, description="first updates in which only the critic is trained"
    )
    whiten_advantages: bool = Field(True, description="mean 0 and variance 1 over all tokens of an update")
    whiten_rewards: bool = Field(False, description="variance 1 of the rewards over all tokens of an update")
    missing_eos_penalty: Annotated[float, Field(ge=0)] = Field(
        1.0, description="taken off the score of a completion that does not end"
    )
    scale_scores: bool = Field(False, description="divide scores by their running standard deviation")
    clip_scores: Annotated[float, Field(gt=0)] | None = Field(
        None, description="scores are clipped to plus and minus this, after scaling"
    )
    alerts: AlertSpec = AlertSpec()
    stop_on: _sequence(AlertName) = Field((), description="alerts that end the run; the others are only said")

    RULES = (
        _something_rewards,
        _keys_of_reward_model,
        _target_of_horizon,
        _cap_of_engine,
        _keys_of_engine,
        _gold_is_watched,
        _critic_of_shared_base,
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
    against: NonEmpty | None = Field(None, description="a folder or Hub id to compare with")


# ------------------------------------------------------------------------------------------------ curation

SurvivorRule = Literal["source", "longest", "shortest", "first"]


class StepBase(Spec):
    """What every step has."""

    min_removed: Fraction = Field(0.0, description="part of its rows that the step must remove; less stops the run")
    max_removed: Fraction = Field(
        1.0, description="part of its rows that the step may remove; all, or more, stops the run"
    )


class NormalizeSpec(StepBase):
    """Mend text."""

    unicode: Literal["NFC", "NFKC", "none"] = Field("NFC", description="Unicode normal form")
    ftfy: bool = Field(False, description="mend wrongly decoded text (mojibake) with ftfy")


class ExactDedupSpec(StepBase):
    """Keep one of the rows that say the same."""

    on: Literal["whole", "prompt"] = Field("whole", description="compare whole rows, or what stands before the answer")
    normalized: bool = Field(True, description="ignore case, white space, punctuation and digits")
    keep: Annotated[_sequence(SurvivorRule), Field(min_length=1)] = Field(
        ("source", "first"), description="which row of a group is kept, by these rules in turn"
    )


class LanguageStepSpec(StepBase):
    """Find each row's language (fastText lid.176), and keep some of them."""

    languages: Strings = Field((), description="codes to keep, e.g. en, de, zh; default: all, only found")
    min_score: Fraction = Field(0.65, description="a language that is less certain is uncertain")
    uncertain: Literal["remove", "keep"] = Field(
        "remove", description="rows of an uncertain language; short texts are to be kept"
    )
    chars: Positive = Field(2000, description="characters that are looked at")


class GopherRepetitionSpec(StepBase):
    """Remove text that repeats itself, https://arxiv.org/abs/2112.11446 table A1."""


class GopherQualitySpec(StepBase):
    """Remove text that does not look written, https://arxiv.org/abs/2112.11446."""

    min_words: Annotated[int, Field(ge=1)] = Field(50, description="fewest words")
    max_words: Positive = Field(100_000, description="most words")
    min_stop_words: Annotated[int, Field(ge=0)] = Field(2, description="of the most frequent words of the language")
    min_alpha_words: Fraction | None = Field(
        None,
        description="least share of words with a letter, marks counted as words; default: 0.8 in English, else 0.7",
    )


class C4Spec(StepBase):
    """Remove lines that are no sentences and pages with few of them, https://arxiv.org/abs/1910.10683."""

    terminal_punctuation: bool = Field(True, description="remove lines that do not end like a sentence; English only")
    min_sentences: Annotated[int, Field(ge=0)] = Field(5, description="fewest sentences")
    curly_bracket: bool = Field(True, description="remove rows with a curly bracket")


class FinewebSpec(StepBase):
    """Remove lists and other text of short lines, https://arxiv.org/abs/2406.17557."""


class NearDedupSpec(StepBase):
    """Keep one of the rows that are almost the same (MinHash)."""

    on: Literal["whole", "prompt"] = Field("whole", description="compare whole rows, or what stands before the answer")
    ngram: Positive = Field(5, description="words of a shingle")
    bands: Positive = Field(14, description="bands of the sketch; one equal band makes two rows candidates")
    band_rows: Positive = Field(8, description="hashes of a band")
    verify: Fraction = Field(0.7, description="candidates of a smaller estimated Jaccard similarity are kept apart")
    keep: Annotated[_sequence(SurvivorRule), Field(min_length=1)] = Field(
        ("source", "longest", "first"), description="which row of a group is kept, by these rules in turn"
    )


PiiType = Literal["email", "phone", "ip", "card", "iban", "ssn", "secret"]


class PiiSpec(StepBase):
    """Take personal data and secrets out of the text."""

    types: Annotated[_sequence(PiiType), Field(min_length=1)] = Field(
        ("email", "phone", "ip", "card", "iban", "ssn", "secret"), description="what is looked for"
    )
    action: Literal["tag", "surrogate", "drop"] = Field(
        "tag", description="write <EMAIL>, write <EMAIL-1a2b3c4d> (the same for the same value), or remove the row"
    )
    classifier: bool = Field(
        True, description="let a bundled linear model add phones, cards and SSNs, and take back phones and SSNs"
    )


class EvalSetSpec(Spec):
    """Held-out items that must not be trained on."""

    path: NonEmpty = Field(description="a file, or a folder of files, relative to the recipe; ${VAR} is replaced")
    fields: Strings = Field((), description="columns of an item; default: all that hold text")


class DecontaminateSpec(StepBase):
    """Remove rows that hold an item of an evaluation."""

    evals: Annotated[_sequence(EvalSetSpec), Field(min_length=1)] = Field(description="evaluation sets")
    ngram: Positive = Field(13, description="words in a row that an item and a row must share")
    min_distinct_words: Positive = Field(5, description="different words that such a stretch must have")


def _balanced_by_one(balance: "BalanceSpec") -> None:
    if bool(balance.targets) == (balance.temperature is not None):
        raise BrokenRule("give one of 'targets' and 'temperature'", "targets", "temperature")


def _targets_add_up(balance: "BalanceSpec") -> None:
    if balance.targets and abs(sum(balance.targets.values()) - 1) > 1e-9:
        raise BrokenRule(f"the targets add up to {sum(balance.targets.values()):g}; 1 was expected", "targets")


class BalanceSpec(StepBase):
    """Keep part of each language or source, so that the rest has the shares that are asked for."""

    by: Literal["language", "source"] = Field(description="what is balanced")
    targets: _mapping(float) = Field({}, description="part of each; rows of what is not named are removed")
    temperature: Annotated[float, Field(ge=1)] | None = Field(
        None, description="parts in proportion to size**(1/temperature)"
    )
    max_rows: Positive | None = Field(None, description="rows in all; default: as many as the scarcest allows")

    RULES = (_balanced_by_one, _targets_add_up)


def _one_step(step: "StepSpec") -> None:
    values = {
        "normalize": step.normalize, "exact_dedup": step.exact_dedup, "language": step.language,
        "gopher_repetition": step.gopher_repetition, "gopher_quality": step.gopher_quality, "c4": step.c4,
        "fineweb": step.fineweb, "near_dedup": step.near_dedup, "pii": step.pii, "decontaminate": step.decontaminate,
        "balance": step.balance,
    }  # fmt: skip
    given = [name for name, value in values.items() if value is not None]
    if len(given) != 1:
        found = f"found {' and '.join(given)}" if given else "found none"
        raise BrokenRule(f"each item of 'steps' is one step, '- NAME: {{...}}'; {found}", *given)


class StepSpec(Spec):
    """One step; its key says which."""

    normalize: NormalizeSpec | None = None
    exact_dedup: ExactDedupSpec | None = None
    language: LanguageStepSpec | None = None
    gopher_repetition: GopherRepetitionSpec | None = None
    gopher_quality: GopherQualitySpec | None = None
    c4: C4Spec | None = None
    fineweb: FinewebSpec | None = None
    near_dedup: NearDedupSpec | None = None
    pii: PiiSpec | None = None
    decontaminate: DecontaminateSpec | None = None
    balance: BalanceSpec | None = None

    RULES = (_one_step,)


def _executor_keys_fit(executor: "ExecutorSpec") -> None:
    read = {
        "local": (),
        "slurm": ("partition", "account", "qos", "time", "mem_per_cpu_gb"),
        "ray": ("address", "mem_per_cpu_gb"),
    }
    given = {
        "partition": executor.partition, "account": executor.account, "qos": executor.qos, "time": executor.time,
        "mem_per_cpu_gb": executor.mem_per_cpu_gb, "address": executor.address,
    }  # fmt: skip
    for name, value in given.items():
        if value is not None and name not in read[executor.kind]:
            raise BrokenRule(f"'{name}' is not read by kind: {executor.kind}", name, "kind")


class ExecutorSpec(Spec):
    """Where the work is done. The result does not depend on it."""

    kind: Literal["local", "slurm", "ray"] = Field(
        "local", description="processes of this machine, a SLURM array job for each segment, or a Ray cluster"
    )
    workers: Literal["auto"] | Positive = Field(
        "auto", description="tasks at once; auto: by cores and input size, on slurm and ray all"
    )
    tasks: Literal["auto"] | Positive = Field("auto", description="parts of the work; auto: one for each input file")
    mem_per_cpu_gb: Positive | None = Field(None, description="slurm, ray: memory of a task in GB; default 2, on ray 1")
    partition: str | None = Field(None, description="slurm: partition")
    account: str | None = Field(None, description="slurm: account")
    qos: str | None = Field(None, description="slurm: quality of service")
    time: str | None = Field(None, description="slurm: time limit of a task, D-HH:MM:SS")
    address: str | None = Field(None, description="ray: a running cluster; default: one started on this machine")

    RULES = (_executor_keys_fit,)


class CurateSpec(Spec):
    """What is done to the rows, in order."""

    executor: ExecutorSpec = ExecutorSpec()
    steps: Annotated[_sequence(StepSpec), Field(min_length=1)] = Field(description="the steps, each '- NAME: {...}'")
    samples: Annotated[int, Field(ge=0)] = Field(5, description="rows shown in the report for each reason")
    truth: str | None = Field(
        None,
        description="column that says what is wrong with a row, empty for nothing; no step reads it, the result is scored by it",
    )


class CurateSourceSpec(Spec):
    """One source of rows."""

    path: NonEmpty = Field(description="a file or folder relative to the recipe; ${VAR} is replaced")
    data_files: Strings = Field((), description="file patterns inside the folder")
    format: Format = Field(description="how the rows are laid out")
    columns: StringMap = Field({}, description="our column name: the source's column name")


class CurateDataSpec(Spec):
    """Which rows to curate."""

    on_bad_row: Literal["error", "drop"] = Field("error", description="what to do with a row that cannot be rendered")
    train: Annotated[_sequence(CurateSourceSpec), Field(min_length=1)] = Field(description="training sources")


# ------------------------------------------------------------------------------------------------ recipes


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
_TRAINING_RULES = (*Recipe.RULES, _evaluations_have_rows, _metrics_have_rows)


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
    lora: LoraSpec | None = None
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
    if recipe.lora is None:
        return
    if recipe.lora.start == "continue":
        raise BrokenRule(
            "lora.start: continue: the reference is the model with its adapter off, which would be the base and not the model "
            "that training starts from; write start: merge",
            "lora.start",
        )
    if recipe.lora.lora_dropout:
        raise BrokenRule(
            "lora_dropout: PPO compares probabilities before and after a step, so no dropout may be in them; leave it out",
            "lora.lora_dropout",
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
