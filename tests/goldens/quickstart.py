"""The trace of the quickstart: what its recipes train on, with which learning rates, and where the losses begin.

Two steps a stage are trained for real, in fp32; the rows, the masks and the schedule are the recipes' own.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unfinished import leave_out_the_end

ROOT = Path(__file__).parent.parent.parent
QUICKSTART = ROOT / "recipes/quickstart"
PATH = Path(__file__).parent / "quickstart.json"
STAGES = ("pretrain", "sft", "reward", "dpo")
NUM_ROWS, NUM_STEPS = 16, 2


def make_trace(folder: Path) -> dict[str, Any]:
    """The trace of every training recipe. The current folder must be `folder`, which holds nothing yet."""
    study = folder / "recipes/quickstart"
    study.mkdir(parents=True)
    for path in QUICKSTART.glob("*.yaml"):
        shutil.copy(path, study)
    subprocess.run(
        [sys.executable, str(QUICKSTART / "make_world.py"), "--out", str(study / "data")],
        check=True,
        capture_output=True,
    )
    _train(study, "curate")
    _train(study, "tokenizer")
    found = {stage: _trace(study, stage) for stage in STAGES[:2]}
    with pytest.MonkeyPatch.context() as patch:
        leave_out_the_end(patch)  # nothing starts from the pairs' models
        return found | {stage: _trace(study, stage) for stage in STAGES[2:]}


def _train(study: Path, stage: str, *overrides: str) -> None:
    from alignment.launch.request import TrainRequest
    from alignment.launch.worker import run_worker

    assert run_worker(TrainRequest(study / f"{stage}.yaml", overrides=overrides)) == 0


def _trace(study: Path, stage: str) -> dict[str, Any]:
    from alignment.data.prepare import load_prepared
    from alignment.recipe.loader import load_recipe

    measured = ["eval.metrics=[]", "data.eval=[]"] + (["eval.num_samples=0"] if stage != "reward" else [])
    steps = [f"train.max_steps={NUM_STEPS}", "train.warmup_steps=0", "train.bf16=false", "train.logging_steps=1"]
    _train(study, stage, *measured, *steps)
    [manifest] = Path("runs/quickstart/prepared").glob(f"{stage}-*/manifest.json")
    lines = [json.loads(line) for line in Path(f"runs/quickstart/{stage}/metrics.jsonl").read_text().splitlines()]
    return {
        "rows": _hash_rows(load_prepared(manifest.parent).train),
        "learning_rates": _learning_rates(load_recipe(study / f"{stage}.yaml").train),
        "losses": [round(line["loss"], 4) for line in lines if "loss" in line],
    }


def _hash_rows(rows: Any) -> str:
    """Of the first rows, every column of tokens and masks."""
    names = sorted(name for name in rows.column_names if name.endswith(("_ids", "labels", "_lengths")))
    text = json.dumps([[rows[place][name] for name in names] for place in range(NUM_ROWS)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _learning_rates(train: Any) -> list[float]:
    """At the first step, at the end of warm-up, and at a half, three quarters and the end of the run."""
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=train.learning_rate)
    scheduler = get_scheduler(
        train.lr_scheduler_type, optimizer, train.warmup_steps, train.max_steps, dict(train.lr_scheduler_kwargs)
    )
    rates = []
    for _ in range(train.max_steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    places = (0, train.warmup_steps, train.max_steps // 2, 3 * train.max_steps // 4, train.max_steps - 1)
    return [float(f"{rates[place]:.6g}") for place in places]
