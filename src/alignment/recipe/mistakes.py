"""A mistake in a recipe: where it stands, what was found and expected, and what to do.

Places are counted from 0 as the YAML reader does; texts show them from 1 as editors do. Finding mistakes is done by
`locate.py` (YAML), `unknown.py` (keys), `judge.py` (values) and `overrides.py` (the command line).
"""

from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH = 100  # characters of a source line that are shown


@dataclass(frozen=True)
class Origin:
    """What was read: a file, or one option of the command line."""

    name: str
    lines: tuple[str, ...]
    is_option: bool = False


@dataclass(frozen=True)
class Place:
    """A character of an origin."""

    origin: Origin
    line: int
    column: int


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong."""

    place: Place
    message: str
    advice: str = ""
    level: str = "error"  # or "warning"

    def text(self) -> str:
        """`file:line:column: error: message`, the line with a caret below, and what to do."""
        place = self.place
        where = (
            f"command line: {place.origin.name}"
            if place.origin.is_option
            else f"{place.origin.name}:{place.line + 1}:{place.column + 1}"
        )
        shown = [f"{where}: {self.level}: {self.message}"]
        margin = " " * 8
        if not place.origin.is_option and place.line < len(place.origin.lines):
            line, column = _window(place.origin.lines[place.line], place.column)
            shown += [f"{place.line + 1:>6} | {line}", f"{margin}{' ' * (column + 1)}^"]
        if self.advice:
            shown.append(f"{margin} = {self.advice}")
        return "\n".join(shown)


def sort_mistakes(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """In the order of the file, without repetitions; those of the command line last."""
    ordered = sorted(
        mistakes, key=lambda mistake: (mistake.place.origin.is_option, mistake.place.line, mistake.place.column)
    )
    return list(dict.fromkeys(ordered))


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a long line around a column, and where the column is in it. Tabs count as one character."""
    line = line.replace("\t", " ").rstrip()
    start = max(0, column - _WIDTH // 2) if len(line) > _WIDTH else 0
    return line[start : start + _WIDTH], column - start
