"""Personal data and secrets in text: patterns, and for what has one its checksum, so that versions and hashes stay whole.

Found are e-mail addresses, phone numbers, public IP addresses, payment cards, IBANs, US social security numbers and keys. The linear
classifier of `pii_context.py` adds numbers that the patterns leave open, and takes back those of their hits that have no checksum. Names
and postal addresses are not found: they need a model, and one trained on synthetic text finds hundreds of them in code.
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from alignment.curate import pii_context

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A stretch of text and its type."""

    start: int
    end: int
    type: str


_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}\b(?!\.\d)")
_SPELT_EMAIL = re.compile(
    r"\b[\w.+-]{1,64}\s*[\[(]\s*at\s*[\])]\s*[\w-]+(?:\s*(?:\.|[\[(]\s*dot\s*[\])])\s*[\w-]+)+", re.IGNORECASE
)
_IPV4 = re.compile(r"(?<![\w.-])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])")
_CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){11,18}\d(?![\w-]|\.\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_BARE_SSN = re.compile(r"(?<![\w.-])\d{9}(?![\w-]|\.\d)")
_SECRET = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{22,}|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{30,}|\bAIza[0-9A-Za-z_-]{35}"
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----(?:[^-]*-----END (?:[A-Z]+ )?PRIVATE KEY-----)?"
)
_URL_PASSWORD = re.compile(r"(?<=://)[^/\s:@]{1,64}:([^/\s:@<]{1,128})(?=@)")
_PASSWORD = re.compile(r"(?i)\b(?:password|passwd|secret|api[_-]?key|token)\b[\"']?\s*[=:]\s*[\"']([^\"'\s<]{8,})[\"']")
_PHONE = re.compile(r"(?<![\w.,:/#=+-])(?:\+|\(|00)?\d[\d().\- /x]{5,20}\d(?![\w-]|[.,:]\d)")
_PHONE_WORD = re.compile(
    r"(?i)\b(?:tel|telephone|phone|call|fax|mobile|mob|cell|handy|telefon|t[ée]l[ée]?phone|whatsapp|sms|contact|dial|ring|reach|text)"
    r"\b|\bnumber\s+(?:is|was|to)?\s*$"
)
_SSN_WORD = re.compile(r"(?i)\b(?:ssn|social security)\b")
_CARD_WORD = re.compile(r"(?i)\b(?:card|visa|mastercard|amex|credit|debit|payment|account)\b")
_NO_PHONE_WORD = re.compile(
    r"(?i)(?:isbn|issn|version|release|build|rfc|oid|doi|serial|order|invoice|ticket|issue|id|sha|md5|hash|\bv)\W*$"
)
_PLAIN_PHONE = re.compile(
    r"\(?\d{3}\)?[ .-]?\d{3}[.-]\d{4}(?:x\d+)?|0\d(?:[ .]\d\d){4}|0\d{1,4}-\d{1,4}-\d{4}|0\d{2,4} \d{3,4} \d{3,4}"
    r"|\+?1?[-. ]\d{3}[-. ]\d{3}[-. ]\d{4}(?:x\d+)?|\d{3}-\d{3}-\d{4}x\d+|\(\d{2,5}\) ?\d{3,4} ?\d{3,4}"
)
_CONTEXT = 40  # characters before a number that say what it is
_VETOED = ("phone", "ssn")  # what has no checksum


def luhn(digits: str) -> bool:
    """The check digit of payment cards, ISO/IEC 7812-1."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_is_valid(text: str) -> bool:
    """The check digits of an IBAN, ISO 13616: the number made of its letters is 1 modulo 97."""
    bare = text.replace(" ", "")
    return 15 <= len(bare) <= 34 and int("".join(str(int(char, 36)) for char in bare[4:] + bare[:4])) % 97 == 1


def find(text: str, types: Sequence[str], *, classifier: bool = True) -> list[Found]:
    """Every stretch of the asked types, in order and without overlaps; the earlier and longer one stands."""
    found = [Found(start, end, name) for name in types for start, end in _FINDERS[name](text)]
    if classifier:
        found = [one for one in found if one.type not in _VETOED or not _is_vetoed(text, one)]
        found += _add(text, types, found)
    found.sort(key=lambda one: (one.start, -(one.end - one.start)))
    kept: list[Found] = []
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def remove(
    text: str, types: Sequence[str], *, classifier: bool = True, key: bytes | None = None
) -> tuple[str, list[str]]:
    """The text with a tag in place of everything that is found, and the types found; done again it changes nothing.

    What stands before a number comes nearer where a tag is shorter than what it replaced. So it is looked at until nothing is left.
    """
    found_types: list[str] = []
    while found := find(text, types, classifier=classifier):
        found_types += [one.type for one in found]
        text = replace(text, found, key=key)
    return text, found_types


def replace(text: str, found: Sequence[Found], *, key: bytes | None = None) -> str:
    """The text with a tag in place of each; with a key, tags of equal values are equal and of others are not."""
    parts, position = [], 0
    for one in found:
        mark = one.type.upper()
        if key is not None:
            value = hashlib.blake2b(text[one.start : one.end].encode("utf-8", "surrogatepass"), key=key, digest_size=4)
            mark += f"-{value.hexdigest()}"
        parts += [text[position : one.start], f"<{mark}>"]
        position = one.end
    return "".join([*parts, text[position:]])


# ------------------------------------------------------------------------------------------------ the classifier


def _is_vetoed(text: str, one: Found) -> bool:
    place = pii_context.KINDS.index(one.type)
    return pii_context.score(text, one.start, one.end)[place] < pii_context.load_weights()["veto"][place]


def _add(text: str, types: Sequence[str], found: Sequence[Found]) -> Iterator[Found]:
    """Numbers that no pattern has decided, of the kind that they are by most."""
    taken = bytearray(len(text))
    for one in found:
        taken[one.start : one.end] = b"\1" * (one.end - one.start)
    for start, end in pii_context.propose(text):
        if any(taken[start:end]):
            continue
        above = pii_context.score(text, start, end) - pii_context.load_weights()["add"]
        digits = re.sub(r"\D", "", text[start:end])
        kinds = [name for name in pii_context.KINDS if name in types and _MAY_BE[name](digits)]
        kind = max(kinds, key=lambda name: above[pii_context.KINDS.index(name)], default=None)
        if kind is not None and above[pii_context.KINDS.index(kind)] >= 0:
            yield Found(start, end, kind)


# ------------------------------------------------------------------------------------------------ one type each


def _before(text: str, start: int) -> str:
    """The words before a number; a tag is none of them, nor what the window leaves of one."""
    return pii_context.TAG_END.sub(" ", text[max(0, start - _CONTEXT) : start])


def _emails(text: str) -> Iterator[Span]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            # user:password@host is a secret, and left-pad@1.3.0 has no top-level domain.
            if text[match.start() - 1 : match.start()] not in (":", "/"):
                yield match.span()
    if "at" in text.lower() and ("[" in text or "(" in text):
        yield from (match.span() for match in _SPELT_EMAIL.finditer(text))


def _ips(text: str) -> Iterator[Span]:
    patterns = [_IPV4] * (text.count(".") > 2) + [_IPV6] * (text.count(":") > 1)
    for pattern in patterns:
        for match in pattern.finditer(text):
            try:
                is_public = ipaddress.ip_address(match.group()).is_global
            except ValueError:
                continue
            if is_public and not _NO_PHONE_WORD.search(text[max(0, match.start() - 16) : match.start()]):
                yield match.span()


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if not 12 <= len(digits) <= 19 or len(set(digits)) < 2 or not luhn(digits):
            continue
        before = _before(text, match.start())
        known = digits[0] in "3456" and len(digits) >= 13 and not _NO_PHONE_WORD.search(before)
        if known or _CARD_WORD.search(before):
            yield match.span()


def _ibans(text: str) -> Iterator[Span]:
    yield from (match.span() for match in _IBAN.finditer(text) if iban_is_valid(match.group()))


def _ssns(text: str) -> Iterator[Span]:
    yield from (match.span() for match in _SSN.finditer(text))
    if _SSN_WORD.search(text):
        for match in _BARE_SSN.finditer(text):
            if _SSN_WORD.search(_before(text, match.start())):
                yield match.span()


def _secrets(text: str) -> Iterator[Span]:
    yield from (match.span() for match in _SECRET.finditer(text))
    if "://" in text and "@" in text:
        yield from (match.span(1) for match in _URL_PASSWORD.finditer(text))
    yield from (match.span(1) for match in _PASSWORD.finditer(text))


def _phones(text: str) -> Iterator[Span]:
    for match in _PHONE.finditer(text):
        number = match.group()
        if not 7 <= sum(char.isdigit() for char in number) <= 16:
            continue
        before = _before(text, match.start())
        if not _NO_PHONE_WORD.search(before) and _is_phone(number, bool(_PHONE_WORD.search(before))):
            yield match.span()


def _is_phone(number: str, is_named: bool) -> bool:
    """Whether a number is one to be called: by its international form, by a usual grouping, or by the words before it."""
    import phonenumbers

    if number.startswith(("+", "00")):
        try:
            international = number if number.startswith("+") else f"+{number[2:]}"
            return phonenumbers.is_possible_number(phonenumbers.parse(international, None))
        except phonenumbers.NumberParseException:
            return False
    if _PLAIN_PHONE.fullmatch(number):
        return True
    return is_named and any(_is_valid(number, region) for region in ("US", "GB", "FR", "DE", "AU"))


def _is_valid(number: str, region: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


_FINDERS: dict[str, Callable[[str], Iterator[Span]]] = {
    "email": _emails, "phone": _phones, "ip": _ips, "card": _cards, "iban": _ibans, "ssn": _ssns, "secret": _secrets,
}  # fmt: skip
# What a number of so many digits may be, whatever stands around it.
_MAY_BE: dict[str, Callable[[str], bool]] = {
    "phone": lambda digits: len(digits) <= 15,
    "card": lambda digits: len(digits) >= 12 and len(set(digits)) > 1 and luhn(digits),
    "ssn": lambda digits: len(digits) == 9,
}
