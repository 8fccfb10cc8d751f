"""What is kept out of a run's first seconds."""

import gc
import sys
from types import ModuleType

import pytest
import torch
from accelerate.utils import other

from alignment.launch.imports import spare_deepspeed, without_collecting


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
