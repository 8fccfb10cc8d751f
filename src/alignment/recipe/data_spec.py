"""Which rows and in which mixture: `data` of a recipe."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from alignment.recipe.places import SPLIT, data_suffix, means_local_data
from alignment.recipe.spec import (
    BrokenRule,
    NonEmpty,
    Positive,
    Scalar,
    Spec,
    StringMap,
    Strings,
    mapping_of,
    sequence_of,
)

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
    where: mapping_of(Scalar) = Field({}, description="only rows whose columns have these values")
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

    train: Annotated[sequence_of(TrainSourceSpec), Field(min_length=1)] = Field(description="training sources")
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
    eval: sequence_of(SourceSpec) = Field((), description="held-out sources")


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
    train: Annotated[sequence_of(SourceSpec), Field(min_length=1)] = Field(description="training sources")
    eval: sequence_of(SourceSpec) = Field((), description="held-out sources")


class TextDataSpec(Spec):
    """Which text the tokenizer is trained on."""

    train: Annotated[sequence_of(SourceSpec), Field(min_length=1)] = Field(description="training sources")


class EvalDataSpec(Spec):
    """Which rows to evaluate on."""

    max_length: Positive = Field(1024, description="longest row in tokens")
    on_too_long: Literal["truncate", "drop", "error"] = Field("drop", description="what to do with longer rows")
    on_bad_row: Literal["error", "drop"] = Field("error", description="what to do with a row that cannot be rendered")
    eval: Annotated[sequence_of(SourceSpec), Field(min_length=1)] = Field(description="held-out sources")
