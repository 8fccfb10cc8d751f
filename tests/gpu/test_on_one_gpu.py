"""Each stage and strategy on one GPU, by whole commands that end with what a fresh process reads back."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.gpu.conftest import CONFIGS, FEW_STEPS, STEPS, read_gpus, read_log
from tests.gpu.flash_attn_stand_in import write_flash_attn

CPU = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
TRAINED = ["pretrain", "sft", "sft-packed", "sft-lora", "reward", "reward-lora", "dpo", "dpo-lora"]
STRATEGIES = ["ddp", "zero1", "zero2", "zero3", "fsdp2"]


def near(exact: float) -> object:
    """Of a loss in bf16: within 2e-3 , and of losses above 2 within a thousandth."""
    return pytest.approx(exact, abs=2e-3, rel=1e-3)


@pytest.fixture
def flash_attn(tmp_path) -> dict[str, str]:
    """An environment in which flash attention is installed."""
    return {"PYTHONPATH": f"{write_flash_attn(tmp_path / 'site')}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("name", TRAINED)
def test_a_gpu_gives_the_losses_of_a_cpu(study, note, name):
    """In fp32 over the whole run. PPO is not among them: a GPU draws other completions from the same seed."""
    there = study.train(name, f"{name}-there")
    here = study.train(name, f"{name}-here", environment=CPU)
    gap = max(abs(a - b) for a, b in zip(read_log(there), read_log(here), strict=True))
    note(gap=gap)
    assert read_gpus(there)
    assert not read_gpus(here)
    assert len(read_log(there)) == STEPS
    assert gap < 1e-4


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["sft-lora", "sft", "reward", "dpo", "dpo-lora", "ppo", "ppo-lora"])
def test_bf16_is_within_rounding_of_fp32_under_every_strategy(study, note, name, strategy):
    """The first loss; log-probabilities are fp32 whatever computes the logits, so DPO starts from ln 2."""
    exact = study.exact(name)
    found = read_log(study.train(name, f"{name}-{strategy}-bf16", FEW_STEPS, "train.bf16=true", strategy=strategy))
    note(exact=exact, found=found)
    assert found[0] == (pytest.approx(exact[0], abs=1e-4) if name.startswith("dpo") else near(exact[0]))


@pytest.mark.parametrize("kernel", ["sdpa", "eager", "flex_attention", "flash_attention_2"])
@pytest.mark.parametrize("name", ["sft-packed", "sft", "sft-lora", "dpo", "ppo", "reward"])
def test_every_attention_kernel_trains_the_same_model(study, note, flash_attn, name, kernel):
    environment = flash_attn if kernel.startswith("flash") else {}
    keys = (FEW_STEPS, "train.bf16=true", f"model.attn_implementation={kernel}")
    found, exact = read_log(study.train(name, f"{name}-{kernel}", *keys, environment=environment)), study.exact(name)
    note(found=found, exact=exact)
    assert found[0] == near(exact[0])


def test_packed_rows_do_not_see_each_other_by_bounds_of_a_flat_row(study, note, flash_attn):
    """The one row with sequence bounds that flash attention gets has the losses of the padded rows of the others."""
    keys = ("train.bf16=true", "model.attn_implementation=flash_attention_2")
    flat = read_log(study.train("sft-packed", "packed-flat", *keys, environment=flash_attn))
    rows = read_log(study.train("sft-packed", "packed-rows", "train.bf16=true"))
    note(flat=flat, rows=rows)
    assert flat == pytest.approx(rows, abs=5e-3)


@pytest.mark.parametrize("name", ["sft-lora", "reward-lora", "dpo-lora", "ppo-lora"])
def test_qlora_trains_merges_and_reads_back(study, note, name):
    pytest.importorskip("bitsandbytes")
    run = study.train(name, f"{name}-4bit", "lora.load_in_4bit=true", "train.bf16=true")
    losses = read_log(run)
    note(losses=losses)
    assert (run / "final/config.json").is_file()
    assert (run / "adapter/adapter_config.json").is_file()
    assert "quantization_config" not in json.loads((run / "final/config.json").read_text())
    if name.startswith("dpo"):
        assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    if not name.startswith("ppo"):
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["sft", "dpo-lora", "ppo"])
@pytest.mark.parametrize("strategy", [None, "zero3", "fsdp2"])
def test_killed_and_resumed_is_the_same_run(study, note, name, strategy):
    """kill -9 behind the seal of step 4, then the same command; losses as those of a run that nobody touched."""
    keys = ("train.save_steps=4", "train.bf16=true")
    launch = f"{name}-{strategy}"
    whole = read_log(study.train(name, f"{launch}-whole", *keys, strategy=strategy))
    out = study.root / "runs" / f"{launch}-killed"
    words = ["train", f"recipes/gpu/{name}.yaml", "--out", str(out), *(w for key in keys for w in ("--set", key))]
    if strategy:
        words += ["--accelerate_config", str(CONFIGS / f"{strategy}.yaml"), "--num_processes", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "alignment", *words], cwd=study.root, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.time() + 240
    while not list(out.glob("checkpoints/**/seal.json")) and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    kill_all(process.pid)
    process.wait()
    again = read_log(study.train(name, f"{launch}-killed", *keys, strategy=strategy))
    gap = max(abs(a - b) for a, b in zip(again, whole, strict=True))
    note(gap=gap, code=process.returncode)
    assert process.returncode != 0  # it was killed in time
    assert gap < 1e-6


def kill_all(pid: int) -> None:
    """The process and all below it, at once: a launcher's ranks are in groups of their own."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()[1:]]
    found = [pid]
    for one in found:
        found += [child for child, parent in pairs if parent == one]
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def test_a_full_gpu_halves_the_micro_batch(study, note):
    """The allocator is held to a share of the GPU; the error is CUDA's own."""
    keys = ("train.global_batch_size=64", "train.per_device_train_batch_size=64", FEW_STEPS)
    exact = read_log(study.train("sft", "memory-fits", *keys))
    for share in (0.02, 0.01, 0.006, 0.004, 0.003, 0.002):  # of 80 GB, 0.001 does not hold one row
        environment = {"PYTORCH_ALLOC_CONF": f"per_process_memory_fraction:{share}"}
        run = study.root / f"runs/memory-{share}"
        words = ["train", "recipes/gpu/sft.yaml", "--out", str(run), *(w for key in keys for w in ("--set", key))]
        done = study.command(*words, environment=environment)
        notes = json.loads((run / "incidents.json").read_text())["notes"] if (run / "incidents.json").exists() else []
        note(share=share, code=done.returncode, notes=notes)
        if done.returncode == 0 and notes:
            assert read_log(run) == pytest.approx(exact, abs=1e-4)
            return
    pytest.fail(f"no share of the GPU made it shrink: {(done.stdout + done.stderr)[-2000:]}")


def test_evaluate_gives_the_figures_of_a_cpu(study, note):
    def results(out, environment=None):
        return json.loads((study.train("evaluate", out, environment=environment) / "results.json").read_text())

    there, here = results("evaluate-there"), results("evaluate-here", CPU)
    note(there=there, here=here)
    assert there["bits_per_byte"] == pytest.approx(here["bits_per_byte"], rel=5e-3)


def test_accelerate_launch_without_our_launcher(study):
    for strategy in ("zero2", "fsdp2"):  # accelerate refuses MULTI_GPU of one process
        command = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(CONFIGS / f"{strategy}.yaml"),
        ]
        command += ["--num_processes", "1", "-m", "alignment", "train", "recipes/gpu/sft.yaml"]
        command += ["--out", f"runs/launched-{strategy}", "--set", "train.bf16=true", "--set", "train.max_steps=4"]
        done = subprocess.run(command, cwd=study.root, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        assert json.loads((study.root / f"runs/launched-{strategy}/exit.json").read_text())["code"] == 0


def test_doctor_and_rehearsal_on_a_machine_with_a_gpu(study, note):
    doctor = study.command("doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    note(doctor=re.findall(r".*GPUs.*", doctor.stdout))
    rehearsal = study.command("rehearse", "recipes/gpu/sft-lora.yaml")
    note(rehearsal=rehearsal.stdout[-600:])
    assert rehearsal.returncode == 0, rehearsal.stdout + rehearsal.stderr


def test_search_on_a_gpu(study, note):
    """It runs to its end, and finds as many completions that stop as a CPU does; no tiny model's stops in twelve tokens."""

    def results(out, environment=None):
        words = ["search", "recipes/gpu/evaluate.yaml", "--num_samples", "8", "--value", "stops", "--out", out]
        done = study.command(*words, environment=environment)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return json.loads((study.root / out / "results.json").read_text())

    there, here = results("search-there"), results("search-here", CPU)
    note(there=there["greedy"], here=here["greedy"])
    assert there["greedy"]["value"] == pytest.approx(here["greedy"]["value"], abs=0.1)
    assert [point["method"] for point in there["points"]] == [point["method"] for point in here["points"]]
