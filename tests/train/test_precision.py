"""Whether to compute in bfloat16 is a fact of the machine, and the same each time."""

from pathlib import Path

import pytest
import torch

from alignment.train import precision


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16 avx512f\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True),
        ("model name\t: a CPU with bf16 in its name\n", False),
        (None, False),
    ],
)
def test_auto_asks_the_cpu_for_its_instructions(
    text: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(precision, "CPU_INFO", path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.resolve_bf16("auto") is expected
    assert precision.resolve_bf16(True) is True
    assert precision.resolve_bf16(False) is False
