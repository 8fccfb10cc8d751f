"""`alignment run --push ORG`: every model of a study is published, and a failure never fails the training."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from local_hub import TOKEN, LocalHub

from alignment.commands.push import push_runs


@pytest.fixture(autouse=True)
def the_only_hub(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What HF_ENDPOINT and HF_TOKEN do for a process."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("alignment.hub.publish.FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def study(finished_run: Path) -> list[Path]:
    """A tokenizer without weights, and two models."""
    tokenizer, again = finished_run.with_name("tokenizer"), finished_run.with_name("dpo")
    (tokenizer / "final").mkdir(parents=True)
    (tokenizer / "final" / "tokenizer.json").write_text("{}")
    shutil.copytree(finished_run, again)
    return [tokenizer, finished_run, again]


def test_each_model_gets_a_repository_of_its_study_and_recipe(hub: LocalHub, study: list[Path]) -> None:
    assert push_runs(study, "org") == 0
    assert set(hub.repositories) == {"org/study-sft", "org/study-dpo"}
    assert all(repository.private and repository.tags for repository in hub.repositories.values())


def test_a_failure_is_said_and_the_others_are_published(
    hub: LocalHub, study: list[Path], capsys: pytest.CaptureFixture
) -> None:
    hub.faults["create"] = [400]
    assert push_runs(study, "org") == 6
    assert "Try again: alignment push" in capsys.readouterr().err
    assert set(hub.repositories) == {"org/study-dpo"}
    assert (study[1] / "final" / "model.safetensors").is_file()
