"""A study of real, tiny runs, made once; each test that changes something works on a copy."""

import shutil
from pathlib import Path

import pytest
import study as written


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory) -> Path:
    """A folder with study/ and runs/study/{tokenizer,pretrain,sft}; sft is a merged LoRA run."""
    return written.make_finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def study(finished_study, tmp_path, monkeypatch) -> Path:
    """A copy of the finished study as the current folder."""
    folder = tmp_path / "work"
    shutil.copytree(finished_study, folder)
    monkeypatch.chdir(folder)
    return folder
