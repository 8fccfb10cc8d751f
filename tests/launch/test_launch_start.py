"""`launch`: which processes a request becomes, the command on GPUs, and the exit code that comes back."""

import json
import sys
from pathlib import Path

import pytest

from alignment.errors import LaunchError, RecipeError
from alignment.launch import restarts, start
from alignment.launch.configs import find_config
from alignment.launch.request import TrainRequest
from alignment.launch.start import launch, launch_processes, make_command
from alignment.recipe.loader import load_recipe
from alignment.train.run_folder import EXIT, write_start

SFT = """stage: sft
model:
  path: runs/study/pretrain/final
data:
  train:
    - path: rows.jsonl
      format: messages
train:
  max_steps: 2
  learning_rate: 1.0e-3
  bf16: {bf16}
"""
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with recipes/study/sft.yaml."""
    monkeypatch.chdir(tmp_path)
    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    write_recipe(tmp_path)
    return tmp_path


def write_recipe(folder: Path, bf16: str = "false") -> Path:
    path = folder / "recipes/study/sft.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SFT.format(bf16=bf16))
    return path


def command(request: TrainRequest, config: str | None) -> list[str]:
    recipe = load_recipe(request.recipe_path, request.overrides)
    return make_command(request, recipe, find_config(config) if config else None)


# ------------------------------------------------------------------------------------------------ the command


def test_on_gpus_the_launcher_gets_the_config_and_the_stage_its_options(study, configs):
    request = TrainRequest(
        Path("recipes/study/sft.yaml"),
        overrides=("train.max_steps=3", "seed=4"),
        out=Path("runs/other"),
        accelerate_config="zero3",
        num_processes=4,
        num_machines=2,
        report_to="trackio",
        fresh=True,
        accelerate_args=("--machine_rank", "1"),
    )
    expected = [*LAUNCHER, str(find_config("zero3").path), "--num_processes", "4", "--num_machines", "2"]
    expected += ["--mixed_precision", "no", "--machine_rank", "1", "-m", "alignment", "train", "recipes/study/sft.yaml"]
    expected += [
        "--set",
        "train.max_steps=3",
        "--set",
        "seed=4",
        "--out",
        "runs/other",
        "--report_to",
        "trackio",
        "--fresh",
    ]
    assert command(request, "zero3") == expected


def test_what_is_not_asked_for_is_left_to_the_config(study):
    expected = [*LAUNCHER, str(find_config("ddp").path), "--mixed_precision", "no", "-m", "alignment", "train"]
    assert command(TrainRequest(Path("recipes/study/sft.yaml")), "ddp") == [*expected, "recipes/study/sft.yaml"]


def test_precision_comes_from_the_recipe(study):
    write_recipe(study, bf16="true")
    found = command(TrainRequest(Path("recipes/study/sft.yaml")), "fsdp2")
    assert found[found.index("--mixed_precision") + 1] == "bf16"


def test_a_fresh_process_without_a_config_needs_no_launcher(study):
    found = command(TrainRequest(Path("recipes/study/sft.yaml"), report_to="wandb"), None)
    assert found == [sys.executable, "-m", "alignment", "train", "recipes/study/sft.yaml", "--report_to", "wandb"]


def test_accelerate_and_our_own_command_line_take_the_command(study, configs):
    """Parsed by accelerate's own parser and by ours, nothing is left over."""
    from accelerate.commands.launch import launch_command_parser

    from alignment.cli import _parse, _Parser
    from alignment.commands import train

    request = TrainRequest(Path("recipes/study/sft.yaml"), overrides=("seed=4",), out=Path("runs/x"), num_processes=2)
    found = launch_command_parser().parse_args(command(request, "ddp")[3:])
    assert (found.module, found.training_script, found.num_processes) == (True, "alignment", 2)
    parser = _Parser()
    train.add_arguments(parser)
    args = _parse(parser, found.training_script_args[1:])
    assert (args.recipe, args.overrides, args.out) == (request.recipe_path, ["seed=4"], Path("runs/x"))


# ------------------------------------------------------------------------------------------------ which processes


@pytest.fixture
def started(study, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `launch` starts, by name, in place of starting it."""
    said: list[str] = []
    monkeypatch.setattr(start, "has_gpu", lambda: False)
    for name in ("run_worker", "launch_ranks", "launch_processes"):
        monkeypatch.setattr(start, name, lambda *arguments, name=name: said.append(name) or 0)
    return said


RECIPE = Path("recipes/study/sft.yaml")


@pytest.mark.parametrize("request_", [TrainRequest(RECIPE), TrainRequest(RECIPE, num_processes=1)])
def test_one_process_is_this_one(started, request_):
    assert launch(request_) == 0
    assert started == ["run_worker"]


@pytest.mark.parametrize(
    "request_", [TrainRequest(RECIPE, num_processes=2), TrainRequest(RECIPE, accelerate_config="zero3")]
)
@pytest.mark.parametrize(("gpu", "expected"), [(False, "launch_ranks"), (True, "launch_processes")])
def test_several_are_ranks_on_a_cpu_and_processes_on_gpus(started, monkeypatch, request_, gpu, expected):
    monkeypatch.setattr(start, "has_gpu", lambda: gpu)
    assert launch(request_) == 0
    assert started == [expected]


def test_a_recipe_with_a_mistake_starts_nothing(started):
    RECIPE.write_text(RECIPE.read_text() + "  learning_rat: 1\n")
    with pytest.raises(RecipeError, match="learning_rat"):
        launch(TrainRequest(RECIPE, num_processes=2))
    assert started == []


def test_arguments_for_accelerate_need_a_launcher(started):
    with pytest.raises(RecipeError, match="arguments for accelerate launch, and one process needs none"):
        launch(TrainRequest(RECIPE, accelerate_args=("--debug",)))


def test_several_machines_need_the_launcher_on_a_cpu_too(started, monkeypatch):
    monkeypatch.setattr(start, "has_gpu", lambda: False)
    assert launch(TrainRequest(RECIPE, num_processes=4, num_machines=2)) == 0
    assert started == ["launch_processes"]


def test_an_outer_launcher_that_says_something_else_is_refused(study, monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "false"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match="zero3, and this process was launched as a rank of ddp"):
        launch(TrainRequest(RECIPE, accelerate_config="zero3"))
    with pytest.raises(LaunchError, match="--num_processes: 4, and 2 processes were launched"):
        launch(TrainRequest(RECIPE, num_processes=4))


# ------------------------------------------------------------------------------------------------ CPU ranks


def work_as(monkeypatch: pytest.MonkeyPatch, work) -> None:
    """`work(request)` in the place of the real worker; the ranks are real."""
    monkeypatch.setattr(start, "has_gpu", lambda: False)
    monkeypatch.setattr(start, "run_worker", work)


def test_no_more_cpu_ranks_than_cores_unless_they_are_asked_for(study, monkeypatch):
    def work(request: TrainRequest) -> int:
        import os

        (study / f"rank{os.environ['RANK']}of{os.environ['WORLD_SIZE']}").touch()
        return 0

    work_as(monkeypatch, work)
    monkeypatch.setattr(start, "num_cores", lambda: 2)
    assert launch(TrainRequest(RECIPE, accelerate_config="ddp")) == 0
    assert sorted(path.name for path in study.glob("rank*")) == ["rank0of2", "rank1of2"]
    assert launch(TrainRequest(RECIPE, accelerate_config="ddp", num_processes=3)) == 0
    assert (study / "rank2of3").exists()


@pytest.mark.parametrize(
    ("rank_0_says", "code", "reason"), [(4, 4, "said by rank 0"), (None, 5, "rank 0 did not say how the run ended")]
)
def test_one_of_several_machines_waits_for_the_word_of_rank_0(study, monkeypatch, rank_0_says, code, reason):
    path = study / "runs/study/sft" / EXIT
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"code": 75}))
    says = f"open({str(path)!r}, 'w').write({json.dumps({'code': rank_0_says, 'reason': 'said by rank 0'})!r})"
    child = f"{says if rank_0_says else 'pass'}; raise SystemExit(1)"  # accelerate's launcher turns everything into 1
    monkeypatch.setattr(start, "make_command", lambda *_: [sys.executable, "-c", child])
    monkeypatch.setattr(start, "has_gpu", lambda: False)
    monkeypatch.setattr(restarts, "RANK_0_SECONDS", 0.3)
    recipe = load_recipe(RECIPE)
    assert launch_processes(TrainRequest(RECIPE, num_processes=4, num_machines=2), recipe, find_config("ddp")) == code
    ended = json.loads(path.read_text())
    assert ended["code"] == code
    assert ended["reason"].startswith(reason)


@pytest.mark.parametrize("removes", [False, True], ids=["before it began", "when it had begun"])
def test_a_lost_rank_is_written_where_rank_0_could_not(study, monkeypatch, removes):
    old = study / "runs/study/sft" / EXIT
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"code": 75}))

    def work(request: TrainRequest) -> int:
        import os
        import time

        if os.environ["RANK"] == "0":
            if removes:
                old.unlink()
            time.sleep(30)
        return 4

    work_as(monkeypatch, work)
    assert launch(TrainRequest(RECIPE, num_processes=2, command=("alignment", "train", "x"))) == 4
    ended = json.loads((study / "runs/study/sft" / EXIT).read_text())
    assert (ended["code"], ended["resume_command"]) == (4, "alignment train x")
    assert "runs/study/sft/logs" in ended["reason"]


def test_another_recipe_in_the_folder_is_refused_before_any_rank_starts(study, monkeypatch):
    work_as(monkeypatch, lambda request: pytest.fail("a rank was started"))
    recipe = load_recipe(RECIPE, ["seed=9"])
    Path("runs/study/sft").mkdir(parents=True)
    write_start(Path("runs/study/sft"), recipe, {})
    with pytest.raises(RecipeError, match="seed: 9 there, 0 here"):
        launch(TrainRequest(RECIPE, num_processes=2))


def test_fresh_sets_the_folder_aside_before_the_ranks_write_logs_into_it(study, monkeypatch):
    work_as(monkeypatch, lambda request: 1 if request.fresh else 0)
    Path("runs/study/sft").mkdir(parents=True)
    write_start(Path("runs/study/sft"), load_recipe(RECIPE, ["seed=9"]), {})
    assert launch(TrainRequest(RECIPE, num_processes=2, fresh=True)) == 0
    assert Path("runs/study/sft.old-1/recipe.yaml").is_file()
    assert Path("runs/study/sft/logs/rank1.log").is_file()


# ------------------------------------------------------------------------------------------------ fresh processes


def run_processes(study: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> int:
    """`launch_processes` with a Python program in the place of accelerate."""
    monkeypatch.setattr(start, "make_command", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr(start, "_check_gpus", lambda *_: 2)
    request = TrainRequest(RECIPE, accelerate_config="ddp")
    return launch_processes(request, load_recipe(RECIPE), find_config("ddp"))


WRITE = "import json, pathlib, sys; pathlib.Path('runs/study/sft').mkdir(parents=True, exist_ok=True); "
WRITE += "pathlib.Path('runs/study/sft/exit.json').write_text(json.dumps({'code': %d})); sys.exit(1)"


def test_the_exit_code_is_the_one_that_rank_0_wrote(study, monkeypatch):
    assert run_processes(study, monkeypatch, WRITE % 4) == 4


def test_an_exit_code_of_an_earlier_command_is_not_taken_for_this_one(study, monkeypatch):
    Path("runs/study/sft").mkdir(parents=True)
    (Path("runs/study/sft") / EXIT).write_text(json.dumps({"code": 75}))
    assert run_processes(study, monkeypatch, "import sys; sys.exit(1)") == LaunchError.code
    assert json.loads(Path("runs/study/sft", EXIT).read_text())["code"] == LaunchError.code


def test_success_is_success(study, monkeypatch):
    assert run_processes(study, monkeypatch, "") == 0


def test_a_signal_that_we_did_not_send_is_a_lost_process(study, monkeypatch):
    assert run_processes(study, monkeypatch, "import os; os.kill(os.getpid(), 9)") == LaunchError.code


def test_more_processes_than_gpus_are_refused(study, monkeypatch):
    import torch

    monkeypatch.setattr(start, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(LaunchError, match="4 GPUs are visible here; one GPU a process was expected"):
        launch_processes(TrainRequest(RECIPE), load_recipe(RECIPE), find_config("ddp"))


@pytest.mark.parametrize(("name", "launched"), [("ddp", False), ("fsdp2", True), ("zero2", True)])
def test_on_one_gpu_ddp_is_one_process(study, monkeypatch, name, launched):
    """accelerate refuses to launch a single process of MULTI_GPU; the strategies that shard have an engine of their own."""
    import torch

    commands = []
    monkeypatch.setattr(start, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(start, "run_child", lambda command, watch: commands.append(command) or 0)
    request = TrainRequest(RECIPE, accelerate_config=name, num_processes=1)
    assert launch_processes(request, load_recipe(RECIPE), find_config(name)) == 0
    assert ("accelerate.commands.launch" in commands[0]) == launched
