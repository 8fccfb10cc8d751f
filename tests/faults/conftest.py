"""A study of tiny runs, made once a module; faults happen in ranks that are forked from this process."""

from pathlib import Path

import fault_runs as runs
import pytest

from alignment.launch import start
from alignment.launch.ranks import preload


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(start, "has_gpu", lambda: False)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """recipes/faults, and the finished runs of tokenizer and pretraining that the others start from."""
    root = tmp_path_factory.mktemp("faults")
    runs.write_study(root)
    preload(["pretrain", "sft", "reward", "dpo", "ppo"])
    for name in ("tokenizer", "pretrain"):
        assert runs.train(root, name, f"faults/{name}", whole=True) == 0
    return root


@pytest.fixture(scope="session")
def uninterrupted(study: Path):
    """Hash of the weights of a run to which nothing happened, by recipe, strategy and number of ranks."""
    known: dict[tuple, str] = {}

    def find(name: str, strategy: str | None = None, *overrides: str) -> str:
        key = (name, strategy, overrides)
        if key not in known:
            out = f"whole-{name}-{strategy}-{len(known)}"
            assert runs.train(study, name, out, *overrides, strategy=strategy) == 0
            known[key] = runs.final_hash(study, out)
        return known[key]

    return find
