"""What sealing, agreeing and the signs of life cost: the same training with them and without, in turn.

    python -m benchmarks.guards [--runs 5] [--cells sft ddp] [--out benchmarks/results/guards.md]

Without them the trainer saves, rotates and logs as transformers does. Measured are the seconds of the training loop, saves included; the
seconds inside the guard are counted as well, since differences between whole runs are of the size of their noise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks.compare import _processor, _range
from benchmarks.workload import CELLS, make_workload, write_configs

RANKS = {"sft": 1, "ddp": 2}
SAVE_STEPS = 20  # once in 20 steps of half a second: a real run saves every few minutes
RARE_SECONDS = 300
MARK = "measured "


def train(recipe: Path, out: Path, ranks: int, guarded: bool) -> None:
    """One training up to its last step, in this process or in forked ranks; rank 0 prints what it measured."""
    from alignment.launch.ranks import run_ranks
    from alignment.launch.request import TrainRequest
    from alignment.launch.worker import run_worker

    request = TrainRequest(recipe, overrides=(f"train.save_steps={SAVE_STEPS}",), out=out)

    def work() -> int:
        measure_only(guarded)
        return run_worker(request)

    config = Path(__file__).parent.parent / "accelerate_configs/ddp.yaml" if ranks > 1 else None
    raise SystemExit(run_ranks(work, config=config, num_processes=ranks, log_dir=out / "logs"))


def measure_only(guarded: bool) -> None:
    """Leaves out what comes after the last step, and the guard where it is not wanted. In a forked process only."""
    from contextlib import nullcontext

    from transformers import Trainer

    from alignment.train import begin, finish

    finish.Verifier = lambda: type("NoVerifier", (nullcontext,), {"close": lambda self: None})()
    finish.write_result = lambda *_: None
    before = {"trial": 0.0}
    begin.try_saving = timed(begin.try_saving, before, "trial")
    loop = Trainer._inner_training_loop

    def measured(trainer: Trainer, **arguments) -> object:
        guard = trainer.guard
        if not guarded:
            trainer.remove_callback(guard)
            trainer.guard, trainer.args.save_total_limit = None, 2
        began = time.perf_counter()
        found = loop(trainer, **arguments)
        if trainer.args.process_index == 0:
            seconds = time.perf_counter() - began - before["trial"]
            facts = {"train": seconds, **guard.seconds, "trial": before["trial"], "count": trainer.state.global_step}
            print(MARK + json.dumps(facts), flush=True)
        return found

    Trainer._inner_training_loop = measured


def timed(function: Callable, seconds: dict[str, float], name: str) -> Callable:
    """`function`, whose time is added to `seconds`."""

    def run(*arguments: object) -> object:
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            seconds[name] += time.perf_counter() - began

    return run


def run_once(folder: Path, cell: str, run: int, guarded: bool) -> dict[str, float]:
    """One training in a fresh process. Raises RuntimeError when it fails."""
    out = folder / f"guards-{cell}-{'on' if guarded else 'off'}-{run}-{time.time_ns()}"
    command = [sys.executable, "-m", "benchmarks.guards", "--train", str(folder / "sft.yaml"), str(out)]
    command += ["--cells", cell] + (["--guarded"] if guarded else [])
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(lines[0])


def render(results: dict[str, dict[str, list[dict[str, float]]]], runs: int) -> str:
    """The committed page."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate"))
    lines = [
        "# What the guards cost",
        "",
        f"{time.strftime('%Y-%m-%d')}, {_processor()}, {len(os.sched_getaffinity(0))} cores, no GPU; {versions}.",
        f"`python -m benchmarks.guards --runs {runs}`; medians of {runs} alternating runs, smallest and largest in brackets. SFT of a Llama of "
        f"4.3 M parameters, 20 steps of 8 rows of up to 256 tokens, bfloat16 compute, one checkpoint of 52 MB. The time inside the guard "
        "(agreeing after a step, which holds the wait for the slower rank; bringing a checkpoint to the disk and hashing it) is its own.",
        "",
        "| | training with guards (s) | without (s) | a step (ms) | a seal (s) | share of this training | share with a seal every 5 minutes | "
        "before step 1 (s) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell, sides in results.items():
        on, off = ([one["train"] for one in sides[side]] for side in ("on", "off"))
        shares = [100 * (one["steps"] + one["seals"]) / one["train"] for one in sides["on"]]
        name = "one process" if RANKS[cell] == 1 else f"ddp, {RANKS[cell]} CPU ranks"
        step = statistics.median(1000 * one["steps"] / one["count"] for one in sides["on"])
        seal = statistics.median(one["seals"] for one in sides["on"])
        trial = statistics.median(one["trial"] for one in sides["on"])
        rare = statistics.median(100 * one["steps"] / one["train"] for one in sides["on"]) + 100 * seal / RARE_SECONDS
        lines.append(
            f"| {name} | {_range(on)} | {_range(off)} | {step:.2f} | {seal:.3f} | **{statistics.median(shares):.2f} %** "
            f"({min(shares):.2f}-{max(shares):.2f}) | **{rare:.2f} %** | {trial:.2f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Runs the chosen cells and prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cells", nargs="+", choices=RANKS, default=list(RANKS))
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--train", nargs=2, type=Path, metavar=("RECIPE", "OUT"), help="one training; for the benchmark itself"
    )
    parser.add_argument("--guarded", action="store_true", help="with --train")
    arguments = parser.parse_args()
    if arguments.train:
        train(*arguments.train, RANKS[arguments.cells[0]], arguments.guarded)
    folder = arguments.work.resolve()
    make_workload(folder)
    write_configs(folder, CELLS["sft"], 0)
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for cell in arguments.cells:
        results[cell] = {"on": [], "off": []}
        for run in range(arguments.runs):
            for side in ("on", "off")[:: 1 if run % 2 == 0 else -1]:
                results[cell][side].append(run_once(folder, cell, run, side == "on"))
                print(f"{cell} run {run} {side}: {results[cell][side][-1]}", flush=True)
    page = render(results, arguments.runs)
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
