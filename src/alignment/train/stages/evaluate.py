"""The evaluate stage: a model's metrics on held-out rows, beside those of another model where the recipe names one."""

import math
from dataclasses import dataclass

from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.data.prepare import Prepared
from alignment.measure.metrics import METRICS, expand_metrics
from alignment.measure.suite import Measured, measure
from alignment.recipe.schema import EvaluateRecipe

SIGNIFICANT = 2.0  # standard errors


@dataclass(frozen=True)
class Comparison:
    """A metric of the evaluated model less that of the other one."""

    name: str
    difference: float
    error: float  # of the difference, as if the two were measured on different rows: never too small

    @property
    def differs(self) -> bool:
        return abs(self.difference) >= SIGNIFICANT * self.error and self.difference != 0


@dataclass(frozen=True)
class Evaluation:
    """What the evaluate stage found. `against` and `comparisons` are empty when the recipe compares with nothing."""

    measured: Measured
    against: Measured | None = None
    comparisons: tuple[Comparison, ...] = ()

    def flat(self) -> dict[str, float]:
        """For results.json: NAME, error/NAME, and where compared against/NAME and difference/NAME."""
        flat = dict(self.measured.values)
        flat |= {f"error/{name}": error for name, error in self.measured.errors.items()}
        flat |= {f"against/{name}": value for name, value in (self.against.values if self.against else {}).items()}
        return flat | {f"difference/{one.name}": one.difference for one in self.comparisons}


def compare(measured: Measured, against: Measured) -> tuple[Comparison, ...]:
    """One comparison for each metric that both have."""
    return tuple(
        Comparison(name, value - against.values[name], math.hypot(measured.errors[name], against.errors[name]))
        for name, value in measured.values.items()
        if name in against.values
    )


def evaluate(
    recipe: EvaluateRecipe,
    prepared: Prepared,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    against: PreTrainedModel | None = None,
    *,
    bf16: bool = False,
) -> Evaluation:
    """Measures `model`, and `against` on the same rows with the same prompts. Every rank must call it.

    Raises:
        RecipeError, DataError: as `measure`.
    """
    spec = recipe.evaluate
    settings = {
        "pad_id": prepared.manifest["pad_id"],
        "stop_ids": prepared.manifest["stop_ids"],
        "batch_size": spec.per_device_eval_batch_size,
        "max_new_tokens": spec.max_new_tokens,
        "num_samples": spec.num_samples,
        "kind": "causal" if model.can_generate() else "reward",
        "bf16": bf16,
    }
    measured = measure(model, tokenizer, prepared.eval, spec.metrics, against_model=against, **settings)
    if against is None:
        return Evaluation(measured)
    shared = [one for one in expand_metrics(spec.metrics) if METRICS[one.metric].needs != "kl"]
    other = measure(against, tokenizer, prepared.eval, shared, **settings)
    return Evaluation(measured, other, compare(measured, other))


def make_table(evaluation: Evaluation) -> Table:
    """The results as a table for the terminal."""
    table = Table("metric", box=None, pad_edge=False)
    headings = ["value", "± se", "rows"] + (["against", "difference"] if evaluation.against else [])
    for heading in headings:
        table.add_column(heading, justify="right")
    differences = {one.name: one for one in evaluation.comparisons}
    for name, value in evaluation.measured.values.items():
        cells = [f"{value:.4f}", f"{evaluation.measured.errors[name]:.4f}", str(evaluation.measured.counts[name])]
        if name in differences:
            cells += [f"{evaluation.against.values[name]:.4f}", _say(differences[name])]
        table.add_row(name, *cells)
    return table


def _say(comparison: Comparison) -> str:
    return f"{comparison.difference:+.4f} ± {comparison.error:.4f}" if comparison.differs else "no difference"
