"""Which rows each source of a mixture gives, and in which order they come.

A source is an endless sequence of rows: one permutation after another, each drawn from the seed, the source's own name and the
number of the pass. `rows`, `repeat` and shares are stretches of that sequence, so position k of a source is arithmetic, and what
other sources there are does not matter to it. How the sources are laid beside each other is the mixer's.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from alignment.data.quotas import Sharing, find_quotas
from alignment.data.sources import Source
from alignment.errors import DataError
from alignment.recipe.data_spec import SourceSpec, TrainSourceSpec


def draw_sources(
    sources: Sequence[Source], seed: int, sharing: Sharing, tokens: Sequence[np.ndarray] | None
) -> list[np.ndarray]:
    """The rows of every source, int64, in the order in which they come.

    Entries of the same files share one sequence: with `rows` and `share` each goes on where the one before stopped.

    Args:
        tokens: of each source, the tokens of each of its rows; read when tokens are shared.

    Raises:
        DataError: a source that has fewer rows than it is asked for.
    """
    if sharing.share_of == "rows":
        tokens = [np.ones(len(source.rows), dtype=np.int64) for source in sources]
    used: Counter = Counter()
    shares = [find_share(source.spec) for source in sources]
    is_shared = [share is not None or sharing.temperature is not None for share in shares]
    drawn = [
        np.zeros(0, dtype=np.int64) if shared else _draw_amount(source, seed, used)
        for source, shared in zip(sources, is_shared, strict=True)
    ]
    sizes = [int(of_rows.sum()) for of_rows in tokens]
    fixed = [int(of_rows[rows].sum()) for of_rows, rows in zip(tokens, drawn, strict=True)]
    quotas = find_quotas([source.label for source in sources], shares, sizes, fixed, sharing)
    for index, (source, quota) in enumerate(zip(sources, quotas, strict=True)):
        if quota is not None:
            drawn[index] = _draw_quota(source, seed, used, quota, tokens[index], sharing.max_repeat)
    return drawn


def find_share(spec: SourceSpec) -> float | None:
    """The share of a training source; held-out sources have none."""
    return spec.share if isinstance(spec, TrainSourceSpec) else None


def identify(spec: SourceSpec) -> str:
    """What the rows are drawn by: as the recipe writes it, so that it is the same on every machine."""
    where = [f"{name}={value!r}" for name, value in sorted(spec.where.items())]
    kind = ["stream"] if spec.stream else []
    return "\n".join([spec.path, str(spec.name), str(spec.revision), str(spec.split), *spec.data_files, *where, *kind])


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers of one purpose, the same on every machine."""
    number = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64([seed, number]))


def _stretch(source: Source, seed: int, start: int, end: int) -> np.ndarray:
    """Positions start to end of the source's sequence."""
    available = len(source.rows)
    first = start // available
    passes = [
        generator(seed, f"{identify(source.spec)}\n{number}" if number else identify(source.spec)).permutation(
            available
        )
        for number in range(first, -(-end // available))
    ]
    rows = np.concatenate(passes) if passes else np.zeros(0, dtype=np.int64)
    return rows[start - first * available : end - first * available].astype(np.int64, copy=False)


def _draw_amount(source: Source, seed: int, used: Counter) -> np.ndarray:
    """Rows of a source that says itself how many: `rows`, `repeat` or, saying nothing, all once."""
    spec, available = source.spec, len(source.rows)
    if spec.rows is None:
        wanted = round((spec.repeat or 1) * available)
        if not wanted:
            raise DataError(
                f"{source.label}: repeat: {spec.repeat} of {available} rows is no row; at least one was expected. Raise 'repeat'."
            )
        return _stretch(source, seed, 0, wanted)
    start = used[identify(spec)]
    used[identify(spec)] += spec.rows
    if start + spec.rows > available:
        advice = "Lower 'rows'." if spec.stream else "Lower 'rows', or use 'repeat'."
        raise _too_few(source, start, f"rows: {spec.rows} were expected. {advice}")
    return _stretch(source, seed, start, start + spec.rows)


def _draw_quota(
    source: Source, seed: int, used: Counter, quota: int, tokens: np.ndarray, max_repeat: float
) -> np.ndarray:
    """The stretch whose tokens come nearest to the quota: less than one row too many or too few."""
    available, size = len(source.rows), int(tokens.sum())
    start = used[identify(source.spec)]
    rows = _stretch(source, seed, start, start + (quota // size + 2) * available)
    reached = np.cumsum(tokens[rows])
    count = int(np.searchsorted(reached, quota)) + 1
    if count > 1 and quota - reached[count - 2] <= reached[count - 1] - quota:
        count -= 1
    # Rounding tokens to whole rows may take one row more than the limit.
    rounding = int(tokens.max() > 1)
    if start + count > max_repeat * available + rounding:
        raise _too_few(source, start, f"its share is {count} rows. Lower its 'share', or raise data.max_repeat.")
    used[identify(source.spec)] = start + count
    return rows[:count]


def _too_few(source: Source, start: int, expected: str) -> DataError:
    before = f" after the {start} of its other entries" if start else ""
    return DataError(f"{source.label}: found {len(source.rows) - start} rows{before}; {expected}")
