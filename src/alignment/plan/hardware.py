"""Cards by name, and what `--hardware 8xH100-80GB` means. Nothing here imports torch."""

import difflib
import os
import re
from dataclasses import dataclass

from alignment.errors import RecipeError

GIB = 1 << 30
CPU = "cpu"


@dataclass(frozen=True)
class Card:
    """An accelerator. Rates are the vendor's, dense; prices are what renting one by the hour takes, roughly, in late 2026."""

    name: str
    memory_gib: float  # as torch reports it
    bf16_tflops: float | None  # None: no figure to count hours with
    fp32_tflops: float | None
    bandwidth_gb: float  # per second
    usd_per_hour: float


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card("B200-180GB", 178.4, 2250, 80, 8000, 5.0),
        Card("H200-141GB", 139.8, 989, 67, 4800, 3.5),
        Card("H100-80GB", 79.1, 989, 67, 3350, 2.8),
        Card("MI300X-192GB", 191.5, 1307, 163, 5300, 2.5),
        Card("A100-80GB", 79.1, 312, 19.5, 2039, 1.8),
        Card("A100-40GB", 39.4, 312, 19.5, 1555, 1.3),
        Card("L40S-48GB", 44.4, 362, 91.6, 864, 1.0),
        Card("RTX6000Ada-48GB", 47.5, 364, 91.1, 960, 0.8),
        Card("RTX4090-24GB", 23.5, 165, 82.6, 1008, 0.4),
        Card("RTX3090-24GB", 23.6, 71, 35.6, 936, 0.25),
        Card("A10G-24GB", 22.1, 70, 31, 600, 1.0),
        Card("L4-24GB", 22.0, 121, 30, 300, 0.8),
    )
}


@dataclass(frozen=True)
class Hardware:
    """Machines of so many cards each."""

    machines: int
    per_machine: int
    card: Card

    @property
    def num_processes(self) -> int:
        """One a card."""
        return self.machines * self.per_machine

    @property
    def is_cpu(self) -> bool:
        return self.card.name == CPU

    def __str__(self) -> str:
        machines = f"{self.machines}x" if self.machines > 1 else ""
        return f"{machines}{self.per_machine}x{self.card.name}"


def parse_hardware(text: str) -> Hardware:
    """`8xH100-80GB`, `2x8xH100-80GB` (two machines), `H100-80GB`, or `2xcpu`: ranks on this machine.

    Raises:
        RecipeError: it is not of that form, or no such card is known.
    """
    found = re.fullmatch(r"(?:(?:(\d+)x)?(\d+)x)?([A-Za-z][\w.-]*)", text)
    if found is None or "0" in found.groups()[:2]:
        raise RecipeError(
            f"--hardware: {text!r}; CARDS, NxCARD or MACHINESxNxCARD was expected, such as 8xH100-80GB. {_say_known()}"
        )
    machines, cards, name = int(found[1] or 1), int(found[2] or 1), found[3]
    if name.lower() == CPU:
        return Hardware(1, machines * cards, Card(CPU, _machine_memory() / GIB, None, None, 0, 0.0))
    by_name = {known.lower(): card for known, card in CARDS.items()}
    fitting = [card for known, card in by_name.items() if known == name.lower() or known.split("-")[0] == name.lower()]
    if len(fitting) == 1:
        return Hardware(machines, cards, fitting[0])
    if fitting:
        names = " or ".join(card.name for card in fitting)
        raise RecipeError(f"--hardware: {name}; which one? {names} was expected.")
    near = difflib.get_close_matches(name.lower(), by_name, 1)
    raise RecipeError(
        f"--hardware: no card {name!r} is known; "
        + (f"did you mean {by_name[near[0]].name}? " if near else "")
        + _say_known()
    )


def _say_known() -> str:
    return f"Known: {', '.join(CARDS)}, cpu."


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
