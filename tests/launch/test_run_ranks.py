"""Forked CPU ranks train as one process does, and whatever happens to one of them is said and ends the others."""

import os
import signal
import time
from pathlib import Path

import pytest
from tiny_training import STEPS, make_model, read_losses, train

from alignment.errors import DataError, LaunchError, Preempted, RecipeError
from alignment.launch.children import Children, choose_failure
from alignment.launch.ranks import run_ranks

LONG = 60.0


def rank() -> int:
    return int(os.environ["RANK"])


def run(work, config: Path, out: Path) -> tuple[int, float]:
    """Exit code of two ranks and the seconds that they took."""
    begun = time.monotonic()
    code = run_ranks(work, config=config, num_processes=2, log_dir=out)
    return code, time.monotonic() - begun


# ------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def losses_of_one(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    out = tmp_path_factory.mktemp("one")
    assert run_ranks(lambda: train(out, weights), config=None, num_processes=1, log_dir=out) == 0
    return read_losses(out, 1)[0]


@pytest.mark.parametrize("strategy", ["ddp", "zero3", "fsdp2"])
def test_two_ranks_have_the_losses_of_one_process(configs, weights, losses_of_one, tmp_path, strategy):
    """The configs are those for GPUs, as they stand."""
    code, _ = run(lambda: train(tmp_path, weights), configs / f"{strategy}.yaml", tmp_path)
    assert code == 0
    first, second = read_losses(tmp_path, 2)
    assert len(first) == STEPS
    assert first == second
    assert first == pytest.approx(losses_of_one, abs=1e-5)
    assert losses_of_one[0] != pytest.approx(losses_of_one[1], abs=1e-3)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero2"])
def test_neither_use_cpu_nor_a_variable_of_the_users_changes_what_the_config_means(
    configs, tmp_path, monkeypatch, strategy
):
    """accelerate would see neither ranks of DDP without use_cpu, nor DeepSpeed with it; `check_launch` runs in each rank."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(strategy != "ddp").lower())
    assert run(lambda: train(tmp_path, use_cpu=False), configs / f"{strategy}.yaml", tmp_path)[0] == 0


def test_ranks_share_the_cores_and_see_no_gpu(configs, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def work() -> int:
        import torch

        return 0 if (torch.get_num_threads(), os.environ["CUDA_VISIBLE_DEVICES"]) == (1, "") else 1

    assert run(work, configs / "ddp.yaml", tmp_path)[0] == 0


# ------------------------------------------------------------------------------------------------ failures


def test_the_rank_that_fails_is_named_with_its_last_lines_and_ends_the_others(configs, tmp_path, caplog):
    def work() -> int:
        if rank() == 0:
            time.sleep(LONG)
        raise DataError("row 7: no answer.")

    code, seconds = run(work, configs / "ddp.yaml", tmp_path)
    assert code == DataError.code
    assert seconds < LONG / 2
    assert "rank 1 ended with exit code 3" in caplog.text
    assert str(tmp_path / "rank1.log") in caplog.text
    assert "row 7: no answer." in caplog.text


def test_a_failure_of_all_ranks_alike_is_said_once(configs, tmp_path, caplog, capfd):
    def work() -> int:
        time.sleep(0.0 if rank() else 0.3)  # rank 1 is the first
        raise RecipeError("the batch does not divide.")

    assert run(work, configs / "ddp.yaml", tmp_path)[0] == RecipeError.code
    assert capfd.readouterr().err.count("the batch does not divide.") == 1
    assert caplog.text == ""


def test_a_rank_that_is_killed_is_a_lost_rank(configs, tmp_path, caplog):
    def work() -> int:
        if rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        raise ConnectionResetError("connection closed by peer")  # as gloo says it in the others

    code, _ = run(work, configs / "ddp.yaml", tmp_path)
    assert code == LaunchError.code
    assert "rank 1 ended with SIGKILL" in caplog.text


def test_a_defect_keeps_its_traceback(configs, tmp_path, caplog):
    def work() -> int:
        return [0][rank()]

    assert run(work, configs / "ddp.yaml", tmp_path)[0] == 1
    assert "IndexError: list index out of range" in caplog.text
    assert "Traceback" in (tmp_path / "rank1.log").read_text()


def test_what_a_failed_rank_started_ends_with_it(configs, tmp_path):
    def work() -> int:
        if rank() == 0:
            child = os.fork()
            if child == 0:
                time.sleep(LONG)
                os._exit(0)
            (tmp_path / "child").write_text(str(child))
            time.sleep(LONG)
        while not (tmp_path / "child").exists():
            time.sleep(0.01)
        return 4

    assert run(work, configs / "ddp.yaml", tmp_path)[0] == 4
    assert ends(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize(
    ("statuses", "ended_by_us", "expected"),
    [
        ({0: 0, 1: 0}, [], None),
        ({1: 4, 0: 3}, [], (1, 4)),  # the first
        ({0: 1, 1: 3}, [], (1, 3)),  # one that says what it is before a traceback
        ({0: 1, 1: -9}, [], (1, LaunchError.code)),  # the network's traceback comes of the lost rank
        ({1: 1, 0: -9}, [0], (1, 1)),  # rank 0 was ended because of rank 1
    ],
)
def test_the_failure_that_is_reported_is_the_cause(statuses, ended_by_us, expected):
    children = Children()
    children.statuses, children.ended_by_us = statuses, set(ended_by_us)
    assert choose_failure(children) == expected


def ends(pid: int, seconds: float = LONG / 2) -> bool:
    """Whether a process ends; it may stay a zombie where nobody collects it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


# ------------------------------------------------------------------------------------------------ signals


def wait_for_ranks(out: Path) -> None:
    """Returns when both ranks have come here."""
    (out / f"here{rank()}").touch()
    while not all((out / f"here{other}").exists() for other in range(2)):
        time.sleep(0.01)


def test_sigterm_reaches_every_rank_and_ranks_may_seal_their_work(configs, tmp_path):
    def work() -> int:
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
        wait_for_ranks(tmp_path)
        if rank() == 0:
            os.kill(os.getppid(), signal.SIGTERM)
        while not asked:
            time.sleep(0.01)
        time.sleep(2.0 if rank() == 0 else 0.0)  # rank 0 still writes when rank 1 is done
        (tmp_path / f"sealed{rank()}").touch()
        return Preempted.code

    assert run(work, configs / "ddp.yaml", tmp_path)[0] == Preempted.code
    assert (tmp_path / "sealed0").exists()
    assert (tmp_path / "sealed1").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_ends_the_ranks_is_the_exit_code(configs, tmp_path, caplog, number):
    def work() -> int:
        signal.signal(number, signal.SIG_DFL)  # a shell starts what runs in the background without SIGINT
        wait_for_ranks(tmp_path)
        if rank() == 0:
            os.kill(os.getppid(), number)
        time.sleep(LONG)
        return 0

    code, seconds = run(work, configs / "ddp.yaml", tmp_path)
    assert code == 128 + number
    assert f"ended by {number.name}; the same command goes on" in caplog.text
    assert seconds < LONG / 2


def test_a_second_signal_ends_ranks_that_do_not_listen(configs, tmp_path):
    def work() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wait_for_ranks(tmp_path)
        if rank() == 0:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(0.2)
            os.kill(os.getppid(), signal.SIGTERM)  # the same request: a scheduler signals a whole step
            time.sleep(1.2)
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(LONG)
        return 0

    assert run(work, configs / "ddp.yaml", tmp_path)[0] == 128 + signal.SIGTERM


def test_ranks_do_not_outlive_a_parent_that_is_killed(configs, tmp_path):
    def work() -> int:
        (tmp_path / f"pid{rank()}.tmp").write_text(str(os.getpid()))
        (tmp_path / f"pid{rank()}.tmp").rename(tmp_path / f"pid{rank()}")
        time.sleep(LONG)
        return 0

    parent = os.fork()
    if parent == 0:
        run(work, configs / "ddp.yaml", tmp_path)
        os._exit(0)
    while not all((tmp_path / f"pid{number}").exists() for number in range(2)):
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for number in range(2):
        assert ends(int((tmp_path / f"pid{number}").read_text()))


# ------------------------------------------------------------------------------------------------ accelerate's options


def test_options_of_accelerate_mean_the_same_for_cpu_ranks(configs, tmp_path):
    def work() -> int:
        return 0 if os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "LlamaDecoderLayer" else 1

    options = ["--fsdp_transformer_layer_cls_to_wrap", "LlamaDecoderLayer"]
    config = configs / "fsdp2.yaml"
    assert run_ranks(work, config=config, num_processes=2, log_dir=tmp_path, accelerate_args=options) == 0


def test_an_option_that_accelerate_does_not_know_is_refused(configs, tmp_path):
    with pytest.raises(RecipeError, match="-- --no_such_option: accelerate launch does not take it"):
        run_ranks(
            lambda: 0,
            config=configs / "ddp.yaml",
            num_processes=2,
            log_dir=tmp_path,
            accelerate_args=["--no_such_option"],
        )


# ------------------------------------------------------------------------------------------------ DeepSpeed's op


def test_a_build_that_was_killed_does_not_stop_the_next_one(configs, tmp_path):
    """torch waits for ever for the lock file of such a build. In a forked process: the op stays loaded once it is."""

    def work() -> int:
        from alignment.launch.deepspeed import load_shared_memory_op
        from alignment.launch.environment import extensions_folder

        lock = extensions_folder() / "deepspeed_shm_comm" / "lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        load_shared_memory_op()
        return 0 if not lock.exists() else 1

    assert run_ranks(work, config=None, num_processes=1, log_dir=tmp_path) == 0


def test_a_folder_that_nothing_can_be_built_in_is_named(tmp_path, monkeypatch):
    from alignment.launch.deepspeed import load_shared_memory_op

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(
        LaunchError, match=r"file: File exists; a folder was expected.* Name another in TORCH_EXTENSIONS_DIR"
    ):
        load_shared_memory_op()
