"""What the doctor says: one finding a check and machine, and the table of all."""

from collections.abc import Sequence
from dataclasses import dataclass

ALL = -1  # in place of a machine


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    found: str
    mend: str = ""  # what to do; empty where nothing is wrong
    machine: int = ALL

    @property
    def is_wrong(self) -> bool:
        """Whether training should not be started."""
        return bool(self.mend)


def make_table(findings: Sequence[Finding], num_machines: int) -> str:
    """A line a finding, what to do about it below. What all machines found alike stands once."""
    rows: dict[Finding, list[int]] = {}
    for one in findings:
        alike = Finding(one.check, one.found, one.mend)
        rows.setdefault(alike, []).append(one.machine)
    lines = []
    for one, machines in rows.items():
        is_everywhere = ALL in machines or len(set(machines)) == num_machines
        place = "" if is_everywhere else f"machine {', '.join(map(str, sorted(set(machines))))}: "
        lines.append(f"{'WRONG' if one.is_wrong else 'ok':<6} {one.check:<13} {place}{one.found}")
        lines += [f"{'':<20} -> {one.mend}"] if one.mend else []
    num_wrong = sum(one.is_wrong for one in rows)
    return "\n".join([*lines, f"{num_wrong} of {len(rows)} wrong" if num_wrong else f"{len(rows)} checks, all ok"])
