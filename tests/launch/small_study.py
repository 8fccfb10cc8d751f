"""A study of three recipes, and a worker that trains nothing: it leaves in the run folder what a real stage leaves."""

import os
from pathlib import Path

from alignment.data.sources import find_source
from alignment.launch.environment import settle_environment
from alignment.launch.inputs import named_sources
from alignment.launch.request import TrainRequest
from alignment.recipe.loader import load_recipe
from alignment.recipe.resolved import recipe_hash
from alignment.report.parents import describe_parents
from alignment.report.receipt import make_receipt, write_receipt
from alignment.train.run_folder import judge_run, set_aside, write_exit, write_start

RECIPES = {
    "tokenizer": "stage: tokenizer\ntokenizer:\n  algorithm: bpe\n  vocab_size: 300\ndata:\n  train:\n"
    "    - path: data/text.jsonl\n      format: text\n",
    "pretrain": "stage: pretrain\nmodel:\n  config:\n    model_type: llama\n    hidden_size: 32\n    intermediate_size: 64\n"
    "    num_hidden_layers: 2\n    num_attention_heads: 4\ntokenizer:\n  path: runs/small/tokenizer/final\ndata:\n  train:\n"
    "    - path: data/text.jsonl\n      format: text\ntrain:\n  max_steps: 2\n  learning_rate: 1.0e-3\n",
    "sft": "stage: sft\nmodel:\n  path: runs/small/pretrain/final\nchat:\n  template: chatml\ndata:\n  train:\n"
    "    - path: data/chats.jsonl\n      format: messages\ntrain:\n  max_steps: 2\n  learning_rate: 1.0e-3\n",
}
METRICS = {
    "tokenizer": ({"bytes_per_token": 3.5}, {}),
    "pretrain": ({"bits_per_byte": 1.1, "recall": 0.9}, {"bits_per_byte": 8.0, "unlisted": 1.0}),
    "sft": ({"exact_match": 0.8, "exact_match/capital": 0.7}, {"exact_match": 0.1, "exact_match/capital": 0.0}),
}
STUDY = Path("recipes/small")


def write_study(root: Path) -> Path:
    """recipes/small below `root`, with its data; returns the folder."""
    folder = root / STUDY
    (folder / "data").mkdir(parents=True)
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "pipeline.yaml").write_text("stages:\n" + "".join(f"  - {name}.yaml\n" for name in RECIPES))
    (folder / "data/text.jsonl").write_text('{"text": "a"}\n')
    (folder / "data/chats.jsonl").write_text('{"messages": []}\n')
    return folder


def pretend_to_train(request: TrainRequest) -> int:
    """The work of one rank. A file fail-STAGE in the current folder makes that stage end with its content as the exit code."""
    environment = settle_environment()
    if environment.rank:
        return 0
    recipe, run_dir = load_recipe(request.recipe_path), request.run_dir
    if request.fresh:
        set_aside(run_dir)
    how = judge_run(recipe, run_dir)
    with open("trained.txt", "a") as file:
        file.write(f"{run_dir.name} {how} on {environment.world_size}\n")
    if how == "done":
        return 0
    run_dir.mkdir(parents=True, exist_ok=True)
    write_start(run_dir, recipe, {"sources": _describe_sources(recipe, request.recipe_path.parent)})
    failure = Path(f"fail-{run_dir.name}")
    if failure.exists():
        return int(failure.read_text())
    (run_dir / "final").mkdir(exist_ok=True)
    after, before = METRICS[run_dir.name]
    receipt = make_receipt(
        stage=recipe.stage,
        recipe_hash=recipe_hash(recipe),
        recipe_dir=request.recipe_path.parent,
        seed=recipe.seed,
        metrics=after,
        metrics_before=before,
        seconds={"train": 1.0, "total": 2.5},
        parents=describe_parents(recipe),
        notes=[str(os.getpid())],  # no two receipts are alike, as those of real runs
    )
    write_receipt(run_dir, receipt)
    write_exit(run_dir, 0, "done", "")
    return 0


def _describe_sources(recipe, recipe_dir: Path) -> list[dict]:
    found = [(split, find_source(spec, recipe_dir, "train")) for split, spec in named_sources(recipe)]
    return [
        {"split": split, "path": one.spec.path, "revision": one.revision, "content_hash": one.content_hash}
        for split, one in found
    ]


def read_trained() -> list[str]:
    """What was trained so far, and how, in order."""
    path = Path("trained.txt")
    return path.read_text().splitlines() if path.exists() else []
