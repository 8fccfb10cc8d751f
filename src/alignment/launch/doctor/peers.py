"""What machines must have in common: they meet at the port that training will use, and tell each other what they are.

Rank 0 of the machines keeps the store, compares, and tells the others the verdict. A machine that does not come is named.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from alignment.launch.doctor.findings import Finding

MEETING_SECONDS = 20.0
SHARED_SECONDS = 5.0  # that a new file may take to be seen by all
MAX_CLOCK_SECONDS = 30.0
_POLL_SECONDS = 0.05
_COMPARED = ("code", "recipe", "data", "Python", "versions", "GPUs")


@dataclass(frozen=True)
class Place:
    """This machine among those of the job, and where they meet."""

    machine: int = 0
    num_machines: int = 1
    address: str = "127.0.0.1"
    port: int = 0  # 0: any that is free


class Meeting:
    """The store at which machines meet. `store` is None where it could not be reached; `problem` says why."""

    def __init__(self, place: Place) -> None:
        from torch.distributed import DistNetworkError, TCPStore

        self.place, self.store, self.problem = place, None, None
        try:
            self.store = TCPStore(
                place.address,
                place.port,
                is_master=place.machine == 0,
                wait_for_workers=False,
                timeout=timedelta(seconds=MEETING_SECONDS),
            )
        except (DistNetworkError, RuntimeError) as error:
            self.problem = self._explain(" ".join(str(error).split()))
        else:
            self.place = replace(place, port=self.store.port)

    def _explain(self, error: str) -> Finding:
        at = f"{self.place.address}:{self.place.port}"
        if self.place.machine == 0:
            mend = "Give another --main_process_port, or end what holds this one (ss -ltnp)."
            return Finding("port", f"{at}: it cannot be opened ({error[:120]})", mend)
        mend = (
            f"Open the port between the machines, and see that machine 0 runs and {self.place.address} is its address."
        )
        return Finding("port", f"{at}: not reached in {MEETING_SECONDS:.0f} s ({error[:80]})", mend, self.place.machine)

    def say(self, what: str, value: Any) -> None:
        """Tells the others something."""
        self.store.set(f"{what}/{self.place.machine}", json.dumps(value))

    def hear(self, what: str, machine: int, seconds: float | None = None) -> Any:
        """What a machine says; None when it does not in time."""
        until = time.monotonic() + (MEETING_SECONDS if seconds is None else seconds)
        while not self.store.check([f"{what}/{machine}"]):
            if time.monotonic() > until:
                return None
            time.sleep(_POLL_SECONDS)
        return json.loads(self.store.get(f"{what}/{machine}"))

    def leave(self) -> None:
        """Every machine calls it last: the store ends with machine 0, which waits for the others."""
        self.say("left", True)
        if self.place.machine == 0:
            self.hear_all("left", seconds=5)

    def hear_all(self, what: str, seconds: float | None = None) -> dict[int, Any]:
        """What each machine says, in all no longer than `seconds`; without those that do not."""
        until = time.monotonic() + (MEETING_SECONDS if seconds is None else seconds)
        said = {one: self.hear(what, one, max(0.0, until - time.monotonic())) for one in range(self.place.num_machines)}
        return {machine: value for machine, value in said.items() if value is not None}


def exchange(meeting: Meeting, facts: Mapping[str, Any], findings: Sequence[Finding]) -> list[Finding]:
    """On machine 0 the findings of all machines and what differs between them; on the others their own."""
    meeting.say("facts", {**facts, "time": time.time()})
    meeting.say("findings", [asdict(one) for one in findings])
    if meeting.place.machine != 0:
        return list(findings)
    facts_of, found = meeting.hear_all("facts"), list(findings)
    now = time.time()
    for machine, said in meeting.hear_all("findings").items():
        found += [Finding(**one) for one in said] if machine else []
    missing = sorted(set(range(meeting.place.num_machines)) - set(facts_of))
    if missing:
        names = ", ".join(map(str, missing))
        mend = "Look at its output: the same command on every machine, and this address and port open to it, were expected."
        found.append(Finding("machines", f"no word of machine {names} in {MEETING_SECONDS:.0f} s", mend))
    else:
        found.append(Finding("machines", f"{len(facts_of)} at {meeting.place.address}:{meeting.place.port}"))
    return found + compare(facts_of) + _compare_clocks(facts_of, now)


def compare(facts: Mapping[int, Mapping[str, Any]]) -> list[Finding]:
    """What differs from machine 0, and the names of what does not."""
    found, same = [], []
    for name in _COMPARED:
        here = facts[0].get(name)
        if here is None:
            continue
        different = [machine for machine, said in facts.items() if said.get(name) != here]
        found += [_differs(name, machine, facts[machine].get(name), here) for machine in different]
        same += [] if different else [name]
    return [*found, Finding("same", ", ".join(same))] if same and len(facts) > 1 else found


def _differs(name: str, machine: int, there: Any, here: Any) -> Finding:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        keys = [key for key in dict.fromkeys([*here, *there]) if here.get(key) != there.get(key)]
        said = ", ".join(f"{key} {there.get(key)} (machine 0: {here.get(key)})" for key in keys[:4])
    else:
        said = f"{there} (machine 0: {here})"
    return Finding("same", f"{name}: {said}", _MENDS.get(name, "Give all machines the same."), machine)


_MENDS = {
    "code": "Install one version of this project on all machines, or run it from a folder that they share.",
    "data": "Copy the data anew, or read it from a folder that all machines share.",
    "recipe": "Copy the recipe anew, or read it from a folder that all machines share.",
    "versions": "Install from constraints/ on all machines, or use one environment from a folder that they share.",
    "GPUs": "Ask for machines of one kind: sbatch --gpus-per-node, --constraint.",
}


def _compare_clocks(facts: Mapping[int, Mapping[str, Any]], now: float) -> list[Finding]:
    """Machines wait before they meet, so a clock that is behind by less than that is not seen; one ahead is."""
    ahead = [(machine, said["time"] - now) for machine, said in facts.items()]
    wrong = [
        (machine, by) for machine, by in ahead if by > MAX_CLOCK_SECONDS or by < -MAX_CLOCK_SECONDS - MEETING_SECONDS
    ]
    mend = "Set the clocks (chronyc, ntpd): ranks tell old files from new ones by their times."
    return [Finding("clock", f"{by:+.0f} s from machine 0", mend, machine) for machine, by in wrong]


def check_shared_folder(meeting: Meeting, folder: Path) -> Finding | None:
    """Whether this machine sees what machine 0 writes; on machine 0, which writes it, nothing."""
    place = next(one for one in (folder.resolve(), *folder.resolve().parents) if one.is_dir())
    if meeting.place.machine == 0:
        token = place / f".doctor-{meeting.place.port}-{time.time_ns()}"
        token.touch()
        meeting.say("token", str(token))
        meeting.say("seen", True)
        meeting.hear_all("seen")
        token.unlink(missing_ok=True)
        return None
    token = meeting.hear("token", 0)
    until = time.monotonic() + SHARED_SECONDS
    while token and not (seen := Path(token).exists()) and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    meeting.say("seen", bool(token and seen))
    if token and seen:
        return Finding("shared", "the run folder's place is seen by all", machine=meeting.place.machine)
    mend = "Give --out DIR on a file system that all machines mount at one path."
    return Finding("shared", f"{place}: what machine 0 writes there is not seen", mend, meeting.place.machine)
