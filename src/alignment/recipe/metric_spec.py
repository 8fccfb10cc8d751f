"""The metrics that a recipe may name, what each of them measures, and which stages and rows have that."""

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from alignment.recipe.spec import BrokenRule, Scalar, Spec, mapping_of, sequence_of

if TYPE_CHECKING:
    from alignment.recipe.schema import Recipe

Need = Literal["generation", "score", "kl", "nll", "pairs", "lengths"]
# Every metric of `alignment.measure.metrics.METRICS`, with the measurement that it is made from.
NEEDS: dict[str, Need] = {
    "exact_match": "generation",
    "recall": "generation",
    "abstains": "generation",
    "invented": "generation",
    "stops": "generation",
    "honesty": "generation",
    "score": "score",
    "gold": "generation",
    "kl": "kl",
    "bits_per_byte": "nll",
    "pair_accuracy": "pairs",
    "pair_loss": "pairs",
    "length_only_pair_accuracy": "lengths",
}
MetricName = Literal[tuple(NEEDS)]
_STAGE_NEEDS: dict[str, tuple[Need, ...]] = {
    "pretrain": ("generation", "nll"),
    "sft": ("generation", "nll"),
    "reward": ("pairs", "lengths"),
    "dpo": ("generation", "kl", "pairs", "lengths"),
    "ppo": ("generation", "score", "kl"),
    "evaluate": ("generation", "kl", "nll", "pairs", "lengths"),
}


class MetricSpec(Spec):
    """One measured number."""

    metric: MetricName = Field(description="what is measured; `alignment.measure.metrics` says how")
    name: str | None = Field(None, description="name in the results; default: the metric's")
    where: mapping_of(Scalar) = Field({}, description="only rows whose columns have these values")
    by: str | None = Field(None, description="also once for each value of this column, as NAME/VALUE")


Metrics = sequence_of(MetricName | MetricSpec)


def results_have_own_names(section: Any) -> None:
    """Raises BrokenRule where two results would have one name."""
    names = [one if isinstance(one, str) else one.name or one.metric for one in section.metrics]
    for name, count in Counter(names).items():
        if count > 1:
            last = len(names) - 1 - names[::-1].index(name)
            raise BrokenRule(
                f"metrics: {count} results are called '{name}'; one is expected. Give each a 'name'", f"metrics.{last}"
            )


def metrics_can_be_measured(recipe: "Recipe") -> None:
    """Raises BrokenRule for a metric that the stage's model, or every held-out row, lacks the means for."""
    section = "evaluate" if recipe.stage == "evaluate" else "eval"
    able = _STAGE_NEEDS[recipe.stage]
    for index, one in enumerate(getattr(recipe, section).metrics):
        metric = one if isinstance(one, str) else one.metric
        place, need = f"{section}.metrics.{index}", NEEDS[metric]
        if need not in able:
            has = ", ".join(name for name, needed in NEEDS.items() if needed in able)
            raise BrokenRule(f"{place}: stage {recipe.stage} cannot measure {metric}; it has: {has}", place)
        formats = sorted({source.format for source in recipe.data.eval})
        if formats and not any(_has(format_, need) for format_ in formats):
            raise BrokenRule(
                f"{place}: {metric} cannot be measured on held-out rows of the format {' or '.join(formats)}; name a source in "
                "data.eval that has what it needs, or remove it",
                place,
            )


def _has(format_: str, need: Need) -> bool:
    """A document asks nothing, a pair is no text to be likely, and only a pair has two answers."""
    if need in ("pairs", "lengths"):
        return format_ == "preference"
    return format_ != ("preference" if need == "nll" else "text")
