"""How text is curated: `curate` of a recipe, one section a step, and the rows that it reads."""

from typing import Annotated, Literal

from pydantic import Field

from alignment.recipe.data_spec import Format
from alignment.recipe.spec import (
    BrokenRule,
    Fraction,
    NonEmpty,
    Positive,
    Spec,
    StringMap,
    Strings,
    mapping_of,
    sequence_of,
)

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
    keep: Annotated[sequence_of(SurvivorRule), Field(min_length=1)] = Field(
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
    keep: Annotated[sequence_of(SurvivorRule), Field(min_length=1)] = Field(
        ("source", "longest", "first"), description="which row of a group is kept, by these rules in turn"
    )


PiiType = Literal["email", "phone", "ip", "card", "iban", "ssn", "secret"]


class PiiSpec(StepBase):
    """Take personal data and secrets out of the text."""

    types: Annotated[sequence_of(PiiType), Field(min_length=1)] = Field(
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

    evals: Annotated[sequence_of(EvalSetSpec), Field(min_length=1)] = Field(description="evaluation sets")
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
    targets: mapping_of(float) = Field({}, description="part of each; rows of what is not named are removed")
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
    steps: Annotated[sequence_of(StepSpec), Field(min_length=1)] = Field(description="the steps, each '- NAME: {...}'")
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
    train: Annotated[sequence_of(CurateSourceSpec), Field(min_length=1)] = Field(description="training sources")
