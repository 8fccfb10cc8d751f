"""Our `alignment train` beside TRL's own command line, on the same rows and model, run by run in turn.

    python -m benchmarks.compare [--gpu] [--runs 5] [--cells sft reward ...] [--out benchmarks/results/NAME.md]

Both sides are whole commands: what is measured is what a user waits for. Seconds to the first step count from the start
of the command to the arrival of the first logged loss; tokens per second leave out the first steps and count no padding;
memory is the largest resident set of any process of the command; CPU seconds are those of all its processes. With --gpu the
model and the rows are larger, and memory of the GPU is what torch says at the end of the process: the most that tensors held.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.workload import CELLS, CPU, GPU, Cell, Scale, make_workload, write_configs

SKIPPED_STEPS = 5
PEAK_FLOPS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}  # dense bfloat16, by the data sheets
METRICS = {
    "first_step_s": "seconds to first step",
    "tokens_per_s": "tokens/s",
    "memory_mib": "peak memory MiB",
    "cpu_s": "CPU seconds",
    "wall_s": "wall seconds",
    "gpu_mib": "peak GPU memory MiB",
}
# Read by every Python process of a command, before its own code.
SITE = """import atexit, os, sys

def write():
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with open(os.environ["GPU_PEAKS"], "a") as file:
            file.write(f"{torch.cuda.max_memory_allocated() / 2**20}\\n")

atexit.register(write)
"""
LOSS_LINE = re.compile(r"'loss'")
TOKENS = re.compile(r"'num_tokens': '?([\d.e+]+)")


@dataclass(frozen=True)
class Measured:
    """One command: arrival time of each step's log line in seconds after launch, tokens seen by then, and what it used."""

    step_seconds: list[float]
    step_tokens: list[int]  # without padding, as each side counts them itself
    wall_s: float
    cpu_s: float
    memory_mib: float
    gpu_mib: float | None = None

    def figures(self) -> dict[str, float]:
        """The compared numbers. Both sides shuffle, so a window of steps does not hold the same rows: tokens are counted."""
        seconds = self.step_seconds[-1] - self.step_seconds[SKIPPED_STEPS - 1]
        tokens = self.step_tokens[-1] - self.step_tokens[SKIPPED_STEPS - 1]
        return {
            "first_step_s": self.step_seconds[0],
            "tokens_per_s": tokens / seconds,
            "memory_mib": self.memory_mib,
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
        } | ({} if self.gpu_mib is None else {"gpu_mib": self.gpu_mib})


def run_command(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[Measured, str]:
    """Runs a command to its end and times the lines that log a loss.

    Raises:
        RuntimeError: it failed; the message holds the end of its output.
    """
    peaks = Path(environment.get("GPU_PEAKS", os.devnull))
    peaks.write_text("")
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seconds, tokens, lines = [], [], []
    for line in process.stdout:
        lines.append(line)
        if LOSS_LINE.search(line):
            seconds.append(time.perf_counter() - begun)
            tokens += [int(float(found)) for found in TOKENS.findall(line)]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    output = "".join(lines)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output[-3000:]}")
    wall = time.perf_counter() - begun
    gpu_mib = max(map(float, peaks.read_text().split()), default=None)
    return Measured(seconds, tokens, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, gpu_mib), output


def run_ours(cell: Cell, folder: Path, run: int, environment: dict[str, str]) -> Measured:
    """`alignment train`; the steps' times come from metrics.jsonl, which carries the clock."""
    out = folder / f"ours-{cell.name}-{run}"
    begun = time.time()
    measured, _ = run_command(
        [sys.executable, "-m", "alignment", "train", str(folder / f"{cell.name}.yaml"), "--out", str(out), "--fresh"],
        folder,
        environment,
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    seconds, tokens = [line["time"] - begun for line in steps], [line["tokens"] for line in steps]
    return replace(measured, step_seconds=seconds, step_tokens=tokens)


def run_trl(cell: Cell, folder: Path, run: int, environment: dict[str, str]) -> Measured:
    """`trl sft|reward|dpo` with the same settings."""
    program = "import sys; from trl.cli import main; sys.exit(main())"  # the program `trl`
    command = [sys.executable, "-c", program, cell.stage, "--config", str(folder / f"trl-{cell.name}.yaml")]
    measured, output = run_command(
        [*command, "--output_dir", str(folder / f"trl-{cell.name}-{run}")], folder, environment
    )
    if len(measured.step_seconds) <= SKIPPED_STEPS:
        raise RuntimeError(f"TRL logged {len(measured.step_seconds)} steps:\n{output[-3000:]}")
    return measured


def compare(cell: Cell, scale: Scale, folder: Path, runs: int) -> dict[str, dict[str, list[float]]]:
    """Alternates both sides; returns side -> metric -> one value a run."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONDONTWRITEBYTECODE": "",  # TRL is compiled when it is installed, a checkout of ours when it is first run
    }
    if scale.gpu:
        (folder / "site").mkdir(exist_ok=True)
        (folder / "site/sitecustomize.py").write_text(SITE)
        path = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH")]))
        environment |= {"PYTHONPATH": path, "GPU_PEAKS": str(folder / "peaks.txt")}
    table: dict[str, dict[str, list[float]]] = {"ours": {}, "trl": {}}
    for run in range(runs):
        write_configs(folder, cell, scale, seed=run)
        for side, runner in (("ours", run_ours), ("trl", run_trl))[:: 1 if run % 2 == 0 else -1]:
            figures = runner(cell, folder, run, environment).figures()
            for name, value in figures.items():
                table[side].setdefault(name, []).append(value)
            print(f"{cell.name} run {run} {side}: " + ", ".join(f"{k} {v:.1f}" for k, v in figures.items()), flush=True)
    return table


def render(results: dict[str, dict], cells: list[Cell], scale: Scale, runs: int) -> str:
    """The committed page: settings, medians, ratios and the range of every figure."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft", "accelerate"))
    lines = [
        "# Beside TRL's command line",
        "",
        f"{time.strftime('%Y-%m-%d')}, {_processor()}, {len(os.sched_getaffinity(0))} cores, {_gpu() if scale.gpu else 'no GPU'}; Python "
        f"{platform.python_version()}, {versions}.",
        f"`python -m benchmarks.compare {'--gpu ' if scale.gpu else ''}--runs {runs}`; medians of {runs} alternating runs, each with another seed for both, smallest and "
        "largest in brackets.",
        "",
    ]
    for cell in cells:
        lines += [f"## {cell.name}", "", cell.settings(scale), "", "| | ours | TRL | ours / TRL |", "|---|---|---|---|"]
        for metric, label in METRICS.items():
            ours, trl = (results[cell.name][side].get(metric) for side in ("ours", "trl"))
            if ours is None:
                continue
            ratio = statistics.median(ours) / statistics.median(trl)
            lines.append(f"| {label} | {_range(ours)} | {_range(trl)} | **{ratio:.2f}** |")
            if metric == "tokens_per_s" and scale.gpu and cell.stage == "sft" and _gpu() in PEAK_FLOPS:
                shares = [6 * scale.parameters * statistics.median(one) / PEAK_FLOPS[_gpu()] for one in (ours, trl)]
                lines.append(f"| MFU, 6 FLOPs a parameter and token | {shares[0]:.1%} | {shares[1]:.1%} | |")
        lines.append("")
    return "\n".join(lines)


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name(0)


def main() -> None:
    """Runs the chosen cells and prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gpu", action="store_true", help="a larger model and longer rows, on the first GPU")
    arguments = parser.parse_args()
    scale = GPU if arguments.gpu else CPU
    cells = [CELLS[name] for name in arguments.cells]
    make_workload(arguments.work.resolve(), scale)
    results = {cell.name: compare(cell, scale, arguments.work.resolve(), arguments.runs) for cell in cells}
    page = render(results, cells, scale, arguments.runs)
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
