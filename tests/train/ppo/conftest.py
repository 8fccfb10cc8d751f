"""The toy on disk, made once and copied by tests that train on it."""

import shutil
from pathlib import Path

import pytest
import toy_ppo


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory) -> Path:
    return toy_ppo.write_toy(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture
def toy(toy_folder, tmp_path) -> Path:
    """A copy of the toy."""
    folder = tmp_path / "toy"
    shutil.copytree(toy_folder, folder)
    return folder
