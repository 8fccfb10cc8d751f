"""Ranks are forked from this process, which other tests may have given a thread pool: each gets one thread."""

from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "accelerate_configs"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def configs() -> Path:
    return CONFIGS
