"""The metrics that a recipe may name, what each of them measures, and which stages and rows have that."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from alignment.recipe.spec import BrokenRule, Scalar, Spec, mapping_of, sequence_of

if TYPE_CHECKING:
    from alignment.recipe.schema import EvaluateRecipe, Recipe

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
STAGE_NEEDS: dict[str, tuple[Need, ...]] = {
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


def expand_metrics(specs: Sequence[str | MetricSpec]) -> tuple[MetricSpec, ...]:
    """Every metric as a MetricSpec with its name in the results settled."""
    expanded = [MetricSpec(metric=spec) if isinstance(spec, str) else spec for spec in specs]
    return tuple(spec.model_copy(update={"name": spec.name or spec.metric}) for spec in expanded)


def results_have_own_names(section: Any) -> None:
    """Raises BrokenRule where two results would have one name."""
    names = [spec.name for spec in expand_metrics(section.metrics)]
    for name, count in Counter(names).items():
        if count > 1:
            last = len(names) - 1 - names[::-1].index(name)
            raise BrokenRule(
                f"metrics: {count} results are called '{name}'; one is expected. Give each a 'name'", f"metrics.{last}"
            )


def metrics_can_be_measured(recipe: "Recipe") -> None:
    """Raises BrokenRule for metrics that the stage's model, or rows that they would be measured on, lack the means for."""
    section = "evaluate" if recipe.stage == "evaluate" else "eval"
    able = STAGE_NEEDS[recipe.stage]
    specs = expand_metrics(getattr(recipe, section).metrics)
    places = {f"{section}.metrics.{index}": spec for index, spec in enumerate(specs)}
    if unable := {place: spec.metric for place, spec in places.items() if NEEDS[spec.metric] not in able}:
        has = ", ".join(name for name, need in NEEDS.items() if need in able)
        named = ", ".join(f"{place} ({metric})" for place, metric in unable.items())
        raise BrokenRule(f"stage {recipe.stage} cannot measure {named}; it has: {has}", *unable)
    formats = sorted({source.format for source in recipe.data.eval})
    for place, spec in places.items():
        unfit = [format_ for format_ in formats if not _has(format_, NEEDS[spec.metric])]
        # Of several formats `where` may choose the rows that are fit.
        if unfit and (unfit == formats or not spec.where):
            advice = (
                "name a source in data.eval that is fit" if unfit == formats else "choose the other rows with 'where'"
            )
            raise BrokenRule(
                f"{place}: {spec.metric} cannot be measured on held-out rows of the format {' or '.join(unfit)}; {advice}, or remove it",
                place,
            )


def kl_has_other_model(recipe: "EvaluateRecipe") -> None:
    """Raises BrokenRule for an evaluation with `kl` and nothing to compare with."""
    for index, spec in enumerate(expand_metrics(recipe.evaluate.metrics)):
        if spec.metric == "kl" and recipe.evaluate.against is None:
            raise BrokenRule(
                "evaluate.metrics: kl compares with another model; give 'evaluate.against', or remove it",
                f"evaluate.metrics.{index}",
            )


def _has(format_: str, need: Need) -> bool:
    """A document asks nothing, a pair is no text to be likely, and only a pair has two answers."""
    if need in ("pairs", "lengths"):
        return format_ == "preference"
    return format_ != ("preference" if need == "nll" else "text")
