"""The classifier finds numbers that no pattern has, by their words; other numbers stay; its weights are those that the script makes."""

import random
from pathlib import Path

import pytest

from alignment.curate import pii_training
from alignment.curate.pii import find, remove, replace
from alignment.curate.pii_context import WEIGHTS_PATH, hash_features, propose
from alignment.curate.pii_sentences import HELD_OUT, TRAIN
from tests.acceptance.test_curate_data import HARD_NEGATIVES

ALL = ("email", "phone", "ip", "card", "iban", "ssn", "secret")
ADDED = [
    ("Handynummer: 0171 2345678, bis bald", "0171 2345678", "phone"),
    ("Позвоните, мой номер 8 (912) 345-67-89", "8 (912) 345-67-89", "phone"),
    ("cep telefonum: 0532 123 45 67", "0532 123 45 67", "phone"),
    ("联系电话：13812345678", "13812345678", "phone"),
    ("Tel:030/1234567", "030/1234567", "phone"),
    ("Tél. : 06\u00a012\u00a034\u00a056\u00a078", "06\u00a012\u00a034\u00a056\u00a078", "phone"),
    ("номер карты 2200 7001 2345 6781 до завтра", "2200 7001 2345 6781", "card"),
    ("social security: 123 45 6789 (old)", "123 45 6789", "ssn"),
]
VETOED = [
    "So he made 109200-5000=$104200 by phone", "the phone was released on 2022-10-19", "proton magnetic moment ratio      1.066 639 9189    0.000 000",
]  # fmt: skip
OTHER_NUMBERS = [
    "Bestellnummer 0171 2345678", "rng = default_rng(2435908729190400)",
    "'revenue': 24927000000, 'eps': 0.91", "12345 67890 11121 31415 16171 81920", "commit 20481357",
    "J. Math. 1 (1981) 267-283.", "population of 10 000 000 in 1990", "x = 13812345678 + 5",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "kind"), ADDED)
def test_what_only_its_words_give_away_is_found_with_the_classifier_only(text: str, value: str, kind: str) -> None:
    assert find(text, ALL, classifier=False) == []
    assert [(text[one.start : one.end], one.type) for one in find(text, ALL)] == [(value, kind)]


@pytest.mark.parametrize("text", VETOED)
def test_a_hit_without_checksum_is_taken_back_where_its_words_speak_against_it(text: str) -> None:
    assert [one.type for one in find(text, ALL, classifier=False)] == ["phone"]
    assert find(text, ALL) == []


def test_a_hit_with_a_checksum_is_never_taken_back() -> None:
    for number in ("4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"):
        text = f"seed = random({number})"
        assert [text[one.start : one.end] for one in find(text, ALL)] == [number]


@pytest.mark.parametrize("text", HARD_NEGATIVES + OTHER_NUMBERS)
def test_other_numbers_stay(text: str) -> None:
    assert remove(text, ALL) == (text, [])


def test_a_number_that_a_pattern_takes_for_another_kind_gets_its_own() -> None:
    text = "her social security number is 123 45 6789"
    assert [one.type for one in find(text, ALL, classifier=False)] == ["phone"]
    assert [one.type for one in find(text, ALL)] == ["ssn"]


def test_a_card_whose_check_digit_is_wrong_is_none_whatever_the_words() -> None:
    assert find("номер карты 2200 7001 2345 6782", ALL) == []


def test_numbers_are_proposed_whole_and_not_out_of_longer_ones() -> None:
    text = "(030 1234567); 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 $1234567 /1234567 a1234567 3.1415926 12345678@qq.com 1234567"
    assert [text[start:end] for start, end in propose(text)] == ["030 1234567", "1234567"]


@pytest.mark.parametrize("key", [None, b"seed"])
@pytest.mark.parametrize("classifier", [False, True])
def test_removing_twice_is_removing_once(classifier: bool, key: bytes | None) -> None:
    """Tags are shorter than numbers and spell "phone": neither may make a number of what stands beside them."""
    rng = random.Random(3)
    parts = (
        [text for text, _, _ in ADDED]
        + VETOED
        + OTHER_NUMBERS
        + ["+49 30 901820", "2125550187", "123-45-6789", "123456788"]
    )
    for _ in range(300):
        text = ", ".join(rng.choices(parts, k=4))
        once, types = remove(text, ALL, classifier=classifier, key=key)
        assert remove(once, ALL, classifier=classifier, key=key) == (once, [])
        assert (once, types) == remove(text, ALL, classifier=classifier, key=key)


def test_the_word_in_a_tag_is_no_word_of_the_text() -> None:
    for text in ("+49 30 901820, 2125550187", "123-45-6789, 123456788"):
        once = replace(text, find(text, ALL))
        assert find(once, ALL) == []
        assert hash_features("<PHONE> 1234567", 8, 15) == hash_features("4711 1234567", 5, 12)


def test_the_bundled_weights_are_those_that_the_script_makes(tmp_path: Path) -> None:
    pii_training.write(pii_training.train(), tmp_path / "made.npz")
    assert (tmp_path / "made.npz").read_bytes() == WEIGHTS_PATH.read_bytes()
    assert WEIGHTS_PATH.stat().st_size < 100_000


def test_thresholds_are_chosen_on_other_sentences_and_forms_than_weights() -> None:
    seen = {(group.kind, line) for group in TRAIN for line in group.forms + group.sentences}
    chosen = {(group.kind, line) for group in HELD_OUT for line in group.forms + group.sentences}
    assert seen & chosen == {("ssn", "###-##-####")}


def test_no_hard_line_is_trained_on() -> None:
    examples = pii_training.make_examples(TRAIN + HELD_OUT, 10_000, random.Random(0))
    assert not [line for line in HARD_NEGATIVES if any(line in example.text for example in examples)]
