"""A checkpoint counts when it is sealed, and is used when it is as it was sealed (S2 to S5)."""

import json
from pathlib import Path

import pytest

from alignment.train import seal


def make(folder: Path, step: int, *, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / f"global_step{step}").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (path / name).write_bytes(f"{name} {step}".encode() * 50)
    (path / f"global_step{step}/shard.pt").write_bytes(b"shard" * 9)
    if sealed:
        seal.seal(path, {"step": step})
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_manifest_names_every_file_and_what_it_is_told(tmp_path) -> None:
    manifest = seal.read_seal(make(tmp_path, 4))
    assert manifest["step"] == 4
    assert manifest["files"]["global_step4/shard.pt"]["bytes"] == 45
    assert len(manifest["files"]) == 6
    assert names(tmp_path / "checkpoint-4")[-3:] == ["scheduler.pt", "seal.json", "trainer_state.json"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "one flipped bit of the weights": ("model.safetensors", flip, "checksum differs"),
    "one flipped bit of the optimizer": ("optimizer.pt", flip, "checksum differs"),
    "one flipped bit of a shard": ("global_step4/shard.pt", flip, "checksum differs"),
    "cut weights": ("model.safetensors", lambda path: path.write_bytes(b"x" * 10), "has 10 bytes, 950 were sealed"),
    "no optimizer": ("optimizer.pt", Path.unlink, "optimizer.pt is missing"),
    "no scheduler": ("scheduler.pt", Path.unlink, "scheduler.pt is missing"),
    "no random numbers": ("rng_state.pth", Path.unlink, "rng_state.pth is missing"),
    "a manifest that is no JSON": ("seal.json", lambda path: path.write_text("{"), "seal.json cannot be read"),
    "no seal": ("seal.json", Path.unlink, "was not sealed"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(tmp_path, caplog, damage) -> None:
    good, bad = make(tmp_path, 2), make(tmp_path, 4)
    file, spoil, said = DAMAGE[damage]
    spoil(bad / file)
    assert seal.find_newest(tmp_path) == good
    assert said in caplog.text
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4.broken"]
    assert len(names(tmp_path / "checkpoint-4.broken")) >= 6  # nothing of it was deleted


def test_stray_folders_are_ignored_with_a_line(tmp_path, caplog) -> None:
    good = make(tmp_path, 2)
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert seal.find_newest(tmp_path) == good
    assert "checkpoint of step 9 is not used" in caplog.text
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-7", "checkpoint-9.broken", "checkpoint-best"]


def test_the_order_is_that_of_steps_and_a_second_broken_one_gets_its_own_name(tmp_path) -> None:
    make(tmp_path, 10)
    make(tmp_path, 9)
    assert seal.find_newest(tmp_path).name == "checkpoint-10"
    for _ in range(2):
        make(tmp_path, 12, sealed=False)
        assert seal.find_newest(tmp_path).name == "checkpoint-10"
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-12.broken", "checkpoint-12.broken-1", "checkpoint-9"]


def test_without_any_that_verifies_there_is_none(tmp_path) -> None:
    flip(make(tmp_path, 2) / "model.safetensors")
    assert seal.find_newest(tmp_path) is None
    assert seal.find_newest(tmp_path / "absent") is None


def test_rotation_counts_sealed_ones_only_and_spares_the_best(tmp_path) -> None:
    for step in (2, 4, 6, 8):
        make(tmp_path, step)
    make(tmp_path, 10, sealed=False)
    seal.rotate(tmp_path, 2, spared=tmp_path / "checkpoint-2")
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-2", "checkpoint-6", "checkpoint-8"]
    seal.rotate(tmp_path, 1)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-8"]


def test_the_last_good_one_stays_whatever_is_asked(tmp_path) -> None:
    make(tmp_path, 2)
    make(tmp_path, 4, sealed=False)
    seal.rotate(tmp_path, 0)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4"]


def test_what_a_killed_rotation_left_is_cleared_by_the_next(tmp_path) -> None:
    make(tmp_path, 2).rename(tmp_path / "checkpoint-2.removed")
    make(tmp_path, 4)
    assert seal.find_newest(tmp_path).name == "checkpoint-4"
    seal.rotate(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-4"]


def test_a_seal_of_another_format_is_not_trusted(tmp_path) -> None:
    path = make(tmp_path, 2) / seal.SEAL
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    assert seal.find_damage(tmp_path / "checkpoint-2") == "seal.json cannot be read"
