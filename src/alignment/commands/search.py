"""`alignment search`: test-time scaling; what choosing among several completions of each prompt gains, and in how many tokens."""

import argparse
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedModel

    from alignment.recipe.schema import EvaluateRecipe
    from alignment.train.ppo.rewards import RewardModel
    from alignment.train.search import Search, SearchSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="a recipe of stage evaluate: the model and the rows"
    )
    parser.add_argument(
        "--num_samples", metavar="N", type=int, default=16, help="completions drawn of a prompt (default: 16)"
    )
    parser.add_argument("--temperature", metavar="T", type=float, default=0.7, help="they are drawn at (default: 0.7)")
    parser.add_argument(
        "--value", metavar="SCORER", default="exact_match", help="what judges a completion (default: exact_match)"
    )
    parser.add_argument("--reward_model", metavar="RUN|HUB_ID", help="what best_of_n and weighted choose by")
    parser.add_argument(
        "--method", dest="methods", action="append", default=[], metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="set a key of the recipe"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the result (default: runs/STUDY/RECIPE-search)"
    )
    parser.add_argument("--fresh", action="store_true", help="replace a result that is there")


def run(args: argparse.Namespace) -> int:
    """Searches, prints the table and writes completions.jsonl, results.json, receipt.json and report.html.

    Raises:
        RecipeError: an option that cannot be, a recipe of another stage, or a result that is there already.
        DataError: rows without a prompt, or without a column that the scorer reads.
    """
    from alignment.measure.scorers import SCORERS
    from alignment.recipe.loader import load_recipe
    from alignment.recipe.resolved import run_folder

    if args.num_samples < 1:
        raise RecipeError(f"--num_samples: {args.num_samples}; at least 1 was expected.")
    if args.temperature <= 0:
        raise RecipeError(
            f"--temperature: {args.temperature}; above 0 was expected: greedy completions are all the same."
        )
    if args.value not in SCORERS:
        raise RecipeError(f"--value: no scorer '{args.value}'. Known: {', '.join(SCORERS)}.")
    recipe = load_recipe(args.recipe, args.overrides)
    if recipe.stage != "evaluate":
        raise RecipeError(
            f"{args.recipe}: stage {recipe.stage}; evaluate was expected: it names a finished model and held-out rows."
        )
    usual = run_folder(args.recipe)
    folder = args.out or usual.with_name(f"{usual.name}-search")
    if folder.exists() and any(folder.iterdir()):
        if not args.fresh:
            raise RecipeError(f"{folder}: there already. Name another folder with --out, or replace it with --fresh.")
        if not (folder / "completions.jsonl").is_file():
            raise RecipeError(
                f"{folder}: not the result of a search, and is not replaced. Name another folder with --out."
            )

    from alignment.train.search import SearchSpec, check_methods

    spec = SearchSpec(args.num_samples, args.temperature, args.value, tuple(dict.fromkeys(args.methods)))
    check_methods(spec.methods, args.reward_model is not None)
    begun = time.perf_counter()
    found, facts = _search(recipe, args.recipe, spec, args.reward_model, usual)
    _write(recipe, args, spec, found, facts | {"seconds": time.perf_counter() - begun}, folder)

    from rich.console import Console

    Console().print(make_table(found, spec.value))
    print(f"{folder}: completions.jsonl, results.json, receipt.json, report.html")
    return 0


def _search(
    recipe: "EvaluateRecipe", path: Path, spec: "SearchSpec", reward_model: str | None, usual: Path
) -> tuple["Search", dict]:
    import torch
    import transformers

    from alignment.models.load import read_saved_dtype, resolve_start
    from alignment.models.tokenizer import load_tokenizer
    from alignment.train.policy import load_whole
    from alignment.train.prepare import prepare_run
    from alignment.train.run_folder import prepared_folder
    from alignment.train.search import search

    transformers.utils.logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    options = {
        "attn_implementation": recipe.model.attn_implementation,
        "trust_remote_code": recipe.model.trust_remote_code,
    }

    def load(start, kind: str) -> "PreTrainedModel":
        dtype = read_saved_dtype(start, "auto") if on_gpu else torch.float32
        return load_whole(start, kind, dtype, **options).to("cuda" if on_gpu else "cpu").eval()

    start = resolve_start(recipe.model.path, recipe.model.revision)
    reward = _load_reward(recipe, path, reward_model, load) if reward_model else None
    prepared = prepare_run(recipe, path.resolve().parent, usual, prepared_folder(usual))
    tokenizer = load_tokenizer(prepared.folder / "tokenizer")
    found = search(recipe, prepared, load(start, "causal"), tokenizer, spec, reward)
    return found, {"key": prepared.key[:16], "template": prepared.manifest["template_hash"]}


def _load_reward(recipe: "EvaluateRecipe", path: Path, named: str, load) -> "RewardModel":
    from alignment.errors import ArtifactError
    from alignment.models.load import resolve_start
    from alignment.train.ppo.rewards import RewardModel, load_reward_chat

    start = resolve_start(named)
    model = load(start, "reward")
    if model.has_new_head:
        raise ArtifactError(
            f"{named}: has no trained score head; a reward model was expected. Name the run of a reward recipe."
        )
    trust = recipe.model.trust_remote_code
    chat = load_reward_chat(start, "from_tokenizer", path.resolve().parent, trust_remote_code=trust)
    return RewardModel(model, chat, recipe.evaluate.per_device_eval_batch_size, bf16=False)


def _write(
    recipe: "EvaluateRecipe", args: argparse.Namespace, spec: "SearchSpec", found: "Search", facts: dict, folder: Path
) -> None:
    import json
    import sys

    from alignment.recipe.resolved import recipe_hash, recipe_text
    from alignment.report.parents import describe_parent, describe_parents
    from alignment.report.receipt import make_receipt, write_receipt
    from alignment.report.search_page import make_search_page
    from alignment.train.search import RESULTS, write_search

    """Writes beside `folder` and puts it in its place when it is whole."""
    named, folder = folder, folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    write_search(found, folder)
    values, errors = found.metrics()
    scored = [describe_parent("reward model", args.reward_model)] if args.reward_model else []
    receipt = make_receipt(
        stage="search",
        recipe_hash=recipe_hash(recipe),
        recipe_dir=args.recipe.resolve().parent,
        seed=recipe.seed,
        command=sys.argv,
        prepared_manifest_hash=facts["key"],
        template_hash=facts["template"],
        metrics=values,
        metric_errors=errors,
        seconds={"total": round(facts["seconds"], 2)},
        parents=describe_parents(recipe) + scored,
        notes=[f"{spec.num_samples} completions a prompt at temperature {spec.temperature:g}, judged by {spec.value}."],
    )
    write_receipt(folder, receipt)
    results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    html = make_search_page(f"{named.resolve().parent.name}/{named.name}", spec.value, results, found.rows)
    (folder / "report.html").write_text(html, encoding="utf-8")
    if named.exists():
        shutil.rmtree(named)
    folder.rename(named)


def make_table(found: "Search", value: str) -> "Table":
    """The curves as a table for the terminal."""
    from rich.table import Table

    table = Table("method", box=None, pad_edge=False)
    for heading in (value, "± se", "over greedy", "95 %", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("greedy", f"{found.greedy:.4f}", "", "", "", f"{found.greedy_tokens:.0f}")
    for point in found.points:
        table.add_row(
            f"{point.method}@{point.n}",
            f"{point.value.value:.4f}",
            f"{point.value.error:.4f}",
            f"{point.gain.value:+.4f}",
            f"{point.gain.low:+.3f} to {point.gain.high:+.3f}",
            f"{point.tokens:.0f}",
        )
    return table
