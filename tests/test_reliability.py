"""docs/reliability.md names a test for each promise, and the tests are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
# The cases of processes, storage, numbers, recipes and supply.
CASES = {f"F{n}" for n in range(1, 14)} | {
    "S1",
    "S6",
    "S7",
    "N1, N2",
    "N3",
    "N4",
    "N5",
    "R3",
    "R4",
    "X1",
    "X2",
    "X5, X7",
}


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 30
    missing = [
        f"{file}::{name}"
        for file, name in NAMED
        if not re.search(rf"^def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_every_promise_names_a_test() -> None:
    table = PAGE.partition("## Promises")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if re.match(r"\| [FSNRX]\d", line)]
    assert all("::test_" in row[-1] for row in rows)
    assert {row[0].removeprefix("| ") for row in rows} >= CASES


def test_every_exit_code_is_there() -> None:
    from alignment import errors

    codes = {
        kind.code for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.AlignmentError
    }
    table = PAGE.partition("## Exit codes")[2]
    assert codes <= {int(code) for line in table.splitlines() for code in re.findall(r"^\| (\d+) ", line)}
