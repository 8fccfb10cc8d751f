"""Each way in which a launch becomes something else without a word is caught, on two real CPU ranks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from launch_faults import (
    change_rank_one,
    drop_shards,
    keep_gradients_apart,
    launch_without_shim,
    train_in_wrong_precision,
)
from tiny_training import train

from alignment.errors import LaunchError
from alignment.launch.check import hash_parameters
from alignment.launch.ranks import run_ranks


def fail(work: Callable[[Path], int], config: Path, out: Path, capfd: pytest.CaptureFixture) -> str:
    """What two ranks say that are refused."""
    code = run_ranks(lambda: work(out), config=config, num_processes=2, log_dir=out)
    assert code == LaunchError.code
    return capfd.readouterr().err + (out / "rank1.log").read_text()


@pytest.mark.parametrize(
    ("strategy", "arguments", "reason"),
    [
        ("ddp", {"use_cpu": False}, "2 processes were launched, accelerate sees 1; each would train on its own"),
        ("ddp", {"use_cpu": False, "ddp_backend": "gloo"}, "ddp was asked for, accelerate runs NO"),
        ("fsdp2", {"use_cpu": False}, "2 processes were launched, accelerate sees 1"),
        ("fsdp2", {"use_cpu": True}, "fsdp2 was asked for, accelerate runs MULTI_CPU"),
    ],
    ids=["ddp", "ddp-gloo", "fsdp2", "fsdp2-cpu"],
)
def test_without_the_shim_a_gpu_config_becomes_something_else(configs, tmp_path, capfd, strategy, arguments, reason):
    said = fail(
        lambda out: launch_without_shim(out, strategy, arguments), configs / f"{strategy}.yaml", tmp_path, capfd
    )
    assert reason in said


def test_a_precision_that_only_the_launcher_states_is_caught(configs, tmp_path, capfd):
    said = fail(train_in_wrong_precision, configs / "ddp.yaml", tmp_path, capfd)
    assert "the launcher's precision is bf16, the recipe's no" in said


def test_a_weight_that_is_whole_on_every_rank_is_caught(configs, tmp_path, capfd):
    said = fail(drop_shards, configs / "fsdp2.yaml", tmp_path, capfd)
    assert "1 of 22 parameters are whole on rank 0 (extra); shards were expected" in said


def test_ranks_that_start_from_different_weights_are_caught(configs, tmp_path, capfd):
    said = fail(change_rank_one, configs / "ddp.yaml", tmp_path, capfd)
    assert "before step 1 the weights of rank 1 are not those of rank 0" in said


def test_ranks_that_do_not_exchange_gradients_are_caught_after_the_first_step(configs, tmp_path, capfd):
    said = fail(keep_gradients_apart, configs / "ddp.yaml", tmp_path, capfd)
    assert "after step 1 the weights of rank 1 are not those of rank 0" in said


def test_one_process_passes(tmp_path):
    assert run_ranks(lambda: train(tmp_path), config=None, num_processes=1, log_dir=tmp_path) == 0


def test_another_stage_of_zero_is_caught(configs, tmp_path, capfd):
    said = fail(
        lambda out: launch_without_shim(out, "zero3", {"use_cpu": True}), configs / "zero2.yaml", tmp_path, capfd
    )
    assert "zero3 was asked for, DeepSpeed runs stage 2" in said


def make_layers(*values: list[float]) -> torch.nn.Module:
    return torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(row)) for row in values])


@pytest.mark.parametrize(
    "other",
    [([1.0, 2.0, 3.0], [4.0, 5.0000005]), ([2.0, 1.0, 3.0], [4.0, 5.0]), ([1.0, 2.0, 5.0], [4.0, 3.0])],
    ids=["one bit", "an exchange of neighbours", "an exchange between parameters"],
)
def test_the_hash_of_weights_tells_apart(other):
    assert not torch.equal(
        hash_parameters(make_layers([1.0, 2.0, 3.0], [4.0, 5.0])), hash_parameters(make_layers(*other))
    )


def test_the_hash_of_equal_weights_is_equal():
    weights = [1.0, 2.0, 3.0], [4.0, 5.0]
    assert torch.equal(hash_parameters(make_layers(*weights)), hash_parameters(make_layers(*weights)))
