"""Numbers as people read them, in pages, cards and tables."""

import math
from typing import Any

_SECONDS = (("d", 86400), ("h", 3600), ("min", 60))
_DASH = "–"


def format_number(value: Any) -> str:
    """Four significant digits, thousands separated, 1.2e-05 below a thousandth; a dash for what is not known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    if abs(value) >= 1e4:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.2e}".replace("e-0", "e-")
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if abs(value) >= 1 else 4
    return f"{value:.{digits}f}"


def format_estimate(value: Any, error: Any) -> str:
    """0.8500 ± 0.0110; without an error the value alone."""
    known = isinstance(error, int | float) and math.isfinite(error) and error > 0
    return f"{format_number(value)} ± {format_number(float(error))}" if known else format_number(value)


def format_seconds(seconds: float) -> str:
    """0.4 s, 42 s, 3 min 5 s, 2 h 3 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for place, (unit, size) in enumerate(_SECONDS):
        if whole >= size:
            smaller, smaller_size = (*_SECONDS, ("s", 1))[place + 1]
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def format_count(value: float) -> str:
    """987, 12.1k, 3.4M, 7.2B."""
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"
