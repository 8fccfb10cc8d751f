"""What must not leave this machine with a result: secrets, and absolute paths with the user names in them.

Of a recipe, only values are changed, and paths only under the keys that name a place: what a model is told is free text, in which
`/v1/chat/completions` is a word like any other.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

REMOVED = "[secret]"  # what stands where a secret was
# Keys of a recipe whose value may be a file or folder.
PATH_KEYS = (
    "path", "data", "data_files", "mixture", "template", "reward_template", "reference", "reward_model", "value_model", "against",
)  # fmt: skip
# A token begins where no word goes on: not in `desk-...`, but behind the escapes of JSON (\n, \u00e9) and of addresses (%3D).
_BORDER = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"
# Words joined by dashes are a name, not a key: `sk-parallel-corpus-v2` is Slovak.
_WORD = r"(?:[a-z]{1,15}\d{0,4}|\d{1,4}[a-z]?)"
_NAME = rf"{_WORD}(?:[-_]{_WORD})*(?![\w-])"
SECRET = re.compile(
    rf"(?=[hgsAx]){_BORDER}(?:hf_[A-Za-z0-9]{{16,}}|gh[pousr]_[A-Za-z0-9]{{20,}}|github_pat_\w{{20,}}|sk-(?!{_NAME})[\w-]{{20,}}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,})"
)
# The value is what stands in quotes, or goes on to the next space; a quote that closes what the whole stands in is not of it.
_GIVEN_SECRET = re.compile(
    r"(?i)(?<![\w-])((?:--(?:hf[_-])?(?:token|api[_-]?key|password|secret)[ =])"
    r"|(?:(?:\w*_)?(?:hf_token|api_key|apikey|password|secret)\s*[=:]\s*)|(?:(?:access_|auth_)?token=))"
    r"""(?:"[^\s"][^"\n]*"|'[^\s'][^'\n]*'|[^\s"']\S*?(?=["']*(?:\s|$)))"""
)
_LOGIN = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)")  # user:password of an address
_ABSOLUTE = re.compile(r"(?<![\w./:~<}])(?:~|/[\w.+@-]+)(?:/[\w.+@ -]*[\w.+@-])+/?")


def redact(text: str, here: Path | None = None) -> str:
    """`text` without secrets; absolute paths below `here` (default: the current folder) become relative, others their last name."""
    base = Path.cwd() if here is None else here
    return _ABSOLUTE.sub(lambda match: _shorten(match[0], base), redact_secrets(text))


def redact_secrets(text: str) -> str:
    """`text` without tokens, keys and passwords, and otherwise as it is."""
    text = SECRET.sub(REMOVED, text)
    text = _LOGIN.sub(REMOVED, text)
    return _GIVEN_SECRET.sub(rf"\1{REMOVED}", text)


def redact_recipe(recipe: Any, here: Path | None = None) -> Any:
    """A recipe's values without secrets; absolute paths are shortened as `redact` does, where the key names a place."""
    base = Path.cwd() if here is None else here

    def change(key: str, text: str) -> str:
        text = redact_secrets(text)
        return _shorten(text, base) if key in PATH_KEYS and text.startswith(("/", "~")) else text

    return change_texts(recipe, change)


def change_texts(value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    """A copy of plain lists and dicts in which each text is `change(its key, text)`; keys are texts without one."""
    if isinstance(value, dict):
        return {change_texts(name, change): change_texts(item, change, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [change_texts(item, change, key) for item in value]
    return change(key, value) if isinstance(value, str) else value


def _shorten(path: str, here: Path) -> str:
    given = Path(path)
    return given.relative_to(here).as_posix() if given.is_relative_to(here) else given.name
