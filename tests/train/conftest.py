"""A study of real, tiny runs, made once; each test that changes something works on a copy."""

import shutil
from pathlib import Path

import pytest
import study as written


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory) -> Path:
    """A folder with study/ and runs/study/{tokenizer,pretrain,sft}; sft is a merged LoRA run."""
    folder = tmp_path_factory.mktemp("finished")
    written.write_study(folder)
    written.write_recipe(folder, "sft", written.CHAT.format(lora=written.LORA, steps=10))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("tokenizer", "pretrain", "sft"):
            assert written.run(name) == 0
    return folder


@pytest.fixture
def study(finished_study, tmp_path, monkeypatch) -> Path:
    """A copy of the finished study as the current folder."""
    folder = tmp_path / "work"
    shutil.copytree(finished_study, folder)
    monkeypatch.chdir(folder)
    return folder
