"""The quickstart over several seeds: another world, other weights and another order of rows each time, one after the other.

    python -m benchmarks.seeds [--seeds 0 1 2] [--work runs/seeds] [--out benchmarks/results/quickstart.md]

Seed 0 is the study as it stands (world 0, recipes 1). A seed whose stages are done is only read; `--only-read` runs nothing.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.compare import _processor

STUDY = Path(__file__).parent.parent / "recipes/quickstart"
# what is reported, with what the figure should reach; None: only told
FIGURES: dict[str, str | None] = {
    "curate/recall": None,
    "curate/precision": None,
    "pretrain/recall_described": ">= 0.95",
    "pretrain/bits_per_byte": None,
    "sft/exact_match_before": "<= 0.05",
    "sft/exact_match": ">= 0.85",
    "sft/exact_match_unasked": ">= 0.75",
    "sft/stops": ">= 0.99",
    "sft/invented": ">= 0.90",
    "sft/honesty": None,
    "reward/pair_accuracy": ">= 0.88",
    "reward/pair_accuracy/right_over_wrong": None,
    "reward/pair_accuracy/right_over_abstaining": None,
    "reward/pair_accuracy/abstaining_over_invented": None,
    "reward/length_only_pair_accuracy": None,
    "ppo/honesty": ">= 0.80",
    "ppo/invented": "<= 0.25",
    "ppo/exact_match": None,
    "ppo/kl": None,
    "dpo/honesty": ">= 0.80",
    "dpo/invented": "<= 0.25",
    "dpo/exact_match": None,
    "dpo/kl": None,
}
RISES = ("score", "gold")  # of ppo: each has to rise by more than two standard errors of the difference
STAGES = ("curate", "tokenizer", "pretrain", "sft", "reward", "ppo", "dpo", "evaluate")


def run_seed(seed: int, work: Path) -> None:
    """Copies the study, gives it the seed, makes its world and runs it in a folder of its own."""
    study = work / "recipes/quickstart"
    shutil.copytree(STUDY, study, dirs_exist_ok=True, ignore=shutil.ignore_patterns("data", "__pycache__"))
    for recipe in study.glob("*.yaml"):
        text = recipe.read_text(encoding="utf-8")
        recipe.write_text(re.sub(r"^seed: 1$", f"seed: {seed + 1}", text, flags=re.MULTILINE), encoding="utf-8")
    alignment = [sys.executable, "-m", "alignment", "run", "recipes/quickstart"]
    for command in ([sys.executable, str(study / "make_world.py"), "--seed", str(seed)], alignment):
        subprocess.run(command, cwd=work, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def read_seed(work: Path) -> tuple[dict[str, float], dict]:
    """The figures of a run, and the receipt of its ppo stage with the standard errors."""
    run = work / "runs/quickstart"
    receipt = json.loads((run / "ppo/receipt.json").read_text(encoding="utf-8"))
    return json.loads((run / "results.json").read_text(encoding="utf-8")), receipt


def rise(receipt: dict, name: str) -> tuple[float, float]:
    """How far a metric rose, and in how many standard errors of the difference of two independent means.

    The questions are the same before and after, so that the error is taken too large rather than too small.
    """
    gain = receipt["metrics"][name] - receipt["metrics_before"][name]
    error = (receipt["metric_errors"][name] ** 2 + receipt["metric_errors_before"][name] ** 2) ** 0.5
    return gain, gain / error


def holds(wanted: str, values: list[float]) -> bool:
    sign, limit = wanted.split()
    return all(value >= float(limit) if sign == ">=" else value <= float(limit) for value in values)


def make_page(seeds: list[int], runs: list[tuple[dict[str, float], dict]]) -> str:
    names = " | ".join(f"seed {seed}" for seed in seeds)
    lines = [
        "# The quickstart over seeds",
        "",
        f"`python -m benchmarks.seeds --seeds {' '.join(map(str, seeds))}`: each seed has another world, other weights and another order of rows.",
        f"torch {version('torch')}, transformers {version('transformers')}, trl {version('trl')}, peft {version('peft')}; {_processor()},"
        f" {os.cpu_count()} cores; computing in {runs[0][1]['dtypes']['compute']}.",
        "",
        f"| held-out figure | {names} | mean | wanted of each | held |",
        "|---|" + "---:|" * (len(seeds) + 1) + "---|---|",
    ]
    for name, wanted in FIGURES.items():
        values = [results[name] for results, _ in runs]
        cells = " | ".join(f"{value:.3f}" for value in values)
        held = "" if wanted is None else "yes" if holds(wanted, values) else "**no**"
        lines.append(f"| `{name}` | {cells} | {statistics.mean(values):.3f} | {wanted or ''} | {held} |")
    for name in RISES:
        rises = [rise(receipt, name) for _, receipt in runs]
        cells = " | ".join(f"{gain:+.2f} ({errors:.0f} errors)" for gain, errors in rises)
        held = "yes" if all(errors > 2 for _, errors in rises) else "**no**"
        lines.append(
            f"| `ppo/{name}`, rise | {cells} | {statistics.mean(gain for gain, _ in rises):+.2f} | > 2 errors | {held} |"
        )
    for stage in STAGES:
        values = [results[f"seconds/{stage}"] for results, _ in runs]
        lines.append(
            f"| `seconds/{stage}` | {' | '.join(f'{value:.0f}' for value in values)} | {statistics.mean(values):.0f} | | |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--out", type=Path, help="where the page is written; it is printed in any case")
    parser.add_argument("--only-read", action="store_true")
    given = parser.parse_args()
    places = [given.work.absolute() / f"seed-{seed}" for seed in given.seeds]
    if given.only_read and (
        absent := [place for place in places if not (place / "runs/quickstart/results.json").is_file()]
    ):
        parser.error(f"{absent[0]}: no finished quickstart; one of each seed was expected. Leave --only-read out.")
    for seed, place in zip(given.seeds, places, strict=True):
        if not given.only_read:
            run_seed(seed, place)
    page = make_page(given.seeds, [read_seed(place) for place in places])
    print(page)
    if given.out:
        given.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
