"""Personal data is found; versions, hashes and numbers of other kinds are left whole."""

import pytest

from alignment.curate.pii import find, iban_is_valid, luhn, replace

ALL = ("email", "phone", "ip", "card", "iban", "ssn", "secret")
POSITIVES = [
    ("write to jane.doe+x@mail.example.org today", "jane.doe+x@mail.example.org", "email"),
    ("jane (at) example (dot) org", "jane (at) example (dot) org", "email"),
    ("call +44 20 7946 0958 now", "+44 20 7946 0958", "phone"),
    ("phone: (212) 555-0187", "(212) 555-0187", "phone"),
    ("ring 212-555-0187 or", "212-555-0187", "phone"),
    ("from 8.8.8.8 at noon", "8.8.8.8", "ip"),
    ("host 2001:4860:4860::8888 answers", "2001:4860:4860::8888", "ip"),
    ("pay with 4111 1111 1111 1111 please", "4111 1111 1111 1111", "card"),
    ("to DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00", "iban"),
    ("SSN 123-45-6789 on file", "123-45-6789", "ssn"),
    ("key AKIAABCDEFGHIJKLMNOP leaked", "AKIAABCDEFGHIJKLMNOP", "secret"),
    ("https://bob:hunter2xyz@example.org/x", "hunter2xyz", "secret"),
    ('password = "correct-horse"', "correct-horse", "secret"),
]
NEGATIVES = [
    "build 1.2.3.45678 of today", "OID 1.3.6.1.4.1.311.20", "left-pad@1.3.0 is out", "version 10.2.30.4 works",
    "ISBN 978-3-16-148410-0 again", "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709", "in 1914-1918 and 1939-1945",
    "between 12:30:45 and 13:00:00", "192.168.0.1 is private", "card 4111 1111 1111 1112 is wrong", "DOI 10.1000/182",
    "pi is 3.14159265358979", "order 20240131001234", "10 000 000 people", "range 100-200-300",
    "std::vector<int>::iterator", "a@b", "DE00 3704 0044 0532 0130 00", "f(x) = 2 (at) most", "uuid 123e4567-e89b-12d3-a456-426614174000",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "kind"), POSITIVES)
def test_it_is_found_whole_and_with_its_type(text: str, value: str, kind: str) -> None:
    assert [(text[one.start : one.end], one.type) for one in find(text, ALL)] == [(value, kind)]


@pytest.mark.parametrize("text", NEGATIVES)
def test_what_is_no_personal_data_is_left_alone(text: str) -> None:
    assert find(text, ALL) == []


def test_only_asked_types_are_found() -> None:
    assert [one.type for one in find("a.b@c.org, 8.8.8.8", ("ip",))] == ["ip"]


@pytest.mark.parametrize("key", [None, b"seed"])
def test_replacing_twice_is_replacing_once(key: bytes | None) -> None:
    text = " ; ".join(text for text, _, _ in POSITIVES)
    once = replace(text, find(text, ALL), key=key)
    assert replace(once, find(once, ALL), key=key) == once
    assert not any(value in once for _, value, _ in POSITIVES)


def test_a_surrogate_is_the_same_for_the_same_value_only() -> None:
    text = "a.b@c.org x.y@c.org a.b@c.org"
    one, other, again = replace(text, find(text, ALL), key=b"k").split()
    assert one == again != other
    assert one.startswith("<EMAIL-")


def test_check_digits_are_those_of_the_standards() -> None:
    """4539 1488 0343 6467 and GB82 WEST 1234 5698 7654 32 are the usual examples."""
    assert luhn("4539148803436467")
    assert not luhn("4539148803436468")
    assert iban_is_valid("GB82 WEST 1234 5698 7654 32")
    assert not iban_is_valid("GB82 WEST 1234 5698 7654 33")
