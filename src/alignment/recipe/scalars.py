"""What a plain YAML scalar means here: the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).

`1e-5` and `1e5` are numbers; `no`, `off`, `1:30` and dates are text. Numbers with underscores, infinities and NaN are
refused rather than read, because readers of YAML disagree on the first and no key of a recipe can use the others.
"""

import math
import re

Value = str | int | float | bool | None

_NULL = {"null", "Null", "NULL", "~"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,100}")
_PREFIXED = re.compile(r"0o[0-7]{1,50}|0x[0-9a-fA-F]{1,50}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_UNDERSCORED = re.compile(r"[-+]?[0-9.][0-9.eE+-]*_[0-9_.eE+-]*")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_scalar(text: str) -> tuple[Value, str, str]:
    """The value of a plain scalar, and what is wrong with it and what to do ("" and "": nothing)."""
    if text in _NULL:
        return None, "", ""
    if text in _BOOL:
        return _BOOL[text], "", ""
    if _UNDERSCORED.fullmatch(text) and read_number(text.replace("_", "")) is not None:
        return None, f"found {text}; a number without underscores was expected", f"write {text.replace('_', '')}"
    number = read_number(text)
    if _NOT_FINITE.fullmatch(text) or (isinstance(number, float) and not math.isfinite(number)):
        return None, f"found {text}; a finite number was expected", "write a number"
    return (text if number is None else number), "", ""


def read_number(text: str) -> int | float | None:
    """The number that a text spells in YAML 1.2, or None."""
    if _INT.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else None
