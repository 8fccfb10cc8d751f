"""Rank, strategy and device as the launchers' variables say them. Which variables those are, accelerate's own code says here too."""

import os
from pathlib import Path

import pytest

from alignment.errors import LaunchError
from alignment.launch import cpu_shim, environment
from alignment.launch.environment import LaunchEnvironment, num_threads, settle_environment
from alignment.launch.rank_variables import make_rank_variables


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sets variables for one test; none of a launcher is left of what there was."""
    for name in list(os.environ):
        if name.startswith(("ACCELERATE_", "FSDP_")) or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(environment, "has_gpu", lambda: False)
    # The shim changes accelerate for the whole process; test_run_ranks.py has it at work.
    monkeypatch.setattr(cpu_shim, "use_cpu_ranks", lambda strategy: None)
    return monkeypatch


def be_rank(variables: pytest.MonkeyPatch, **further: str) -> None:
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", **further}.items():
        variables.setenv(name, value)


def test_without_a_launcher_there_is_one_process(variables):
    assert settle_environment() == LaunchEnvironment(0, 0, 1, True, "single")


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_the_variables_that_accelerate_sets_for_a_config_are_understood(variables, configs, strategy):
    rank = make_rank_variables(configs / f"{strategy}.yaml", 2)[1]
    for name, value in rank.items():
        variables.setenv(name, value)
    assert settle_environment() == LaunchEnvironment(1, 1, 2, True, strategy)


def test_a_rank_of_several_machines_knows_its_place(variables):
    be_rank(variables, GROUP_WORLD_SIZE="2")
    expected = LaunchEnvironment(rank=3, local_rank=1, world_size=4, cpu=True, strategy="ddp", num_machines=2)
    assert settle_environment() == expected


def test_on_gpus_the_shim_is_not_used(variables):
    be_rank(variables)
    variables.setattr(environment, "has_gpu", lambda: True)
    variables.setattr(cpu_shim, "use_cpu_ranks", lambda strategy: pytest.fail("the shim was used"))
    assert settle_environment().cpu is False


def test_plain_ddp_on_cpu_ranks_uses_the_path_that_accelerate_has_for_it(variables):
    variables.undo()
    variables.setenv("ACCELERATE_USE_CPU", "false")
    cpu_shim.use_cpu_ranks("ddp")
    assert os.environ["ACCELERATE_USE_CPU"] == "true"


@pytest.mark.parametrize(
    ("further", "reason"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP_VERSION: 1; 2 was expected"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "zero_stage: 0"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3_save_16bit_model: false"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": "a.json"}, "deepspeed_config_file"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM"),
        ({"WORLD_SIZE": "four"}, "WORLD_SIZE: 'four'; a whole number was expected"),
    ],
)
def test_a_launch_that_is_none_of_ours_is_refused(variables, further, reason):
    be_rank(variables, **further)
    with pytest.raises(LaunchError, match=reason):
        settle_environment()


@pytest.mark.parametrize(
    ("kind", "options"), [("MULTI_CPU", []), ("NO", []), ("NO", ["--cpu"])], ids=["MULTI_CPU", "NO", "--cpu"]
)
def test_accelerate_starting_one_process_for_two_is_refused(variables, tmp_path: Path, kind, options):
    """accelerate 1.15 says nothing. What it gives its one process is asked of its own code."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    (tmp_path / "config.yaml").write_text(
        f"distributed_type: '{kind}'\nnum_processes: 2\nnum_machines: 1\nuse_cpu: true\n"
    )
    options = ["--config_file", str(tmp_path / "config.yaml"), *options, "-m", "alignment"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(options))
    # So launch_command takes its simple launcher.
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == (False, False, False)
    for name, value in prepare_simple_launcher_cmd_env(args)[1].items():
        variables.setenv(name, value)
    with pytest.raises(LaunchError, match="was asked for several processes and started one"):
        settle_environment()


def test_a_world_size_without_a_rank_is_refused(variables):
    variables.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="WORLD_SIZE is 2 and LOCAL_RANK is not set"):
        settle_environment()


def test_an_address_that_a_batch_script_exports_is_no_lost_launch(variables):
    variables.setenv("MASTER_ADDR", "node-1")
    assert settle_environment().strategy == "single"


def test_no_gpu_is_in_sight_when_none_is_made_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment.has_gpu() is False


def test_one_process_takes_the_first_of_the_visible_gpus(variables):
    variables.setattr(environment, "_has_gpu_device", lambda: True)
    variables.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    settle_environment()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_ranks_share_the_cores_and_never_exceed_what_the_user_set(monkeypatch):
    monkeypatch.setattr(environment, "num_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [num_threads(1), num_threads(3), num_threads(16)] == [8, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [num_threads(1), num_threads(8)] == [3, 1]


def test_two_environments_do_not_build_over_each_other(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = environment.extensions_folder()
    monkeypatch.setattr(environment.sys, "prefix", str(tmp_path / "venv"))
    assert environment.extensions_folder() != here
    assert environment.extensions_folder().is_relative_to(tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "named"))
    assert environment.extensions_folder() == tmp_path / "named"
