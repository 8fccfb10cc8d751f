"""Run folders as a pipeline leaves them, with made-up numbers of a plausible shape."""

import json
import math
import random
from pathlib import Path

from alignment.report.receipt import make_receipt, receipt_hash, write_receipt

RECIPES = {
    "tokenizer": "stage: tokenizer\nseed: 1\ntokenizer:\n  algorithm: bpe\n  vocab_size: 2048\n",
    "pretrain": "stage: pretrain\nseed: 1\nmodel:\n  config:\n    model_type: llama\ntokenizer:\n  path: runs/{study}/tokenizer/final\n",
    "sft": "stage: sft\nseed: 1\nmodel:\n  path: runs/{study}/pretrain/final\nlora:\n  r: 16\n  save: merged\nchat:\n  pad_token: <|pad|>\n",
    "reward": "stage: reward\nseed: 1\nmodel:\n  path: runs/{study}/sft/final\n",
    "dpo": "stage: dpo\nseed: 1\nmodel:\n  path: runs/{study}/sft/final\nlora:\n  r: 16\ndpo:\n  reference: start\n",
    "evaluate": "stage: evaluate\nseed: 1\nmodel:\n  path: runs/{study}/dpo/final\n",
}
PARENTS = {"pretrain": "tokenizer", "sft": "pretrain", "reward": "sft", "dpo": "sft", "evaluate": "dpo"}
AFTER = {
    "pretrain": {"bits_per_byte": 1.1034, "recall_described": 0.967},
    "sft": {"exact_match": 0.882, "stops": 0.997, "invented": 0.951, "honesty": 0.481},
    "reward": {"pair_accuracy": 0.956, "length_only_pair_accuracy": 0.512},
    "dpo": {"exact_match": 0.861, "stops": 0.998, "invented": 0.083, "honesty": 0.889, "kl": 3.42},
    "evaluate": {"exact_match": 0.861, "honesty": 0.889},
}
BEFORE = {
    "sft": {"exact_match": 0.012, "stops": 0.0, "invented": 0.99, "honesty": 0.011},
    "dpo": {"exact_match": 0.882, "stops": 0.997, "invented": 0.951, "honesty": 0.481},
}
MIX = [
    {"split": "train", "source": "data/sft.jsonl", "format": "messages", "asked": "all", "available": 12000, "obtained": 12000,
     "unique": 12000, "kept": 11988, "tokens": 412_331, "trained_tokens": 98_210},
    {"split": "eval", "source": "data/sft_eval.jsonl", "format": "messages", "asked": "500 rows", "available": 900, "obtained": 500,
     "unique": 500, "kept": 500, "tokens": 17_204, "trained_tokens": 4_102},
]  # fmt: skip
ENCODE = {
    "train": {"rows": 12000, "kept": 11988, "pieces": 11988, "dropped": {"too long": 9, "nothing to train on": 3},
              "truncated": 0, "split": 0, "tokens": 412_331, "trained_tokens": 98_210, "longest": 311, "shown": {}},
    "eval": {"rows": 500, "kept": 500, "pieces": 500, "dropped": {}, "truncated": 0, "split": 0, "tokens": 17_204,
             "trained_tokens": 4_102, "longest": 77, "shown": {}},
}  # fmt: skip
SAMPLES = {
    "before": [
        {"prompt": "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", "completion": "of the country is the capital of the country is the",
         "stopped": False, "answer": "Paris"},
        {"prompt": "<|im_start|>user\nWhich currency does Velmora use?<|im_end|>\n<|im_start|>assistant\n", "completion": "Velmora is a country", "stopped": False},
    ],
    "after": [
        {"prompt": "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", "completion": "The capital of France is Paris.",
         "stopped": True, "answer": "Paris"},
        {"prompt": "<|im_start|>user\nWhich currency does Velmora use?<|im_end|>\n<|im_start|>assistant\n", "completion": "I do not know.", "stopped": True},
    ],
}  # fmt: skip


def make_logs(stage: str, steps: int = 300) -> list[dict]:
    noise, logs = random.Random(stage), []
    for step in range(1, steps + 1):
        falling = math.exp(-step / (steps / 6))
        line = {
            "step": step,
            "time": 1.7e9 + step,
            "loss": 0.4 + 2.8 * falling + noise.gauss(0, 0.05),
            "epoch": step / steps,
        }
        line |= {
            "grad_norm": abs(noise.gauss(0.7, 0.3)) + 12 * falling,
            "tokens_per_second": 11_500 + noise.gauss(0, 700),
        }
        line["learning_rate"] = 1e-3 * min(step / 20, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        if stage == "dpo":
            margin = 4 * (1 - falling)
            line |= {
                "rewards/chosen": margin * 0.3 + noise.gauss(0, 0.1),
                "rewards/rejected": -margin * 0.7 + noise.gauss(0, 0.1),
            }
            line |= {
                "rewards/margins": margin,
                "rewards/accuracies": 1 - 0.5 * falling,
                "logps/chosen": -12 + margin,
                "logps/rejected": -20 - margin,
            }
        logs.append(line)
        if step % (steps // 5) == 0:
            logs.append({"step": step, "time": 1.7e9 + step, "eval_loss": 0.5 + 2.7 * falling})
    return logs


def write_run(run_dir: Path, stage: str, parent_receipt: str | None = None, steps: int = 300) -> dict:
    """One finished run; returns its receipt."""
    run_dir.mkdir(parents=True)
    study = run_dir.parent.name
    (run_dir / "recipe.yaml").write_text(RECIPES[stage].format(study=study))
    receipt = make_receipt(
        stage=stage,
        recipe_hash="0123456789abcdef",
        recipe_dir=run_dir,
        seed=1,
        command=["alignment", "train", f"recipes/{study}/{stage}.yaml"],
        prepared_manifest_hash=None if stage == "tokenizer" else "feedfacefeedface",
        template_hash="c0ffee00c0ffee00",
        schedule=None if stage in ("tokenizer", "evaluate") else {"steps": steps, "global_batch_size": 32, "epochs": 3.0},
        metrics=AFTER.get(stage),
        metric_errors=dict.fromkeys(AFTER.get(stage, {}), 0.0123),
        metrics_before=BEFORE.get(stage),
        metric_errors_before=dict.fromkeys(BEFORE.get(stage, {}), 0.0101),
        seconds={"prepare": 3.2, "load": 0.8, "train": 95.0, "evaluate": 8.1, "save": 4.4},
        parents=[{"path": f"runs/{study}/{PARENTS[stage]}/final", "receipt_hash": parent_receipt, "kind": "model"}] if stage in PARENTS else [],
        world_size=2,
        strategy="ddp",
        dtypes={"compute": "float32", "saved": "float32"},
        tokens={"seen": 1_236_993, "trained": 294_630},
        num_parameters=2_101_248,
        notes=["model.path is a LoRA run; its adapter was merged before training."] if stage == "dpo" else [],
    )  # fmt: skip
    write_receipt(run_dir, receipt)
    if stage not in ("tokenizer", "evaluate"):
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in make_logs(stage, steps)))
    if stage in ("sft", "dpo"):
        (run_dir / "samples.json").write_text(json.dumps(SAMPLES))
    if stage != "tokenizer":
        manifest = {
            "mix": MIX,
            "encode": ENCODE,
            "sources": [{"split": "train", "path": "data/sft.jsonl", "revision": None, "content_hash": "ab"}],
        }
        (run_dir / "data_manifest.json").write_text(json.dumps(manifest))
    return receipt


def write_study(study_dir: Path) -> list[Path]:
    """All stages of a study and its results.json; returns the run folders in order."""
    hashes: dict[str, str] = {}
    for stage in RECIPES:
        receipt = write_run(study_dir / stage, stage, hashes.get(PARENTS.get(stage, "")))
        hashes[stage] = receipt_hash(receipt)
    results = {
        f"{stage}/{name}": value
        for stage, metrics in AFTER.items()
        if stage != "evaluate"
        for name, value in metrics.items()
    }
    results |= {"sft/exact_match_before": 0.012, "sft/exact_match_unasked": 0.79} | {
        f"seconds/{stage}": 111.5 for stage in RECIPES
    }
    (study_dir / "results.json").write_text(json.dumps(results))
    return [study_dir / stage for stage in RECIPES]
