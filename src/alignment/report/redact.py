"""What must not leave this machine with a result: secrets, and absolute paths with the user names in them."""

import re
from pathlib import Path

SECRET = re.compile(
    r"hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}"
)
_GIVEN_SECRET = re.compile(
    r"(?i)(?<![\w-])((?:--(?:hf[_-])?(?:token|api[_-]?key|password|secret)[ =])"
    r"|(?:(?:\w*_)?(?:hf_token|api_key|apikey|password|secret)\s*[=:]\s*)|(?:token=))\S+"
)
_ABSOLUTE = re.compile(r"(?<![\w./:~<}])(?:~|/[\w.+@-]+)(?:/[\w.+@ -]*[\w.+@-])+/?")


def redact(text: str, here: Path | None = None) -> str:
    """`text` without secrets; absolute paths below `here` (default: the current folder) become relative, others their last name."""
    text = SECRET.sub("[secret]", text)
    text = _GIVEN_SECRET.sub(r"\1[secret]", text)
    base = Path.cwd() if here is None else here
    return _ABSOLUTE.sub(lambda match: _shorten(match[0], base), text)


def _shorten(path: str, here: Path) -> str:
    given = Path(path)
    return given.relative_to(here).as_posix() if given.is_relative_to(here) else given.name
