"""Run folders as training leaves them, without training."""

import json
import shutil
from pathlib import Path

from alignment.models.hashes import hash_weights
from alignment.report.receipt import make_receipt, write_receipt
from alignment.train.run_folder import write_exit

RECIPE = "stage: sft\nseed: 1\nmodel:\n  path: org/base\n  revision: abc123\nchat:\n  template: chatml\n"
MANIFEST = {
    "sources": [
        {"split": "train", "path": "org/rows", "revision": "def456", "content_hash": "x"},
        {"split": "eval", "path": "org/held-out", "revision": "0a1b2c", "content_hash": "y"},
    ],
    "max_length": 64,
}


def write_finished_run(run_dir: Path, model: Path) -> Path:
    """A run folder as training leaves it."""
    run_dir.mkdir(parents=True)
    shutil.copytree(model, run_dir / "final")
    (run_dir / "recipe.yaml").write_text(RECIPE)
    (run_dir / "data_manifest.json").write_text(json.dumps(MANIFEST))
    receipt = make_receipt(
        stage="sft",
        recipe_hash="0123456789abcdef",
        recipe_dir=run_dir,
        seed=1,
        metrics={"exact_match": 0.875, "stops": 0.99},
        metric_errors={"exact_match": 0.0123},
        parents=[{"path": "org/base", "kind": "model"}],
        weights_hash=hash_weights(run_dir / "final"),
        seconds={"total": 3600.0},
        gpus=["NVIDIA L4", "NVIDIA L4"],
        world_size=2,
    )
    write_receipt(run_dir, receipt)
    write_exit(run_dir, 0, "done", "alignment train recipes/study/sft.yaml")
    return run_dir
