"""The evaluate stage: a model's metrics on held-out rows, beside those of another model where the recipe names one."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.data.prepare import Prepared, load_prepared
from alignment.measure.suite import Measured, measure
from alignment.models.load import Kind, Start, read_saved_dtype, resolve_start
from alignment.models.tokenizer import load_tokenizer
from alignment.recipe.metric_spec import NEEDS, expand_metrics
from alignment.recipe.resolved import recipe_hash
from alignment.recipe.schema import EvaluateRecipe
from alignment.report.card import write_card
from alignment.report.parents import describe_parents
from alignment.report.receipt import make_receipt, write_receipt
from alignment.report.run_files import SAMPLES
from alignment.report.run_report import write_report
from alignment.train.context import StageContext
from alignment.train.memory import EVALUATE, fit_recipe, shrinking
from alignment.train.policy import load_whole
from alignment.train.precision import check_attention, resolve_bf16

RESULTS = "results.json"
SIGNIFICANT = 2.0  # standard errors


def run(recipe: EvaluateRecipe, context: StageContext) -> None:
    """Measures, prints the table and writes results.json, samples, receipt and page. Every rank calls it."""
    begun = time.perf_counter()
    state = PartialState(cpu=context.cpu)  # the ranks share out the rows; each holds the whole model
    prepared = load_prepared(context.prepared_folder)
    tokenizer = load_tokenizer(prepared.folder / "tokenizer")
    bf16 = resolve_bf16("auto") and not context.cpu
    check_attention(recipe.model.attn_implementation, bf16)
    model = load_measured(recipe, resolve_start(recipe.model.path, recipe.model.revision), state.device)
    named = recipe.evaluate.against
    against = load_measured(recipe, resolve_start(named), state.device) if named else None
    fitted = fit_recipe(recipe, context)
    with shrinking(EVALUATE, fitted.evaluate.per_device_eval_batch_size, context):
        evaluation = evaluate(fitted, prepared, model, tokenizer, against, bf16=bf16)
    if context.rank == 0:
        Console().print(make_table(evaluation))
        _write(recipe, context, prepared, evaluation, time.perf_counter() - begun)


def load_measured(
    recipe: EvaluateRecipe, start: Start, device: torch.device, kind: Kind | None = None
) -> PreTrainedModel:
    """A finished model, with the options of the recipe: in fp32 on a CPU, else as it was saved. `kind`: as its config says."""
    options = {
        "attn_implementation": recipe.model.attn_implementation,
        "trust_remote_code": recipe.model.trust_remote_code,
    }
    dtype = torch.float32 if device.type == "cpu" else read_saved_dtype(start, "auto")
    return load_whole(start, kind or find_kind(start), dtype, **options).to(device).eval()


def find_kind(start: Start) -> Kind:
    """Whether a path names a reward model, as its config or adapter says."""
    for folder, name in ((start.adapter, "adapter_config.json"), (Path(start.model), "config.json")):
        if folder is not None and (folder / name).is_file():
            config = json.loads((folder / name).read_text(encoding="utf-8"))
            named = [*config.get("architectures", ()), config.get("task_type") or ""]
            return "reward" if any("SequenceClassification" in one or one == "SEQ_CLS" for one in named) else "causal"
    return "causal"


def _write(
    recipe: EvaluateRecipe, context: StageContext, prepared: Prepared, evaluation: "Evaluation", seconds: float
) -> None:
    flat = {name: round(value, 6) for name, value in evaluation.flat().items()}
    (context.run_dir / RESULTS).write_text(json.dumps(flat, indent=1), encoding="utf-8")
    samples = {"after": evaluation.measured.samples}
    if evaluation.against is not None:
        samples["before"] = evaluation.against.samples
    (context.run_dir / SAMPLES).write_text(json.dumps(samples, ensure_ascii=False, indent=1), encoding="utf-8")
    receipt = make_receipt(
        stage=recipe.stage,
        recipe_hash=recipe_hash(recipe),
        recipe_dir=context.recipe_path.parent,
        seed=recipe.seed,
        command=context.command,
        prepared_manifest_hash=prepared.key[:16],
        template_hash=prepared.manifest["template_hash"],
        metrics=evaluation.measured.values,
        metric_errors=evaluation.measured.errors,
        metrics_before=evaluation.against.values if evaluation.against else None,
        metric_errors_before=evaluation.against.errors if evaluation.against else None,
        seconds={
            "prepare": round(context.prepare_seconds, 2),
            "evaluate": round(seconds, 2),
            "total": round(context.prepare_seconds + seconds, 2),
        },
        parents=describe_parents(recipe),
        world_size=context.world_size,
        strategy=context.strategy,
    )
    write_receipt(context.run_dir, receipt)
    write_card(context.run_dir)
    write_report(context.run_dir)


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
    shared = [one for one in expand_metrics(spec.metrics) if NEEDS[one.metric] != "kl"]
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
