"""A checkpoint goes on under another launch with the same rows, or is refused by name (F12)."""

import fault_runs as runs
import pytest
from injected import Fault

SLOW = pytest.mark.slow


def cut_off(study, out: str, strategy: str | None) -> None:
    assert runs.train(study, "sft", out, strategy=strategy, fault=Fault("kill", 6)) == 5


@pytest.mark.parametrize(
    ("there", "here", "ranks"),
    [
        ("ddp", None, 1),
        pytest.param(None, "ddp", 2, marks=SLOW),
        pytest.param("ddp", "ddp", 4, marks=SLOW),
        pytest.param("fsdp2", "fsdp2", 1, marks=SLOW),
        pytest.param("fsdp2", "fsdp2", 4, marks=SLOW),
    ],
)
def test_rows_and_losses_go_on_with_another_number_of_processes(study, there, here, ranks, caplog) -> None:
    out = f"{there}-to-{here}-{ranks}"
    cut_off(study, out, there)
    assert runs.train(study, "sft", out, strategy=here, ranks=ranks) == 0
    if not (study / "runs/plain").exists():
        assert runs.train(study, "sft", "plain") == 0
    assert runs.losses(study, out) == pytest.approx(runs.losses(study, "plain"), abs=1e-5)


@pytest.mark.parametrize(
    ("there", "here", "ranks", "said"),
    [
        ("ddp", "fsdp2", 2, "written by ddp on 2 processes, and this is fsdp2 on 2 processes"),
        pytest.param("zero2", "ddp", 2, "written by zero2 on 2 processes, and this is ddp on 2 processes", marks=SLOW),
        pytest.param("zero2", None, 1, "written by zero2 on 2 processes, and this is one process", marks=SLOW),
        pytest.param(
            "zero3", "zero3", 1, "written by zero3 on 2 processes, and this is zero3 on 1 process", marks=SLOW
        ),
        pytest.param(
            "zero3", "zero2", 2, "written by zero3 on 2 processes, and this is zero2 on 2 processes", marks=SLOW
        ),
        pytest.param("fsdp2", "ddp", 2, "written by fsdp2 on 2 processes, and this is ddp on 2 processes", marks=SLOW),
        pytest.param(None, "zero2", 2, "written by one process, and this is zero2 on 2 processes", marks=SLOW),
    ],
)
def test_what_would_go_on_without_its_optimizer_is_refused_by_name(study, there, here, ranks, said) -> None:
    out = f"refused-{there}-{here}-{ranks}"
    cut_off(study, out, there)
    before = runs.checkpoints(study, out)
    assert runs.train(study, "sft", out, strategy=here, ranks=ranks) == 5
    reason = runs.read_exit(study, out)["reason"]
    assert said in reason
    assert "would go on without its optimizer states. Launch it as" in reason
    assert runs.checkpoints(study, out) == before  # nothing is set aside: the launch that wrote it goes on
    assert runs.train(study, "sft", out, strategy=there) == 0
