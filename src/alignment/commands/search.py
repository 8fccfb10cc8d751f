"""`alignment search`: test-time scaling; what choosing among several completions of each prompt gains, and in how many tokens."""

import argparse
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.errors import LaunchError, RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from alignment.data.prepare import Prepared
    from alignment.recipe.schema import EvaluateRecipe
    from alignment.train.search import Search, SearchSpec

COMPLETIONS = "completions.jsonl"


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
        if not (folder / COMPLETIONS).is_file():
            raise RecipeError(
                f"{folder}: not the result of a search, and is not replaced. Name another folder with --out."
            )

    from alignment.train.search import SearchSpec, check_methods

    spec = SearchSpec(args.num_samples, args.temperature, args.value, tuple(dict.fromkeys(args.methods)))
    check_methods(spec.methods, args.reward_model is not None)
    writing = _make_folder(folder)
    begun = time.perf_counter()
    prepared, found = _search(recipe, args.recipe, spec, args.reward_model, usual)
    _write(recipe, args, prepared, found, time.perf_counter() - begun, writing)
    _write_page(found, spec.value, folder, writing)
    if folder.exists():
        shutil.rmtree(folder)
    writing.rename(folder)

    from rich.console import Console

    Console().print(make_table(found, spec.value))
    print(f"{folder}: {COMPLETIONS}, results.json, receipt.json, report.html")
    return 0


def _make_folder(folder: Path) -> Path:
    """The folder that is written, beside `folder`: it takes its place when it is whole."""
    writing = folder.with_name(f"{folder.name}.writing")
    try:
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
    except OSError as error:
        raise LaunchError(
            f"{writing}: cannot be made ({error.strerror}); a folder was expected. Name another with --out."
        ) from error
    return writing


def _search(
    recipe: "EvaluateRecipe", path: Path, spec: "SearchSpec", reward_model: str | None, usual: Path
) -> tuple["Prepared", "Search"]:
    import torch

    from alignment.launch.worker import quiet_libraries
    from alignment.models.load import resolve_start
    from alignment.models.tokenizer import load_tokenizer
    from alignment.train.policy import check_score_head
    from alignment.train.ppo.rewards import RewardModel, load_reward_chat
    from alignment.train.prepare import prepare_run
    from alignment.train.run_folder import prepared_folder
    from alignment.train.search import search
    from alignment.train.stages.evaluate import find_kind, load_measured

    quiet_libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = resolve_start(recipe.model.path, recipe.model.revision)
    if find_kind(start) == "reward":
        raise RecipeError(f"model.path: {start.path} is a reward model, which generates nothing. Name a causal model.")
    reward = None
    if reward_model is not None:
        scorer = resolve_start(reward_model)
        model = load_measured(recipe, scorer, device, "reward")
        check_score_head(model, scorer)
        trust = recipe.model.trust_remote_code
        chat = load_reward_chat(scorer, "from_tokenizer", path.resolve().parent, trust_remote_code=trust)
        reward = RewardModel(model, chat, recipe.evaluate.per_device_eval_batch_size, bf16=False)
    prepared = prepare_run(recipe, path.resolve().parent, usual, prepared_folder(usual))
    tokenizer = load_tokenizer(prepared.folder / "tokenizer")
    policy = load_measured(recipe, start, device, "causal")
    return prepared, search(recipe, prepared, policy, tokenizer, spec, reward)


def _write(
    recipe: "EvaluateRecipe",
    args: argparse.Namespace,
    prepared: "Prepared",
    found: "Search",
    seconds: float,
    folder: Path,
) -> None:
    """The completions, the points, the recipe and the receipt."""
    import json
    import sys

    from alignment.recipe.resolved import recipe_hash, recipe_text
    from alignment.report.parents import describe_parent, describe_parents
    from alignment.report.receipt import make_receipt, write_receipt

    with (folder / COMPLETIONS).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in found.rows)
    (folder / "results.json").write_text(json.dumps(found.describe(), indent=1), encoding="utf-8")
    (folder / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    values, errors = found.metrics()
    scored = [describe_parent("reward model", args.reward_model)] if args.reward_model else []
    receipt = make_receipt(
        stage="search",
        recipe_hash=recipe_hash(recipe),
        recipe_dir=args.recipe.resolve().parent,
        seed=recipe.seed,
        command=sys.argv,
        prepared_manifest_hash=prepared.key[:16],
        template_hash=prepared.manifest["template_hash"],
        metrics=values,
        metric_errors=errors,
        seconds={"total": round(seconds, 2)},
        parents=describe_parents(recipe) + scored,
        notes=[f"{args.num_samples} completions a prompt at temperature {args.temperature:g}, judged by {args.value}."],
    )
    write_receipt(folder, receipt)


def _write_page(found: "Search", value: str, folder: Path, writing: Path) -> None:
    from alignment.report.search_page import make_search_page

    title = f"{folder.resolve().parent.name}/{folder.name}"
    html = make_search_page(title, value, found.describe(), found.rows)
    (writing / "report.html").write_text(html, encoding="utf-8")


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
