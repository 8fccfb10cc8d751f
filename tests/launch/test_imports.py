"""What is kept out of a run's first seconds."""

import contextlib
import gc
import subprocess
import sys
from types import ModuleType

import pytest
import torch
import transformers
from accelerate.utils import other

from alignment.launch.imports import spare_deepspeed, sparing_scipy, without_collecting


def test_collecting_goes_on_where_it_was_on() -> None:
    with without_collecting():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_made_within_is_not_looked_through_at_the_end_either() -> None:
    gc.collect()
    before = [generation["collections"] for generation in gc.get_stats()]
    with without_collecting():
        made = [[] for _ in range(100_000)]
    kept = [[] for _ in range(100)]  # one of them would set off a collection of the youngest generation
    assert [generation["collections"] for generation in gc.get_stats()] == before
    assert len(made) + len(kept) == 100_100


def test_what_was_frozen_before_stays_frozen() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with without_collecting():
            pass
        assert gc.get_freeze_count() >= frozen
    finally:
        gc.unfreeze()


def test_deepspeed_is_not_imported_to_look_at_a_model_and_its_engines_are_still_unwrapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Engine(torch.nn.Module):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module

    monkeypatch.setattr(other, "is_deepspeed_available", lambda: True)
    spare_deepspeed()
    model = torch.nn.Linear(1, 1)
    for name in [name for name in sys.modules if name.split(".")[0] == "deepspeed"]:
        monkeypatch.delitem(sys.modules, name)
    assert other.extract_model_from_parallel(model) is model
    assert "deepspeed" not in sys.modules
    fake = ModuleType("deepspeed")
    fake.DeepSpeedEngine = Engine
    monkeypatch.setitem(sys.modules, "deepspeed", fake)
    assert other.extract_model_from_parallel(Engine(model)) is model


def test_a_stage_is_imported_without_scipy_and_later_imports_find_it() -> None:
    pytest.importorskip("scipy")
    program = (
        "import sys; from alignment.launch.imports import import_stages; import_stages(['sft', 'reward', 'dpo']); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'scipy', 'sklearn', 'deepspeed'})); "
        "from transformers.utils import is_scipy_available; print(is_scipy_available())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[-3:-1] == ["[]", "True"]


def test_scipy_is_seen_again_after_a_failure() -> None:
    found = transformers.utils.is_scipy_available
    with contextlib.suppress(ImportError), sparing_scipy():
        assert not transformers.utils.is_scipy_available()
        raise ImportError
    assert transformers.utils.is_scipy_available is found
