"""Our PPO beside TRL 1.12's, the last release that had one: speed, memory and what is learnt.

    python -m benchmarks.ppo --trl PYTHON [--runs 5] [--updates 4] [--seeds 3] [--score_updates 40] [--out benchmarks/results/ppo.md]

PYTHON is the interpreter of an environment of its own: python -m venv TRL; TRL/bin/pip install -c constraints/cpu.txt torch==2.13.0;
TRL/bin/pip install trl==1.12.0 torch==2.13.0. Runs alternate; each is a process of one thread. Figures of whole
machines that others use too are honest in CPU seconds only, so both are given.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.compare import _processor
from benchmarks.ppo_task import TASKS, make_task

ROOT = Path(__file__).parent.parent
OURS = str(Path(sys.executable))
METRICS = {"wall": "samples/s", "cpu": "samples a CPU second", "memory_mib": "peak memory MiB"}
TARGETS = {"wall": "at least 1.3", "cpu": "at least 1.3", "memory_mib": "at most 0.95"}
Figures = dict[str, float]


def run_side(python: str, *arguments: str) -> Figures:
    """One process of `benchmarks.ppo_sides`.

    Raises:
        RuntimeError: it failed; the message holds the end of its output.
    """
    further = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [python, "-m", "benchmarks.ppo_sides", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | further, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def alternate(trl: str, folder: Path, task: str, updates: int, runs: int) -> dict[str, list[Figures]]:
    """Both sides in turn, each run with another seed."""
    found: dict[str, list[Figures]] = {"ours": [], "trl": []}
    for run in range(runs):
        for side, python in (("ours", OURS), ("trl", trl))[:: 1 if run % 2 == 0 else -1]:
            options = ("--task", task, "--updates", str(updates), "--seed", str(run + 1))
            figures = run_side(python, side, str(folder / task), *options)
            found[side].append(figures)
            print(f"{task} run {run + 1} {side}: {figures}", flush=True)
    return found


def measure_forms(folder: Path, runs: int) -> dict[str, list[Figures]]:
    """Ours alone: all weights, LoRA with two bases, LoRA on one."""
    forms = {"all weights": (), "LoRA": ("--lora",), "LoRA on one base": ("--lora", "--share_base")}
    found: dict[str, list[Figures]] = {name: [] for name in forms}
    for run in range(runs):
        for name, options in forms.items():
            task = ("--task", "memory", "--updates", "2", "--seed", str(run + 1))
            found[name].append(run_side(OURS, "ours", str(folder / "memory"), *task, *options))
            print(f"{name} run {run + 1}: {found[name][-1]}", flush=True)
    return found


# ------------------------------------------------------------------------------------------------ the page


def describe(values: list[float], digits: int) -> str:
    """The median, smallest and largest in brackets."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def render_speed(found: dict[str, list[Figures]]) -> list[str]:
    """The table of medians and their ratios."""
    lines = ["| | ours | TRL 1.12 | ours / TRL | wanted |", "|---|---|---|---|---|"]
    for name, title in METRICS.items():
        ours, theirs = ([one[name] for one in found[side]] for side in ("ours", "trl"))
        ratio = statistics.median(ours) / statistics.median(theirs)
        digits = 0 if name == "memory_mib" else 2
        cells = (title, describe(ours, digits), describe(theirs, digits), f"**{ratio:.2f}**", TARGETS[name])
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def render_scores(found: dict[str, list[Figures]]) -> list[str]:
    """The table of what was learnt, one line a seed."""
    lines = ["| seed | ours | TRL 1.12 | KL, ours | KL, TRL |", "|---|---|---|---|---|"]
    for number, (one, other) in enumerate(zip(found["ours"], found["trl"], strict=True), start=1):
        scores = " | ".join(f"{side['score_first']:+.2f} to {side['score']:+.2f}" for side in (one, other))
        lines.append(f"| {number} | {scores} | {one['kl']:.1f} | {other['kl']:.1f} |")
    return lines


def render_forms(found: dict[str, list[Figures]]) -> list[str]:
    """Peak memory of the three forms, and of their models alone."""
    whole = statistics.median(one["memory_mib"] for one in found["all weights"])
    lines = ["| | peak memory MiB | of all weights |", "|---|---|---|"]
    for name, runs in found.items():
        memory = [one["memory_mib"] for one in runs]
        lines.append(f"| {name} | {describe(memory, 0)} | {statistics.median(memory) / whole:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--trl", required=True, metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--score_updates", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where the tasks are, or are made; default: a temporary one")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/ppo.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for name, task in TASKS.items():
            if not (folder / name / "prompts.jsonl").is_file():
                make_task(task, folder / name)
        begun = time.strftime("%Y-%m-%d")
        speed = alternate(options.trl, folder, "speed", options.updates, options.runs)
        scores = alternate(options.trl, folder, "score", options.score_updates, options.seeds)
        forms = measure_forms(folder, 2)
    versions = "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in ('torch', 'transformers', 'trl')), sep=', ')"
    ours, theirs = (
        subprocess.run([python, "-c", versions], capture_output=True, text=True).stdout.strip()
        for python in (OURS, options.trl)
    )
    task = TASKS["speed"]
    lines = [
        "# PPO beside TRL 1.12", "",
        f"{begun}, {_processor()}, {len(os.sched_getaffinity(0))} cores shared with other jobs (load {os.getloadavg()[2]:.1f}), no GPU; Python "
        f"{platform.python_version()}. Ours: {ours} (of which no trainer is used); TRL's: {theirs}.",
        f"`python -m benchmarks.ppo --trl PYTHON --runs {options.runs} --updates {options.updates}`; one thread a process, runs in turn.", "",
        "## Speed and memory", "",
        f"Llama of {task.layers} layers and hidden size {task.hidden} (2.8 M parameters), {task.batch} prompts an update, up to "
        f"{task.max_new_tokens} new tokens, {task.epochs} epochs, one mini-batch, fp32. Medians of {options.runs} runs, smallest and largest in "
        "brackets; the first update of a run is left out.", "",
        *render_speed(speed), "",
        "## What is learnt", "",
        f"2 layers, hidden size 64, 64 prompts an update, up to 20 tokens, {options.score_updates} updates; mean score of the first and of the last ten.", "",
        *render_scores(scores), "",
        "## Forms", "",
        f"Ours alone, {TASKS['memory'].layers} layers and hidden size {TASKS['memory'].hidden}; the process's largest resident set, libraries included.", "",
        *render_forms(forms), "",
    ]  # fmt: skip
    options.out.write_text("\n".join(lines), encoding="utf-8")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
