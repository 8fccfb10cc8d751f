"""Publishing through the unmodified client: idempotent, compared, tagged last, whatever the network does."""

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from local_hub import LocalHub

from alignment.errors import ArtifactError, PublishError, RecipeError
from alignment.hub.publish import ATTEMPTS, publish_run

ID = "org/study-sft"
WANTED = {
    ".eval_results/org--held-out.yaml", ".gitattributes", "README.md", "config.json", "generation_config.json", "model.safetensors",
    "receipt.json", "recipe.yaml", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


class Pauses(list):
    """Waits for nothing and remembers for how long it was asked to."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def publish(run: Path, api: HfApi, pauses: Pauses | None = None, **options):
    return publish_run(run, ID, api=api, pause=pauses if pauses is not None else Pauses(), **options)


def test_a_result_arrives_whole_private_and_tagged(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    done = publish(finished_run, api)
    repository = hub.repositories[ID]
    assert repository.private
    assert set(repository.files()) == WANTED
    for name in ("model.safetensors", "config.json"):
        assert repository.files()[name].data == (finished_run / "final" / name).read_bytes()
    assert repository.tags == {done.tag: done.commit}
    assert repository.branches["main"] == done.commit
    assert not list(finished_run.glob(".push-*"))


def test_what_was_published_can_be_downloaded_as_it_was(
    hub: LocalHub, api: HfApi, finished_run: Path, tmp_path: Path
) -> None:
    done = publish(finished_run, api)
    folder = Path(api.snapshot_download(ID, revision=done.tag, cache_dir=tmp_path / "cache"))
    assert (folder / "model.safetensors").read_bytes() == (finished_run / "final" / "model.safetensors").read_bytes()


def test_the_same_again_makes_no_commit(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    first = publish(finished_run, api)
    second = publish(finished_run, api)
    assert (first.is_new, second.is_new) == (True, False)
    assert (first.commit, first.tag) == (second.commit, second.tag)
    assert len(hub.repositories[ID].titles) == 2  # the first and ours


def test_public_and_a_branch_are_asked_for(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    done = publish(finished_run, api, public=True, revision="candidate")
    repository = hub.repositories[ID]
    assert not repository.private
    assert set(repository.files("main")) == {".gitattributes"}
    assert repository.branches["candidate"] == done.commit
    assert repository.tags == {done.tag: done.commit}


def test_a_public_repository_is_not_written_to_unasked(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    api.create_repo(ID, private=False)
    with pytest.raises(PublishError, match="the repository is public"):
        publish(finished_run, api)
    assert set(hub.repositories[ID].files()) == {".gitattributes"}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("create", 503),
        ("preupload", 429),
        ("batch", 503),
        ("commit", 503),
        ("commit", 429),
        ("tree", 503),
        ("tag", 429),
    ],
)
def test_a_busy_hub_is_asked_again(hub: LocalHub, api: HfApi, finished_run: Path, kind: str, fault: int) -> None:
    hub.faults[kind] = [fault]
    done = publish(finished_run, api)
    assert hub.faults[kind] == []
    assert set(hub.repositories[ID].files()) == WANTED
    assert hub.repositories[ID].tags[done.tag] == done.commit


def test_it_waits_at_least_as_long_as_the_hub_asks(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    hub.faults["commit"] = [503, 503]
    pauses = Pauses()
    publish(finished_run, api, pauses)
    assert pauses == [2.0, 4.0]


@pytest.mark.parametrize("kind", ["preupload", "put", "commit", "tree"])
def test_a_dropped_connection_is_made_again(hub: LocalHub, api: HfApi, finished_run: Path, kind: str) -> None:
    hub.faults[kind] = ["drop"]
    publish(finished_run, api)
    assert set(hub.repositories[ID].files()) == WANTED


def test_a_commit_whose_reply_was_lost_is_not_made_twice(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    hub.faults["commit"] = ["drop_after"]
    done = publish(finished_run, api)
    assert len(hub.repositories[ID].titles) == 2
    assert hub.repositories[ID].tags == {done.tag: done.commit}


def test_a_slow_hub_is_waited_for(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    hub.faults["put"] = ["slow"]
    publish(finished_run, api)
    assert set(hub.repositories[ID].files()) == WANTED


def test_a_hub_that_stays_away_fails_without_a_tag_and_the_same_command_goes_on(
    hub: LocalHub, api: HfApi, finished_run: Path
) -> None:
    hub.faults["commit"] = [503] * ATTEMPTS
    with pytest.raises(PublishError, match="has not got what was sent"):
        publish(finished_run, api)
    assert hub.repositories[ID].tags == {}
    assert publish(finished_run, api).is_new


def test_bytes_that_changed_on_the_way_are_noticed_and_never_tagged(
    hub: LocalHub, api: HfApi, finished_run: Path
) -> None:
    hub.corrupt = True
    with pytest.raises(PublishError, match=r"model\.safetensors \(other content\)"):
        publish(finished_run, api)
    assert hub.repositories[ID].tags == {}


def test_shards_of_an_earlier_result_go_and_a_persons_own_files_stay(
    hub: LocalHub, api: HfApi, finished_run: Path
) -> None:
    api.create_repo(ID, private=True)
    for name in ("model-00001-of-00002.safetensors", "logo.png"):
        api.upload_file(path_or_fileobj=b"old", path_in_repo=name, repo_id=ID)
    publish(finished_run, api)
    assert set(hub.repositories[ID].files()) == WANTED | {"logo.png"}


def test_a_token_that_may_not_write_is_said_at_once(hub: LocalHub, finished_run: Path) -> None:
    pauses = Pauses()
    with pytest.raises(PublishError, match="the model is safe in"):
        publish(finished_run, HfApi(endpoint=hub.url, token="hf_" + "b" * 34), pauses)
    assert pauses == []


def test_a_name_that_is_none_is_refused_before_anything_is_read(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ORG/NAME was expected"):
        publish_run(tmp_path, "just-a-name", api=api)


def test_only_a_verified_result_is_published(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    weights = finished_run / "final" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtifactError, match="not those that were verified"):
        publish(finished_run, api)
    (finished_run / "exit.json").write_text(json.dumps({"code": 4}))
    with pytest.raises(ArtifactError, match="not finished"):
        publish(finished_run, api)
    assert hub.repositories == {}


def test_the_card_there_names_the_hub_and_holds_the_results(hub: LocalHub, api: HfApi, finished_run: Path) -> None:
    publish(finished_run, api)
    card = ModelCard(hub.repositories[ID].files()["README.md"].data.decode())
    assert f'from_pretrained("{ID}")' in card.text
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "exact_match": 0.875,
        "stops": 0.99,
    }
    assert card.data.base_model == "org/base"
    results = hub.repositories[ID].files()[".eval_results/org--held-out.yaml"].data.decode()
    assert "id: org/held-out" in results
    assert "value: 0.875" in results
    assert "at most 0.144 kWh (2 x 72 W" in card.text


def test_the_xet_path_arrives_whole_through_a_local_store(
    api: HfApi, hub: LocalHub, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.xet = f"local://{tmp_path / 'xet'}"
    (tmp_path / "xet").mkdir()
    done = publish(finished_run, api)
    assert set(hub.repositories[ID].files()) == WANTED
    assert hub.repositories[ID].tags == {done.tag: done.commit}
    assert not any("/large/" in call for call in hub.calls)
    assert sum(path.stat().st_size for path in (tmp_path / "xet").rglob("*") if path.is_file()) > 1000
    assert publish(finished_run, api).is_new is False
