"""The quickstart's recipes train on what they trained on, at the same rates, from the same losses. `make goldens` moves the trace."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "goldens"))

import quickstart

# fp32 on another processor sums in another order.
LOSS_TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("trace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return quickstart.make_trace(folder)


@pytest.mark.parametrize("stage", quickstart.STAGES)
def test_a_quickstart_recipe_trains_as_it_did(found: dict, stage: str) -> None:
    expected = json.loads(quickstart.PATH.read_text(encoding="utf-8"))[stage]
    assert found[stage]["rows"] == expected["rows"]
    assert found[stage]["learning_rates"] == expected["learning_rates"]
    assert found[stage]["losses"] == pytest.approx(expected["losses"], abs=LOSS_TOLERANCE)
