"""Charts and pictures as inline SVG: no library, no script, colours from the page's style sheet.

Shapes carry class names only, so a picture follows light, dark and print. Lines differ in colour and in dashes; every shown
value has a <title>, which browsers show on hover and screen readers read.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

from alignment.report.numbers import format_number

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 400, 226
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 26
_LEGEND_LINE = 18
_CHARACTER = 6.7  # width of one at the font size of the style sheet
NUM_COLOURS = 6


def line_chart(
    series: Mapping[str, Points],
    title: str,
    unit: str = "",
    *,
    log: bool = False,
    max_points: int = 400,
    max_hover: int = 40,
    x_name: str = "step",
) -> str:
    """A <figure> with one line a series over steps, or over what `x_name` says.

    Args:
        series: name to (x, y); points that are not finite are left out.
        unit: of y; it is shown beside the title.
        log: logarithmic y, where every value is positive; linear otherwise.
        max_points: drawn a series; peaks and valleys are kept.
        max_hover: points a series that tell their value.
    """
    finite = {name: _finite(points) for name, points in series.items()}
    shown = {name: points for name, points in finite.items() if points}
    heading = f"<figcaption>{escape(title)}" + (f" <small>{escape(unit)}</small>" if unit else "") + "</figcaption>"
    if not shown:
        return f'<figure class="chart">{heading}<p class="empty">No values were logged.</p></figure>'
    log = log and all(y > 0 for points in shown.values() for _, y in points)
    legend, top = _legend(list(shown)) if len(shown) > 1 else ("", _TOP)
    frame = _Frame(shown, log, top)
    lines = "".join(
        _line(name, points, frame, index % NUM_COLOURS, (max_points, max_hover), x_name)
        for index, (name, points) in enumerate(shown.items())
    )
    label = escape(f"{title}: " + "; ".join(_summary(name, points) for name, points in shown.items()), quote=True)
    return (
        f'<figure class="chart">{heading}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{frame.axes()}{lines}{legend}</svg></figure>"
    )


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _summary(name: str, points: Points) -> str:
    return f"{name} from {format_number(float(points[0][1]))} to {format_number(float(points[-1][1]))}"


def downsample(points: Points, limit: int) -> list[tuple[float, float]]:
    """At most `limit` points: first, last, and the lowest and highest of equal stretches between them."""
    if len(points) <= limit:
        return list(points)
    inner, stretches = points[1:-1], max(1, (limit - 2) // 2)
    kept = [points[0]]
    for number in range(stretches):
        stretch = inner[number * len(inner) // stretches : (number + 1) * len(inner) // stretches]
        low, high = min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])
        kept += sorted({low, high})
    return [*kept, points[-1]]


# ------------------------------------------------------------------------------------------------ axes


class _Frame:
    """From values to places in the picture, and the axes drawn from it."""

    def __init__(self, series: Mapping[str, Points], log: bool, top: float) -> None:
        xs = [x for points in series.values() for x, _ in points]
        ys = [y for points in series.values() for _, y in points]
        self.log, self.top = log, top
        self.x_low, self.x_high = _widen(min(xs), max(xs)) if min(xs) == max(xs) else (min(xs), max(xs))
        self.y_ticks = make_log_ticks(min(ys), max(ys)) if log else make_ticks(*_widen(min(ys), max(ys)))
        low, high = min(self.y_ticks[0], min(ys)), max(self.y_ticks[-1], max(ys))
        self.y_low, self.y_high = (math.log10(low), math.log10(high)) if log else (low, high)

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        height = math.log10(value) if self.log else value
        return HEIGHT - _BOTTOM - (height - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - self.top - _BOTTOM)

    def axes(self) -> str:
        parts = []
        for value in self.y_ticks:
            y = _place(self.y(value))
            parts.append(f'<path class="grid" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>')
            parts.append(
                f'<text x="{_LEFT - 6}" y="{y}" dy=".35em" text-anchor="end">{_tick(value, [value] if self.log else self.y_ticks)}</text>'
            )
        x_ticks = [value for value in make_ticks(self.x_low, self.x_high) if self.x_low <= value <= self.x_high]
        for value in x_ticks:
            x = _place(self.x(value))
            anchor = "end" if self.x(value) > WIDTH - _RIGHT - 14 else "middle"
            parts.append(f'<path class="axis" d="M{x} {HEIGHT - _BOTTOM}v4"/>')
            parts.append(f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="{anchor}">{_tick(value, x_ticks)}</text>')
        return "".join(parts) + f'<path class="axis" d="M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>'


def _widen(low: float, high: float) -> tuple[float, float]:
    if low < high:
        return low, high
    margin = abs(low) * 0.1 or 1.0
    return low - margin, high + margin


def make_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values, 1, 2 or 5 times a power of ten apart, that cover [low, high]."""
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def make_log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that cover [low, high], at most about five."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    stride = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, last + stride, stride)]


def _tick(value: float, ticks: Sequence[float]) -> str:
    """Short text that still tells neighbouring ticks apart."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(value) or 1.0)
    largest = max(map(abs, ticks))
    if abs(value) < largest * 1e-6:
        return "0"
    for suffix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if largest >= 10 * size or (largest >= size and step >= size / 10):
            return f"{value / size:.6g}{suffix}"
    if largest < 1e-3:
        return f"{value:.2g}".replace("e-0", "e-")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}" if largest >= 0.01 else f"{value:.6g}"


# ------------------------------------------------------------------------------------------------ lines


def _line(name: str, points: Points, frame: _Frame, colour: int, limits: tuple[int, int], x_name: str) -> str:
    max_points, max_hover = limits
    places = [(_place(frame.x(x)), _place(frame.y(y))) for x, y in downsample(points, max_points)]
    path = "".join(f"{'L' if number else 'M'}{x} {y}" for number, (x, y) in enumerate(places))
    marked = points if len(points) <= max_hover else downsample(points, max_hover)
    # Few points, such as evaluations, are shown as dots; of many only the one under the pointer.
    kind = "dot" if len(points) <= 12 else "hover"
    dots = "".join(
        f'<circle cx="{_place(frame.x(x))}" cy="{_place(frame.y(y))}" r="{3 if kind == "dot" else 6}">'
        f"<title>{escape(x_name)} {format_number(int(x) if x == int(x) else x)} · {escape(name)} {format_number(y)}</title></circle>"
        for x, y in marked
    )
    return f'<path class="line c{colour}" d="{path}"/><g class="{kind} c{colour}">{dots}</g>'


def _place(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _legend(names: Sequence[str]) -> tuple[str, float]:
    """The legend above the plot, in as many lines as it needs, and the height where the plot begins."""
    parts, x, y = [], float(_LEFT), 12.0
    for index, name in enumerate(names):
        width = 24 + _CHARACTER * len(name) + 12
        if x > _LEFT and x + width > WIDTH:
            x, y = float(_LEFT), y + _LEGEND_LINE
        colour = index % NUM_COLOURS
        parts.append(f'<path class="line c{colour}" d="M{_place(x)} {_place(y - 4)}h18"/>')
        parts.append(f'<text class="legend" x="{_place(x + 24)}" y="{_place(y)}">{escape(name)}</text>')
        x += width
    return "".join(parts), y + 10
