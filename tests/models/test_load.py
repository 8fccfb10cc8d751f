import json

import pytest

from alignment.errors import ArtifactError
from alignment.models.load import read_base, resolve_start


def make_model_folder(folder) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def make_adapter_folder(folder, base: str, facts: dict | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "revision": None}))
    if facts:
        (folder / "base.json").write_text(json.dumps(facts))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_folder_means_its_final(here) -> None:
    make_model_folder(here / "runs/s/a/final")
    (here / "runs/s/a/recipe.yaml").write_text("")
    for path in ("runs/s/a", "runs/s/a/final"):
        start = resolve_start(path)
        assert (start.model, start.adapter, start.trained_adapter) == ("runs/s/a/final", None, None)
        assert str(start.run_dir) == "runs/s/a"


def test_a_merged_lora_run_remembers_its_adapter(here) -> None:
    make_model_folder(here / "runs/s/a/final")
    (here / "runs/s/a/recipe.yaml").write_text("")
    make_adapter_folder(here / "runs/s/a/adapter", "org/base")
    start = resolve_start("runs/s/a/final")
    assert (start.adapter, str(start.trained_adapter)) == (None, "runs/s/a/adapter")


def test_an_adapter_folder_is_its_base_and_the_adapter(here) -> None:
    make_adapter_folder(here / "a", "org/base")
    start = resolve_start("a")
    assert (start.model, str(start.adapter)) == ("org/base", "a")


def test_a_name_that_is_no_folder_is_a_hub_id_unless_it_looks_like_one(here) -> None:
    assert resolve_start("org/model", "main").revision == "main"
    for path in ("runs/s/a/final", "./model", "a/b/c"):
        with pytest.raises(ArtifactError, match="no such folder"):
            resolve_start(path)


def test_an_unfinished_folder_is_refused(here) -> None:
    (here / "runs").mkdir()
    with pytest.raises(ArtifactError, match=r"neither config\.json nor adapter_config\.json"):
        resolve_start("runs")


def test_an_adapter_without_its_base_is_refused(here) -> None:
    make_adapter_folder(here / "a", "runs/gone/final", {"local": True})
    with pytest.raises(ArtifactError, match="its base runs/gone/final is not there"):
        read_base(here / "a")
    make_adapter_folder(here / "b", "")
    with pytest.raises(ArtifactError, match="names no base_model_name_or_path"):
        read_base(here / "b")
