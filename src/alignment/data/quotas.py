"""How much of each source a mixture takes: shares, a temperature and a total to numbers of rows or tokens, exactly.

Shares are taken as the decimals that the recipe writes, and everything is computed in fractions, so that a quota is never a
row off because 0.1 + 0.2 is not 0.3. Which rows fill a quota is the mixer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Literal

from alignment.errors import DataError
from alignment.recipe.data_spec import MixtureSpec


@dataclass(frozen=True)
class Sharing:
    """How the sources of a split share it; the defaults are those of a recipe without shares."""

    share_of: Literal["rows", "tokens"] = "rows"
    temperature: float | None = None
    total: int | None = None
    max_repeat: float = 1.0

    @classmethod
    def of(cls, data: MixtureSpec) -> "Sharing":
        return cls(data.share_of or "rows", data.temperature, data.total, data.max_repeat or 1.0)


def find_quotas(
    labels: Sequence[str], shares: Sequence[float | None], sizes: Sequence[int], fixed: Sequence[int], sharing: Sharing
) -> list[int | None]:
    """The rows or tokens of each source with a share; None for the others.

    The quotas together are exactly the total's part, each within one of its share (largest remainders; of equal ones the
    first source). Without a total they are as large as `max_repeat` allows the scarcest source, or, beside sources without
    a share, as large as those make them.

    Args:
        sizes: rows or tokens that each source has.
        fixed: rows or tokens that sources without a share give; 0 for the others.

    Raises:
        DataError: a source that has too little for its quota, or whose quota is nothing.
    """
    parts = _parts(shares, sizes, sharing)
    if not any(part is not None for part in parts):
        return [None] * len(parts)
    # Never past a whole number of uses, so that rounding a quota up cannot ask for more than there is.
    limits = [floor(Fraction(str(sharing.max_repeat)) * size) for size in sizes]
    quotas = _round(parts, _shared_total(parts, limits, sum(fixed), sharing.total))
    for label, part, quota, limit in zip(labels, parts, quotas, limits, strict=True):
        if quota is None:
            continue
        if quota > limit:
            raise DataError(
                f"{label}: a share of {float(part):.4g} is {quota} {sharing.share_of}; at most {limit} are there with each row used"
                f" {sharing.max_repeat:g} times. Lower its 'share' or data.total, or raise data.max_repeat."
            )
        if quota == 0:
            raise DataError(
                f"{label}: a share of {float(part):.4g} is none of the {sharing.share_of}; at least one was expected."
                " Raise its 'share' or data.total, or remove the source."
            )
    return quotas


def _parts(shares: Sequence[float | None], sizes: Sequence[int], sharing: Sharing) -> list[Fraction | None]:
    """Each source's part of the whole mixture."""
    if sharing.temperature is None:
        return [None if share is None else Fraction(str(share)) for share in shares]
    # p_i in proportion to n_i^(1/T), https://arxiv.org/abs/1907.05019 section 3.2.
    weights = [Fraction(size ** (1 / sharing.temperature)) for size in sizes]
    return [weight / sum(weights) for weight in weights]


def _shared_total(parts: Sequence[Fraction | None], limits: Sequence[int], fixed: int, total: int | None) -> int:
    """What the sources with a share give together."""
    given = sum(part for part in parts if part is not None)
    if None in parts:
        return round(fixed / (1 - given)) - fixed
    if total is not None:
        return total
    return floor(min(limit / part for part, limit in zip(parts, limits, strict=True)))


def _round(parts: Sequence[Fraction | None], total: int) -> list[int | None]:
    """Whole numbers that add up to `total`, in proportion to the parts."""
    given = sum(part for part in parts if part is not None)
    exact = [None if part is None else part / given * total for part in parts]
    quotas = [None if value is None else floor(value) for value in exact]
    left = total - sum(quota for quota in quotas if quota is not None)
    shared = [index for index, value in enumerate(exact) if value is not None]
    for index in sorted(shared, key=lambda index: quotas[index] - exact[index])[:left]:
        quotas[index] += 1
    return quotas
