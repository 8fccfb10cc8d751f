"""What `--hardware` means."""

import pytest

from alignment.errors import RecipeError
from alignment.plan.hardware import CARDS, parse_hardware


@pytest.mark.parametrize(
    ("text", "machines", "per_machine", "card"),
    [
        ("8xH100-80GB", 1, 8, "H100-80GB"),
        ("2x8xh100-80gb", 2, 8, "H100-80GB"),
        ("H100", 1, 1, "H100-80GB"),
        ("4xRTX4090", 1, 4, "RTX4090-24GB"),
        ("2xcpu", 1, 2, "cpu"),
    ],
)
def test_hardware_is_read(text, machines, per_machine, card):
    found = parse_hardware(text)
    assert (found.machines, found.per_machine, found.card.name) == (machines, per_machine, card)
    assert found.num_processes == machines * per_machine


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8xH101-80GB", "did you mean H100-80GB?"),
        ("A100", "A100-80GB or A100-40GB was expected"),
        ("0xH100", "8xH100-80GB"),
        ("8 H100", "8xH100-80GB"),
        ("xx", "Known: B200-180GB"),
        ("", "NxCARD"),
    ],
)
def test_what_is_no_hardware_is_refused(text, said):
    with pytest.raises(RecipeError, match="--hardware") as error:
        parse_hardware(text)
    assert said in str(error.value)


def test_a_card_has_less_than_its_name_says():
    for card in CARDS.values():
        named = float(card.name.rpartition("-")[2].removesuffix("GB"))
        assert 0.9 * named < card.memory_gib < named
        assert card.bf16_tflops > card.fp32_tflops > 0
