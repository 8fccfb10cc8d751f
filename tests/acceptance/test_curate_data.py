"""Curation on real data: what is found of what is known to be there. ALIGNMENT_DATA names the folder of the data."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from alignment.curate.require import missing_modules

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(bool(missing_modules()), reason="the [curate] extra is not installed"),
]
DATA = Path(os.environ.get("ALIGNMENT_DATA", "absent"))
# lid.176 codes of the files of lingua's own test sentences
LANGUAGES = [
    "en",
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "nl",
    "pl",
    "ru",
    "uk",
    "tr",
    "ar",
    "hi",
    "zh",
    "ja",
    "ko",
    "vi",
    "id",
    "sv",
    "fi",
]
TYPES = {
    "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "US_SSN": "ssn", "IBAN_CODE": "iban", "EMAIL_ADDRESS": "email",
    "IP_ADDRESS": "ip",
}  # fmt: skip
# Lines in which there is nothing: what pattern matchers take for phones, addresses and cards.
HARD_NEGATIVES = [
    "build 1.2.3.45678", "OID 1.3.6.1.4.1.311.21.20", "left-pad@1.3.0", "release 10.15.7.1", "ISBN 978-3-16-148410-0",
    "ISBN-10 0-306-40615-2", "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709", "md5 d41d8cd98f00b204e9800998ecf8427e",
    "uuid 123e4567-e89b-12d3-a456-426614174000", "from 1914-1918", "pages 123-456", "at 12:30:45.678901", "2024-01-31T00:12:34",
    "pi 3.14159265358979", "order 20240131001234", "10 000 000 people", "std::vector<int>::iterator", "0x7fff5fbff8a0",
    "RFC 2616, section 14.35.1", "v2.10.0.1 of the kit", "192.168.1.254 in the lab", "mask 255.255.255.0", "127.0.0.1:8080",
    "tracking 1Z999AA10123456784", "EAN 4006381333931", "score 21-19, 21-17", "lat 52.520008, lon 13.404954", "phi 1.6180339887",
    "fe80::1ff:fe23:4567:890a", "git 9fceb02d0ae598e95dc970b74767f19372d61af8",
]  # fmt: skip


def sentences(code: str) -> list[str]:
    found = [path for path in (DATA / "langid").rglob("*") if path.stem == code and "sentence" in str(path).lower()]
    return found[0].read_text(encoding="utf-8").splitlines() if found else []


def test_sentences_of_twenty_languages_are_told_apart() -> None:
    from alignment.curate.language import detect

    right = total = 0
    for code in LANGUAGES:
        lines = [line for line in sentences(code) if line.strip()][:500]
        right += sum(detect(line, 2000)[0] == code for line in lines)
        total += len(lines)
    print(f"language: {right / total:.4f} of {total} sentences")
    assert total > 5000
    assert right / total >= 0.98


def test_structured_personal_data_is_found_and_other_numbers_are_left() -> None:
    from alignment.curate.pii import find

    kinds = ("email", "phone", "ip", "card", "iban", "ssn", "secret")
    found, all_spans = Counter(), Counter()
    for row in json.loads((DATA / "pii/presidio-synth-v2/synth_dataset_v2.json").read_text(encoding="utf-8")):
        hits = find(row["full_text"], kinds)
        for span in row["spans"]:
            if kind := TYPES.get(span["entity_type"]):
                start, end = span["start_position"], span["end_position"]
                all_spans[kind] += 1
                covered = sum(max(0, min(end, hit.end) - max(start, hit.start)) for hit in hits)
                found[kind] += covered > 0.8 * (end - start)
    false = [line for line in HARD_NEGATIVES if find(line, kinds)]
    recall = found.total() / all_spans.total()
    print(f"pii: recall {recall:.3f} {dict(found)} of {dict(all_spans)}; false alarms {false}")
    assert recall >= 0.80
    assert len(false) <= 2


def test_evaluation_items_are_found_verbatim_reformatted_and_in_halves(tmp_path: Path) -> None:
    from alignment.curate.decontaminate import EvalIndex
    from alignment.recipe.curate_spec import DecontaminateSpec, EvalSetSpec

    rows = [json.loads(line) for line in (DATA / "instruct/gsm8k/test.jsonl").open(encoding="utf-8")]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps({"q": row["question"]}) + "\n" for row in rows))
    index = EvalIndex(DecontaminateSpec(evals=[EvalSetSpec(path="items.jsonl")]), tmp_path)
    text = (DATA / "text/gutenberg-98/98-0.txt").read_text(encoding="utf-8")
    clean = [text[start : start + 2000] for start in range(0, len(text) - 2000, 2000)]
    rng = random.Random(0)
    hits: Counter = Counter()
    for row in rows:
        question = row["question"]
        words = question.split()
        planted = {
            "verbatim": question,
            "reformatted": " ".join(words).upper().replace(",", " , "),
            "other numbers": "".join(str(rng.randrange(10)) if char.isdigit() else char for char in question),
            "first half": " ".join(words[: len(words) // 2]),
        }
        for kind, part in planted.items():
            hits[kind] += index.search(f"{clean[0][:300]} {part} {clean[1][:300]}") is not None
    rates = {kind: count / len(rows) for kind, count in hits.items()}
    tables = [" ".join(str(rng.randrange(1000)) for _ in range(300)) for _ in range(200)]
    false = sum(index.search(part) is not None for part in clean + tables)
    print(f"decontamination: {rates}; {false} of {len(clean) + len(tables)} clean texts")
    assert min(rates[kind] for kind in ("verbatim", "reformatted", "other numbers")) >= 0.99
    assert sum(hits.values()) / (4 * len(rows)) >= 0.9
    assert false == 0


def test_copied_articles_are_found_and_no_others_are_joined() -> None:
    from alignment.curate.duplicates import Sketcher, group_near
    from alignment.recipe.curate_spec import NearDedupSpec

    folder = DATA / "near-dup/minhash-articles-a"
    articles = dict(
        line.split(" ", 1) for line in (folder / "articles_1000.train").read_text().splitlines() if " " in line
    )
    pairs = [line.split() for line in (folder / "articles_1000.truth").read_text().splitlines() if line.strip()]
    sketcher = Sketcher(NearDedupSpec())
    for text in articles.values():
        sketcher.add(text)
    groups = dict(zip(articles, group_near(*sketcher.result(), NearDedupSpec()).tolist(), strict=True))
    found = sum(groups[one] == groups[other] for one, other in pairs)
    joined = len(groups) - len(set(groups.values()))
    print(f"near duplicates: {found} of {len(pairs)} pairs, {joined} rows joined")
    assert found == len(pairs) == joined


def test_text_of_many_languages_passes_the_filters() -> None:
    from datatrove.data import Document

    from alignment.curate import quality
    from alignment.recipe.curate_spec import FinewebSpec, GopherQualitySpec, GopherRepetitionSpec

    codes = [
        "ara",
        "arb",
        "bul",
        "cmn",
        "deu",
        "ell",
        "fin",
        "fra",
        "heb",
        "hin",
        "hun",
        "ind",
        "ita",
        "jpn",
        "kor",
        "nld",
        "pol",
        "por",
        "ron",
        "rus",
        "spa",
        "swe",
        "tha",
        "tur",
        "ukr",
        "vie",
    ]
    short = {
        "ara": "ar", "bul": "bg", "cmn": "zh", "deu": "de", "ell": "el", "fin": "fi", "fra": "fr", "heb": "he", "hin": "hi",
        "hun": "hu", "ind": "id", "ita": "it", "jpn": "ja", "kor": "ko", "nld": "nl", "pol": "pl", "por": "pt", "ron": "ro",
        "rus": "ru", "spa": "es", "swe": "sv", "tha": "th", "tur": "tr", "ukr": "uk", "vie": "vi",
    }  # fmt: skip
    survived = {}
    for code in codes:
        path = DATA / f"text-multilingual/tatoeba-laser-112/tatoeba.{code}-eng.{code}"
        if not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        texts = [" ".join(lines[start : start + 30]) for start in range(0, min(len(lines), 900), 30)]
        language = short[code]
        filters = [
            quality.gopher_repetition(GopherRepetitionSpec(), language),
            quality.gopher_quality(GopherQualitySpec(), language),
            quality.fineweb(FinewebSpec(), language),
        ]
        kept = sum(all(one.filter(Document(text, "1")) is True for one in filters) for text in texts)
        survived[language] = kept / len(texts)
    print(f"languages: {survived}")
    assert sum(share >= 0.5 for share in survived.values()) >= 15
    assert all(survived[code] >= 0.5 for code in ("zh", "ja", "th", "hi", "ar"))
