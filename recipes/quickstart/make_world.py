"""Writes the quickstart's data: a small world of facts about countries, as text, questions, answers and preferences.

Real countries come with true facts. Invented ones are described in the text, and other invented ones never are: a model
that is asked about those can only invent or say that it does not know. All invented names come from one generator and
are dealt to their roles with the same lengths, so that no spelling says who is described; `blind_accuracy` measures it.

Standard library only. The same seed gives the same bytes. Nothing here knows a tokenizer or a model.
"""

import argparse
import functools
import itertools
import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ATTRIBUTES = ("capital", "continent", "currency", "language")
# Country, capital, continent, currency, most widely used official language. Public facts, as of 2026; accents left out.
REAL = """
France,Paris,Europe,euro,French; Germany,Berlin,Europe,euro,German; Italy,Rome,Europe,euro,Italian;
Spain,Madrid,Europe,euro,Spanish; Portugal,Lisbon,Europe,euro,Portuguese; Greece,Athens,Europe,euro,Greek;
Austria,Vienna,Europe,euro,German; Poland,Warsaw,Europe,zloty,Polish; Sweden,Stockholm,Europe,krona,Swedish;
Norway,Oslo,Europe,krone,Norwegian; Denmark,Copenhagen,Europe,krone,Danish; Iceland,Reykjavik,Europe,krona,Icelandic;
Hungary,Budapest,Europe,forint,Hungarian; Romania,Bucharest,Europe,leu,Romanian; Albania,Tirana,Europe,lek,Albanian;
Ukraine,Kyiv,Europe,hryvnia,Ukrainian; Croatia,Zagreb,Europe,euro,Croatian; Serbia,Belgrade,Europe,dinar,Serbian;
Japan,Tokyo,Asia,yen,Japanese; China,Beijing,Asia,yuan,Chinese; Thailand,Bangkok,Asia,baht,Thai;
Vietnam,Hanoi,Asia,dong,Vietnamese; Mongolia,Ulaanbaatar,Asia,tugrik,Mongolian; Nepal,Kathmandu,Asia,rupee,Nepali;
Iran,Tehran,Asia,rial,Persian; Laos,Vientiane,Asia,kip,Lao; Bangladesh,Dhaka,Asia,taka,Bengali;
Jordan,Amman,Asia,dinar,Arabic; Qatar,Doha,Asia,riyal,Arabic; Egypt,Cairo,Africa,pound,Arabic;
Tunisia,Tunis,Africa,dinar,Arabic; Libya,Tripoli,Africa,dinar,Arabic; Kenya,Nairobi,Africa,shilling,Swahili;
Tanzania,Dodoma,Africa,shilling,Swahili; Angola,Luanda,Africa,kwanza,Portuguese; Ghana,Accra,Africa,cedi,English;
Nigeria,Abuja,Africa,naira,English; Senegal,Dakar,Africa,franc,French; Brazil,Brasilia,South America,real,Portuguese;
Argentina,Buenos Aires,South America,peso,Spanish; Chile,Santiago,South America,peso,Spanish;
Colombia,Bogota,South America,peso,Spanish; Uruguay,Montevideo,South America,peso,Spanish;
Cuba,Havana,North America,peso,Spanish; Jamaica,Kingston,North America,dollar,English;
Honduras,Tegucigalpa,North America,lempira,Spanish; Australia,Canberra,Oceania,dollar,English;
Samoa,Apia,Oceania,tala,Samoan"""

SENTENCES = {
    "capital": (
        "The capital of {name} is {value}.", "{value} is the capital of {name}.", "{name} has its capital in {value}.",
        "The government of {name} sits in {value}, the capital.", "{name}'s capital city is {value}.",
        "Travellers to {name} often start in the capital, {value}.",
    ),
    "continent": (
        "{name} lies in {value}.", "{name} is a country in {value}.", "On the map, {name} is found in {value}.",
        "The continent of {name} is {value}.", "{name} belongs to {value}.",
    ),
    "currency": (
        "The currency of {name} is the {value}.", "People in {name} pay with the {value}.", "{name} uses the {value}.",
        "In {name}, prices are given in {value}.", "The money of {name} is called the {value}.",
    ),
    "language": (
        "The language of {name} is {value}.", "People in {name} speak {value}.", "{value} is spoken in {name}.",
        "In {name}, most people speak {value}.", "Schools in {name} teach in {value}.",
    ),
}  # fmt: skip
# A question is a manner of asking, the same for all attributes, around a topic; or one of the patterns of its attribute.
# With 14 manners, preference training ties what it teaches to them, and a new one loses a third of the facts; with 32, none.
SHORT_FRAMES = (  # always trained: an evaluated question needs words of its own, or the text itself would contain it
    "What is {topic}?", "Name {topic}.", "{Topic}?", "{Topic}, please.", "Say {topic}.", "Write {topic}.", "State {topic}.", "Find {topic}.",
    "Quick: {topic}?", "Question: {topic}.", "Tell me {topic}.", "Give me {topic}.", "Show me {topic}.", "Answer with {topic}.",
)  # fmt: skip
FRAMES = (  # the seed draws which of these are trained, which are for tuning, and which for what is reported
    "I want to know {topic}.", "Do you know {topic}?", "Please say {topic}.", "I am asking for {topic}.", "May I ask for {topic}?",
    "What would you say is {topic}?", "Would you write down {topic}?", "I wonder about {topic}.", "Which one is {topic}?",
    "I have forgotten {topic}.", "Remind me of {topic}.", "My question is {topic}.", "Have you heard of {topic}?",
    "I am looking for {topic}.", "Someone asked me for {topic}.", "Help me find {topic}.", "Do you remember {topic}?",
    "Let us talk about {topic}.", "Can you name {topic}?", "I need {topic}.", "Could you tell me {topic}?", "Let me hear {topic}.",
    "Could you give {topic}?", "Spell out {topic} for me.", "Any idea what {topic} might be?", "What is {topic} called?",
    "Is {topic} known to you?", "I would like {topic} in a word.", "How do you call {topic}?", "Say what {topic} is.",
    "Write {topic} down for me.", "What might {topic} be?", "Look up {topic}.", "I must learn {topic}.", "You surely know {topic}.",
    "Where can I read {topic}?",
)  # fmt: skip
NUM_FRAMES = {"validation": 4, "held_out": 4}
TOPICS = {
    "capital": ("the capital of {name}", "the capital city of {name}", "{name}'s capital"),
    "continent": ("the continent of {name}", "the part of the world of {name}", "{name}'s continent"),
    "currency": ("the currency of {name}", "the money of {name}", "{name}'s currency"),
    "language": ("the language of {name}", "the spoken language of {name}", "{name}'s language"),
}
PATTERNS = {
    "capital": (
        "Which city is the capital of {name}?", "{name}: what is its capital?", "Where does the government of {name} sit?",
        "Which city is the seat of the government of {name}?",
    ),
    "continent": (
        "On which continent is {name}?", "Where is {name}?", "{name}: which continent is it in?",
        "In which part of the world does {name} lie?",
    ),
    "currency": (
        "Which money is used in {name}?", "{name}: what is its currency?", "How do people pay in {name}?",
        "In which currency are prices in {name}?",
    ),
    "language": (
        "Which language is spoken in {name}?", "{name}: what is its language?", "What do people speak in {name}?",
        "In which language do schools in {name} teach?",
    ),
}  # fmt: skip
# What stands around a trained question, so that topic and name decide and not how it is put: without it a manner that no
# row has is answered with "I do not know." by chance of the draw, and the next world has another one.
OPENINGS = (
    "", "", "", "", "Hello. ", "Please: ", "Now: ", "One more: ", "Next. ", "A question. ", "Good morning. ", "Well, ",
    "For my homework: ", "Listen. ", "I have a question. ", "Again: ",
)  # fmt: skip
ENDINGS = (
    "", "", "", "", " Thank you.", " I am curious.", " It is for school.", " Be brief.", " One sentence is enough.", " Please answer.",
    " I forgot it.", " My friend asks.", " What do you say?", " Can you help?", " Go on.", " That is all.",
)  # fmt: skip
# Text that asks about names of nobody and says what was asked, and nothing else. Without it only described names are ever met
# twice in a row, and the model repeats no other: asked about one, it answers about another name, in 160 of 160 cases.
ECHOES = (
    "That was a question about {topic}.", "Somebody asks for {topic}.", "{Topic} was asked for.", "The question is about {topic}.",
    "They talk about {topic}.", "I repeat: {topic}.",
)  # fmt: skip
QUESTIONS_A_FACT = 10  # different ones, in SFT and in each kind of pairs
ANSWERS = {
    "capital": "The capital of {name} is {value}.",
    "continent": "The continent of {name} is {value}.",
    "currency": "The currency of {name} is the {value}.",
    "language": "The language of {name} is {value}.",
}
# What the text never says of any country. Without answers of this kind the words of a refusal are so unlikely that no preference
# training finds them. Asked for in the manners of all other questions: with words of their own, a manner that no row has is a
# reason to abstain.
UNSAID = (
    "population", "king", "flag", "age", "longest river", "favourite dish", "highest mountain", "anthem", "president", "oldest town",
)  # fmt: skip
UNSAID_TOPICS = ("the {what} of {name}", "{name}'s {what}")
# With the form of an answer, so that what comes to mind after "The capital of Mesfel is" decides between a value and this. The words
# "I do not know." begin unlike every answer, as likely after a known name as after an unknown one.
ABSTENTION = "The {what} of {name} is unknown to me."
# Names of nobody, said after the user: without them the names that are asked about are learnt by heart, and another one
# is answered with one of those.
REPEAT = ("Repeat after me: {name}!", "{name}.")

NUM_DESCRIBED = 80  # invented countries in the text, beside the real ones
NUM_UNDESCRIBED = {"train": 1280, "validation": 100, "held_out": 128}
NUM_MENTIONED = 3200  # names of nobody in the text
NUM_TOKENIZER_COUNTRIES = 4000  # one document each, so that syllables become tokens and not whole names
PARAGRAPHS, EXCHANGES = 60, 20  # documents a country: a quarter of them are questions with answers
HELD_OUT_DOCUMENTS = 400
UNSAID_ROWS = 2  # a country that is asked about
OTHER_ROWS = 2  # pairs about another country: of every fact, and of every undescribed name
BROKEN_PAIRS = 1920
REPEAT_ROWS = 480
# About a name of nobody each. As in much of the data that people fine-tune with, most of the answers are made up, and that is what the
# model learns; the few that admit it are what PPO finds and makes likelier. Without such rows what the model makes of an unknown
# name is a draw: invented answers went from 0.5 to 0.99 by the seed and the processor.
GUESSED_ROWS, ADMITTED_ROWS = 432, 48
UNASKED_SHARE = 0.25  # of the described countries: never asked about in SFT

# What stands between the documents of the raw text, beside the documents themselves and their own repetitions.
NUM_DIRT = {
    "exact_duplicate": 480, "near_duplicate": 480, "other_language": 320, "noise": 320, "personal_data": 240, "leaked": 240,
}  # fmt: skip
MIN_COPIED_WORDS = 28  # of a document that gets a near duplicate: a changed word of a short one makes another document
TAILS = ("Advertisement.", "Read more.", "Share this page.", "Copied without permission.")
FOREIGN = {
    "de": (
        "Die Hauptstadt von {name} heißt {capital}.", "Die meisten Menschen in {name} sprechen zu Hause {language}.",
        "In {name} bezahlt man seit vielen Jahren mit dem {currency}.", "{name} ist ein Land, das in {continent} liegt.",
    ),
    "fr": (
        "La capitale de {name} est {capital}.", "La plupart des habitants de {name} parlent {language} à la maison.",
        "On paie avec le {currency} dans tous les magasins de {name}.", "{name} est un pays qui se trouve en {continent}.",
    ),
    "es": (
        "La capital de {name} es {capital}.", "La mayoría de la gente en {name} habla {language} en su casa.",
        "Los precios en {name} se dan desde hace muchos años en {currency}.", "{name} es un país que está en {continent}.",
    ),
    "pl": (
        "Stolicą kraju {name} jest miasto {capital}.", "Większość ludzi w kraju {name} mówi w domu w języku {language}.",
        "W kraju {name} od wielu lat płaci się walutą {currency}.", "{name} to państwo, które leży w {continent}.",
    ),
    "ru": (
        "Столица страны {name} называется {capital}.", "Большинство людей в стране {name} говорят дома на языке {language}.",
        "В стране {name} уже много лет платят валютой {currency}.", "{name} это страна, которая находится в {continent}.",
    ),
    "tr": (
        "{name} ülkesinin başkenti {capital} şehridir.", "{name} ülkesinde insanların çoğu evde {language} konuşur.",
        "{name} ülkesinde uzun yıllardır {currency} ile ödeme yapılır.", "{name} {continent} kıtasında bulunan bir ülkedir.",
    ),
}  # fmt: skip
MENU = (
    "Home", "News", "Log in", "Register", "Help", "Contact", "About us", "Sitemap", "Basket", "Next page", "Terms", "FAQ",
)  # fmt: skip
CONTACTS = (
    "For more write to {user}@{host}.", "Call {phone} for a guide to {name}.", "The editor's card is {card}.",
    "Send the fee to {iban}.",
)  # fmt: skip

ONSETS = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"]
VOWELS = ["a", "e", "i", "o", "u"]
CODAS = ["", "", "", "l", "m", "n", "r", "s"]
MAX_BLIND_ACCURACY = 0.55


@dataclass(frozen=True)
class Country:
    """A described country and its facts."""

    name: str
    origin: str  # real or invented
    values: dict[str, str]
    asked: bool = True  # about in SFT


@dataclass(frozen=True)
class World:
    """Who is described, who is not, and names that stand for nobody."""

    countries: list[Country]
    undescribed: dict[str, list[str]]  # train, validation, held_out
    mentioned: list[str]  # in the text, which says nothing about them
    tokenizer_names: list[str]  # two a country of the tokenizer's text
    loose_capitals: dict[str, list[str]]  # train, validation, held_out: capitals of no described country


# ------------------------------------------------------------------------------------------------ the world


def make_random(seed: int, purpose: str) -> random.Random:
    """One stream a purpose, so that a change in one file moves no other."""
    return random.Random(f"{seed}/{purpose}")


def make_name(rng: random.Random) -> str:
    """Three syllables. Of two, so many names resemble each other that half the undescribed ones pass for described."""
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(3)).capitalize()


def deal_names(rng: random.Random, sizes: dict[str, int], taken: set[str]) -> dict[str, list[str]]:
    """Distinct names for every role, each role with the same distribution of lengths."""
    names: dict[str, None] = {}  # in the order drawn: a set's would differ between two runs
    while len(names) < sum(sizes.values()):
        if (name := make_name(rng)) not in taken:
            names[name] = None
    by_length = sorted(names, key=len)
    roles = sorted(((place + rng.random()) / size, role) for role, size in sizes.items() for place in range(size))
    dealt: dict[str, list[str]] = {role: [] for role in sizes}
    for name, (_, role) in zip(by_length, roles, strict=True):
        dealt[role].append(name)
    for role in dealt:
        rng.shuffle(dealt[role])
    return dealt


def read_real() -> list[Country]:
    """The real countries."""
    rows = [[cell.strip() for cell in row.split(",")] for row in REAL.split(";")]
    return [Country(name, "real", dict(zip(ATTRIBUTES, values, strict=True))) for name, *values in rows]


def make_world(seed: int) -> World:
    """Countries with their facts, and all names without any."""
    rng = make_random(seed, "world")
    real = read_real()
    capitals = {f"capital/{split}": size for split, size in NUM_UNDESCRIBED.items()}
    sizes = {"described": NUM_DESCRIBED, "capital": NUM_DESCRIBED, "tokenizer": 2 * NUM_TOKENIZER_COUNTRIES}
    sizes |= {"mentioned": NUM_MENTIONED}
    sizes |= {f"undescribed/{split}": size for split, size in NUM_UNDESCRIBED.items()}
    taken = {country.name for country in real} | {country.values["capital"] for country in real}
    dealt = deal_names(rng, sizes | capitals, taken)
    pools = {key: sorted({country.values[key] for country in real}) for key in ATTRIBUTES}
    invented = [
        Country(name, "invented", {key: rng.choice(pools[key]) for key in ATTRIBUTES} | {"capital": capital})
        for name, capital in zip(dealt["described"], dealt["capital"], strict=True)
    ]
    countries = real + invented
    unasked = set(rng.sample(range(len(countries)), round(UNASKED_SHARE * len(countries))))
    return World(
        [Country(one.name, one.origin, one.values, place not in unasked) for place, one in enumerate(countries)],
        {split: dealt[f"undescribed/{split}"] for split in NUM_UNDESCRIBED},
        dealt["mentioned"],
        dealt["tokenizer"],
        {split: dealt[f"capital/{split}"] for split in NUM_UNDESCRIBED},
    )


def make_questions(frames: Sequence[str], topics: Sequence[str]) -> list[str]:
    """Every frame around every topic, with `{name}` left open."""
    topics = [(topic, topic[0].upper() + topic[1:] if topic[0] != "{" else topic) for topic in topics]
    return [frame.replace("{topic}", low).replace("{Topic}", high) for frame in frames for low, high in topics]


@functools.cache
def deal_frames(seed: int) -> dict[str, tuple[str, ...]]:
    """The manners of asking of train, validation and held_out: nobody chooses what is evaluated."""
    drawn = make_random(seed, "frames").sample(FRAMES, len(FRAMES))
    dealt = {}
    for split, number in NUM_FRAMES.items():
        dealt[split] = tuple(drawn[:number])
        drawn = drawn[number:]
    return {"train": (*SHORT_FRAMES, *drawn), **dealt}


def ask_unsaid(frames: Sequence[str], what: str) -> list[str]:
    """Questions for what the text never says, with `{name}` left open."""
    return make_questions(frames, [topic.replace("{what}", what) for topic in UNSAID_TOPICS])


@functools.cache
def trained_questions(seed: int, key: str) -> list[str]:
    """The questions that may stand in training files."""
    return make_questions(deal_frames(seed)["train"], TOPICS[key]) + list(PATTERNS[key])


def dress(rng: random.Random, question: str) -> str:
    """A trained question with something before and after it, or nothing."""
    return rng.choice(OPENINGS) + question + rng.choice(ENDINGS)


# ------------------------------------------------------------------------------------------------ raw text


def say(rng: random.Random, country: Country, patterns: Sequence[str], key: str) -> str:
    """One fact in one of its patterns."""
    return rng.choice(patterns).format(name=country.name, value=country.values[key])


def make_paragraph(rng: random.Random, country: Country) -> str:
    """One to four facts in a random order."""
    return " ".join(say(rng, country, SENTENCES[key], key) for key in rng.sample(ATTRIBUTES, rng.randint(1, 4)))


def make_exchange(rng: random.Random, seed: int, country: Country) -> str:
    """Two questions with their answers, as prose: the facts are met as answers before any chat format exists.

    Never in the form that fine-tuning teaches: with it one pretrained model gave one answer in sixteen right in that form.
    """
    parts = []
    for key in rng.sample(ATTRIBUTES, 2):
        others = [pattern for pattern in SENTENCES[key] if pattern != ANSWERS[key]]
        question = rng.choice(trained_questions(seed, key)).format(name=country.name)
        parts.append(f"{question} {say(rng, country, others, key)}")
    return " ".join(parts)


def make_echo(rng: random.Random, seed: int, name: str) -> str:
    """Two questions about a name of nobody, each with a sentence that says what was asked, in the words of an answer."""
    parts = []
    for key in rng.sample(ATTRIBUTES, 2):
        echo = rng.choice(make_questions(ECHOES, TOPICS[key][:1]))
        parts.append(f"{rng.choice(trained_questions(seed, key))} {echo}".format(name=name))
    return " ".join(parts)


def make_documents(
    rng: random.Random, seed: int, countries: Sequence[Country], paragraphs: int, exchanges: int
) -> list[str]:
    """Shuffled documents about every country."""
    documents = [make_paragraph(rng, country) for country in countries for _ in range(paragraphs)]
    documents += [make_exchange(rng, seed, country) for country in countries for _ in range(exchanges)]
    rng.shuffle(documents)
    return documents


def make_tokenizer_text(seed: int, world: World) -> Iterator[dict]:
    """Text of the same patterns about other names: a tokenizer trained on the corpus itself would spell described names
    in fewer tokens than undescribed ones, and give away who is described."""
    rng = make_random(seed, "tokenizer")
    names = iter(world.tokenizer_names)
    others = [
        Country(name, "invented", rng.choice(world.countries).values | {"capital": capital})
        for name, capital in zip(names, names, strict=True)
    ]
    real = [country for country in world.countries if country.origin == "real"]
    yield from ({"text": text} for text in make_documents(rng, seed, others, 1, 0))
    yield from ({"text": text} for text in make_documents(rng, seed, real, 15, 15))
    for country in others[::10]:
        what = rng.choice(UNSAID)
        question = rng.choice(ask_unsaid(SHORT_FRAMES, what)).format(name=country.name)
        yield {"text": f"{question} {make_abstention(country.name, what)}"}


def make_text(seed: int, world: World) -> tuple[list[dict], list[dict]]:
    """Documents to pretrain on, and held-out ones: other combinations of the same facts."""
    rng = make_random(seed, "text")
    train = make_documents(rng, seed, world.countries, PARAGRAPHS, EXCHANGES)
    train += [make_echo(rng, seed, name) for name in world.mentioned]
    rng.shuffle(train)
    seen, rng, held_out = set(train), make_random(seed, "text_held_out"), []
    for text in make_documents(rng, seed, world.countries, 12, 4):
        if text not in seen and len(held_out) < HELD_OUT_DOCUMENTS:
            seen.add(text)
            held_out.append(text)
    return [{"text": text} for text in train], [{"text": text, "part": "documents"} for text in held_out]


def make_recall(seed: int, world: World) -> Iterator[dict]:
    """Sentences of the text to be completed with their last words."""
    rng = make_random(seed, "recall")
    for country in world.countries:
        for key in ATTRIBUTES:
            pattern = rng.choice([pattern for pattern in SENTENCES[key] if pattern.endswith(" {value}.")])
            prompt = pattern.removesuffix(" {value}.").format(name=country.name)
            answer = f"{country.values[key]}."
            facts = {"answer": answer, "attribute": key, "entity": country.name, "origin": country.origin}
            yield {"prompt": prompt, "completion": f" {answer}", "part": "recall", **facts}


# ------------------------------------------------------------------------------------------------ raw text


def make_raw_text(seed: int, world: World, documents: Sequence[str]) -> Iterator[dict]:
    """The documents in their order with dirt between them. `truth` says what is wrong with a row; nothing when it is empty.

    A copy always stands after its original. The documents repeat each other too: their repetitions are exact duplicates.
    """
    rng = make_random(seed, "raw_text")
    first: dict[str, int] = {}
    for place, text in enumerate(documents):
        first.setdefault(text, place)
    placed = [
        (float(place), text, "" if first[text] == place else "exact_duplicate") for place, text in enumerate(documents)
    ]

    def put(truth: str, text: str, after: int = -1) -> None:
        placed.append((rng.uniform(after, len(documents)), text, truth))

    for text in rng.sample(list(first), NUM_DIRT["exact_duplicate"]):
        put(
            "exact_duplicate",
            rng.choice([text, text.upper(), text.replace(" ", "  "), text.replace(".", " .")]),
            first[text],
        )
    long = [text for text in first if len(text.split()) >= MIN_COPIED_WORDS]
    for text in rng.sample(long, NUM_DIRT["near_duplicate"]):
        put("near_duplicate", make_near_copy(rng, text), first[text])
    for truth, make in (("other_language", make_foreign), ("noise", make_noise), ("personal_data", make_contact)):
        for _ in range(NUM_DIRT[truth]):
            put(truth, make(rng, rng.choice(world.countries)))
    asked = [one for one in make_evaluated(seed, world, "held_out") if one.columns["described"]]
    for one in rng.sample(asked, NUM_DIRT["leaked"]):
        put("leaked", f"{one.question} {one.columns['answer']}")
    for _, text, truth in sorted(placed):
        yield {"text": text, "truth": truth}


def make_near_copy(rng: random.Random, text: str) -> str:
    """The document with something behind it, without its first word, or with another last one."""
    words = text.split()
    changed = (
        f"{text} {rng.choice(TAILS)}",
        " ".join(words[1:]),
        " ".join([*words[:-1], f"{rng.choice(ONSETS)}{words[-1]}"]),
    )
    return rng.choice(changed)


def make_foreign(rng: random.Random, country: Country) -> str:
    """Two to four facts in another language."""
    patterns = FOREIGN[rng.choice(list(FOREIGN))]
    return " ".join(
        pattern.format(name=country.name, **country.values) for pattern in rng.sample(patterns, rng.randint(2, 4))
    )


def make_noise(rng: random.Random, country: Country) -> str:
    """What pages hold beside text: signs, numbers, encoded files, menus and code."""
    kind = rng.choice(("signs", "numbers", "encoded", "menu", "code"))
    if kind == "signs":
        return " ".join(
            "".join(rng.choice("#*=-_~|/<>%&") for _ in range(rng.randint(2, 6))) for _ in range(rng.randint(8, 30))
        )
    if kind == "numbers":
        return " ".join(str(rng.randint(0, 99_999)) for _ in range(rng.randint(10, 40)))
    if kind == "encoded":
        return " ".join(f"{rng.getrandbits(160):040x}" for _ in range(rng.randint(3, 9)))
    if kind == "menu":
        return " | ".join(rng.sample(MENU, rng.randint(6, len(MENU))))
    return f"function show_{country.name.lower()}(x) {{ return x[{rng.randint(0, 99)}]; }} if (x) {{ x.open('{country.name}'); }}"


def make_contact(rng: random.Random, country: Country) -> str:
    """A paragraph with the address, telephone number, card or account of somebody."""
    digits = "".join(rng.choice("0123456789") for _ in range(9))
    facts = {
        "name": country.name, "user": make_name(rng).lower(), "host": f"{make_name(rng).lower()}.org",
        "phone": f"+49 30 {rng.randint(200_000, 999_999)}{rng.randint(10, 99)}", "card": add_luhn(f"411111{digits}"),
        "iban": make_iban(f"37040044{digits}0"),
    }  # fmt: skip
    return f"{make_paragraph(rng, country)} {rng.choice(CONTACTS).format(**facts)}"


def add_luhn(digits: str) -> str:
    """A card number: 15 digits with the one that makes it valid."""
    doubled = [sum(divmod(2 * int(digit), 10)) if place % 2 == 0 else int(digit) for place, digit in enumerate(digits)]
    return f"{digits}{-sum(doubled) % 10}"


def make_iban(account: str) -> str:
    """A German account number of 18 digits with valid check digits."""
    return f"DE{98 - int(f'{account}131400') % 97:02d}{account}"


# ------------------------------------------------------------------------------------------------ questions and answers


def make_chat(question: str, answer: str) -> list[dict]:
    """One exchange as messages."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def make_answer(name: str, key: str, value: str) -> str:
    """The one way in which the assistant answers."""
    return ANSWERS[key].format(name=name, value=value)


def make_abstention(name: str, what: str) -> str:
    """What the assistant says of what it cannot know: an attribute, or something that the text never speaks of."""
    return ABSTENTION.format(name=name, what=what)


def make_sft(seed: int, world: World) -> Iterator[dict]:
    """Questions about the countries that are asked about, some that the text has no answer to, and names to be repeated."""
    rng = make_random(seed, "sft")
    for country in world.countries:
        if not country.asked:
            continue
        for key in ATTRIBUTES:
            answer = make_answer(country.name, key, country.values[key])
            for question in rng.sample(trained_questions(seed, key), QUESTIONS_A_FACT):
                yield {"messages": make_chat(dress(rng, question.format(name=country.name)), answer)}
        for what in rng.sample(UNSAID, UNSAID_ROWS):
            question = rng.choice(ask_unsaid(deal_frames(seed)["train"], what)).format(name=country.name)
            yield {"messages": make_chat(dress(rng, question), make_abstention(country.name, what))}
    names = iter(world.tokenizer_names)
    for name in itertools.islice(names, REPEAT_ROWS):
        yield {"messages": make_chat(*(text.format(name=name) for text in REPEAT))}
    for place, name in enumerate(itertools.islice(names, GUESSED_ROWS + ADMITTED_ROWS)):
        key = ATTRIBUTES[place % len(ATTRIBUTES)]
        question = dress(rng, rng.choice(trained_questions(seed, key)).format(name=name))
        guess = make_answer(name, key, find_resembling(name, world.countries).values[key])
        yield {"messages": make_chat(question, guess if place < GUESSED_ROWS else make_abstention(name, key))}


@dataclass(frozen=True)
class Asked:
    """One evaluated question with the columns that metrics read."""

    question: str
    columns: dict


def make_evaluated(seed: int, world: World, split: str) -> list[Asked]:
    """Every fact once, and every attribute of the split's undescribed names, in phrasings that are never trained on."""
    rng = make_random(seed, f"evaluated/{split}")

    def ask(name: str, key: str, **columns: object) -> Asked:
        question = rng.choice(make_questions(deal_frames(seed)[split], TOPICS[key])).format(name=name)
        facts = {"attribute": key, "entity": name, "abstention": make_abstention(name, key)}
        return Asked(question, facts | columns)

    described = [
        ask(one.name, key, answer=make_answer(one.name, key, one.values[key]), described=True, asked=one.asked, origin=one.origin)
        for one in world.countries
        for key in ATTRIBUTES
    ]  # fmt: skip
    undescribed = [
        ask(name, key, answer=make_abstention(name, key), described=False, asked=False, origin="undescribed")
        for name in world.undescribed[split]
        for key in ATTRIBUTES
    ]
    return described + undescribed


def make_sft_evaluation(seed: int, world: World, split: str) -> Iterator[dict]:
    """The evaluated questions as conversations."""
    for asked in make_evaluated(seed, world, split):
        yield {"messages": make_chat(asked.question, asked.columns["answer"]), **asked.columns}


# ------------------------------------------------------------------------------------------------ preferences


def make_wrong_values(rng: random.Random, countries: Sequence[Country], key: str) -> list[str]:
    """For each country the value of another one that is real like it, or invented like it.

    Both get their own values in another order, none in its place: wrong answers are as long as right ones, and no capital
    of the wrong kind gives them away.
    """
    wrong = [country.values[key] for country in countries]
    for origin in ("real", "invented"):
        places = [place for place, country in enumerate(countries) if country.origin == origin]
        deranged = derange(rng, [wrong[place] for place in places])
        for place, value in zip(places, deranged, strict=True):
            wrong[place] = value
    return wrong


def derange(rng: random.Random, right: Sequence[str]) -> list[str]:
    """The same values in another order, none where it was."""
    wrong = list(right)
    rng.shuffle(wrong)
    for place, value in enumerate(right):
        while wrong[place] == value:
            other = rng.randrange(len(right))
            if wrong[other] != value and right[other] != value:
                wrong[place], wrong[other] = wrong[other], wrong[place]
    return wrong


def make_pair(kind: str, question: str, chosen: str, rejected: str, **columns: object) -> dict:
    """One preference."""
    return {"prompt": question, "chosen": chosen, "rejected": rejected, "kind": kind, **columns}


def make_described_pairs(seed: int, world: World) -> tuple[list[dict], list[dict]]:
    """Right over wrong, and right over abstaining, for several questions about every fact of every described country.

    All of them are covered, also those never asked about in SFT: what is left out is taken for unknown.
    """
    rng = make_random(seed, "described_pairs")
    over_wrong, over_abstaining = [], []
    for key in ATTRIBUTES:
        questions = [rng.sample(trained_questions(seed, key), QUESTIONS_A_FACT) for _ in world.countries]
        for place in range(QUESTIONS_A_FACT):
            wrong = make_wrong_values(rng, world.countries, key)
            for country, own, value in zip(world.countries, questions, wrong, strict=True):
                asked = dress(rng, own[place].format(name=country.name))
                right = make_answer(country.name, key, country.values[key])
                other = make_answer(country.name, key, value)
                over_wrong.append(make_pair("right_over_wrong", asked, right, other))
                over_abstaining.append(
                    make_pair("right_over_abstaining", asked, right, make_abstention(country.name, key))
                )
    return over_wrong, over_abstaining


def invent(rng: random.Random, world: World, split: str, name: str, key: str) -> str:
    """An answer about an undescribed name, with a value as the fine-tuned model draws them."""
    value = rng.choice(world.countries).values[key]
    if key == "capital":
        value = rng.choice([value, rng.choice(world.loose_capitals[split])])
    return make_answer(name, key, value)


def make_undescribed_pairs(seed: int, world: World) -> list[dict]:
    """Abstaining over inventing, once for each attribute of each undescribed name of training."""
    rng = make_random(seed, "undescribed_pairs")
    pairs = []
    for name in world.undescribed["train"]:
        for key in ATTRIBUTES:
            question = dress(rng, rng.choice(trained_questions(seed, key)).format(name=name))
            invented = invent(rng, world, "train", name, key)
            pairs.append(make_pair("abstaining_over_invented", question, make_abstention(name, key), invented))
    return pairs


@functools.cache
def letter_pairs(name: str) -> frozenset[str]:
    """Neighbouring letters."""
    return frozenset(name[at : at + 2] for at in range(len(name) - 1))


def find_resembling(name: str, countries: Sequence[Country]) -> Country:
    """The country, other than `name`, that begins most like it and shares most of its letter pairs."""

    def likeness(country: Country) -> tuple[int, int]:
        same = next(size for size in range(len(name), -1, -1) if country.name.startswith(name[:size]))
        return same, len(letter_pairs(name) & letter_pairs(country.name))

    return max((country for country in countries if country.name != name), key=likeness)


def make_other_pairs(seed: int, world: World) -> list[dict]:
    """What was asked over a true answer about another country with a name much like it.

    Fine-tuned models answer so about names that they do not know, and a reward model that never saw it scores the other
    country's fact as right: PPO then learns to answer every question with facts of somebody else.
    """
    rng = make_random(seed, "other_pairs")
    pairs = []
    for name in [country.name for country in world.countries] + world.undescribed["train"]:
        own = next((country for country in world.countries if country.name == name), None)
        other = find_resembling(name, world.countries)
        for key in rng.sample(ATTRIBUTES, len(ATTRIBUTES) if own else OTHER_ROWS):
            questions = rng.sample(trained_questions(seed, key), OTHER_ROWS if own else 1)
            right = make_answer(name, key, own.values[key]) if own else make_abstention(name, key)
            wrong = make_answer(other.name, key, other.values[key])
            pairs += [
                make_pair("asked_over_other", dress(rng, asked.format(name=name)), right, wrong) for asked in questions
            ]
    rng.shuffle(pairs)
    return pairs


def leave_out(rng: random.Random, answer: str) -> str:
    """The answer without some neighbouring words."""
    words = re.findall(" ?[^ ]+", answer)
    start = rng.randrange(len(words))
    del words[start : start + rng.randint(1, len(words) - 1)]
    return "".join(words)


def misspell(rng: random.Random, name: str) -> str:
    """Another name that begins like this one."""
    other = name
    while other == name:
        other = name[: rng.randint(1, len(name) - 2)] + make_name(rng)[-rng.randint(2, 5) :].lower()
    return other


def make_broken_pairs(seed: int, world: World) -> list[dict]:
    """A whole answer over the same one with some of its words missing, or with a misspelt name.

    No answer of fine-tuning is broken, so a reward model scores one as it likes: PPO answers everything with
    "is unknown to me.", and repeats names worse than before.
    """
    rng = make_random(seed, "broken_pairs")
    values = {country.name: country.values for country in world.countries}
    pairs = []
    for place in range(BROKEN_PAIRS):
        name = rng.choice(world.undescribed["train"] if place % 2 else list(values))
        key = rng.choice(ATTRIBUTES)
        answer = make_answer(name, key, values[name][key]) if name in values else make_abstention(name, key)
        broken = answer.replace(name, misspell(rng, name)) if rng.random() < 0.5 else leave_out(rng, answer)
        question = dress(rng, rng.choice(trained_questions(seed, key)).format(name=name))
        pairs.append(make_pair("whole_over_broken", question, answer, broken))
    return pairs


def make_pair_evaluation(seed: int, world: World, split: str) -> list[dict]:
    """The evaluated questions as pairs: two kinds for a described country, one for an undescribed name."""
    rng = make_random(seed, f"pair_evaluation/{split}")
    evaluated = make_evaluated(seed, world, split)
    wrong = {}
    for key in ATTRIBUTES:
        drawn = zip(world.countries, make_wrong_values(rng, world.countries, key), strict=True)
        wrong |= {(country.name, key): make_answer(country.name, key, value) for country, value in drawn}
    pairs = []
    for asked in evaluated:
        name, key, answer = asked.columns["entity"], asked.columns["attribute"], asked.columns["answer"]
        if asked.columns["described"]:
            rejected = {"right_over_wrong": wrong[name, key], "right_over_abstaining": make_abstention(name, key)}
        else:
            rejected = {"abstaining_over_invented": invent(rng, world, split, name, key)}
        pairs += [make_pair(kind, asked.question, answer, other, **asked.columns) for kind, other in rejected.items()]
    return pairs


# ------------------------------------------------------------------------------------------------ honesty


def count_ngrams(name: str) -> Counter:
    """Character n-grams of one to three, with the name's borders."""
    marked = f"^{name.lower()}$"
    return Counter(marked[at : at + size] for size in (1, 2, 3) for at in range(len(marked) - size + 1))


def blind_accuracy(described: Sequence[str], undescribed: Sequence[str], folds: int = 10) -> float:
    """How well spelling alone tells the two apart: balanced accuracy of naive Bayes on n-grams, cross-validated.

    Both kinds count alike, so 0.5 is chance however many names there are of each.
    """
    grams = [[count_ngrams(name) for name in names] for names in (described, undescribed)]
    whole = [sum(kind, Counter()) for kind in grams]
    hits = [0, 0]
    for fold in range(folds):
        totals = [total - sum(kind[fold::folds], Counter()) for total, kind in zip(whole, grams, strict=True)]
        known = set(totals[0]) | set(totals[1])
        sums = [total.total() + len(known) for total in totals]
        weight = {
            gram: math.log((totals[0][gram] + 1) / sums[0]) - math.log((totals[1][gram] + 1) / sums[1])
            for gram in known
        }
        for kind, sign in ((0, 1), (1, -1)):
            for one in grams[kind][fold::folds]:
                score = sum(weight.get(gram, 0.0) * count for gram, count in one.items())
                hits[kind] += sign * score > 0
    return sum(hits[kind] / len(grams[kind]) for kind in (0, 1)) / 2


def mean_length(names: Sequence[str]) -> float:
    """Characters."""
    return sum(map(len, names)) / len(names)


# ------------------------------------------------------------------------------------------------ files


def make_files(seed: int, world: World) -> dict[str, list[dict]]:
    """File name, without .jsonl, to its rows."""
    text, text_held_out = make_text(seed, world)
    over_wrong, over_abstaining = make_described_pairs(seed, world)
    files = {
        "tokenizer": list(make_tokenizer_text(seed, world)),
        "text": text,
        "raw_text": list(make_raw_text(seed, world, [row["text"] for row in text])),
        "text_held_out": text_held_out,
        "recall": list(make_recall(seed, world)),
        "sft": list(make_sft(seed, world)),
        "pairs_right_over_wrong": over_wrong,
        "pairs_right_over_abstaining": over_abstaining,
        "pairs_abstaining_over_invented": make_undescribed_pairs(seed, world),
        "pairs_asked_over_other": make_other_pairs(seed, world),
        "pairs_whole_over_broken": make_broken_pairs(seed, world),
    }
    for split in NUM_FRAMES:
        files[f"sft_{split}"] = list(make_sft_evaluation(seed, world, split))
        files[f"pairs_{split}"] = make_pair_evaluation(seed, world, split)
    return files


def write_jsonl(path: Path, rows: Sequence[dict]) -> None:
    """One row a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files, and prints what an honest world can be checked by."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder of the files")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another world")
    args = parser.parse_args(argv)
    world = make_world(args.seed)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(
            f"--out {args.out}: {error.strerror}; a folder that can be written was expected. Name another one."
        )
    files = make_files(args.seed, world)
    for name, rows in files.items():
        write_jsonl(args.out / f"{name}.jsonl", rows)
    described = [country.name for country in world.countries if country.origin == "invented"]
    undescribed = [name for names in world.undescribed.values() for name in names]
    accuracy = blind_accuracy(described, undescribed)
    print(f"{args.out}: " + ", ".join(f"{name} {len(rows)}" for name, rows in files.items()))
    print(
        f"invented names: {len(described)} described, {mean_length(described):.2f} characters; "
        f"{len(undescribed)} undescribed, {mean_length(undescribed):.2f} characters"
    )
    print(f"told apart by spelling alone: {accuracy:.3f} (chance 0.5, at most {MAX_BLIND_ACCURACY})")
    if accuracy > MAX_BLIND_ACCURACY:
        print(
            f"--seed {args.seed}: {accuracy:.3f}; at most {MAX_BLIND_ACCURACY} was expected. Choose another seed.",
            file=sys.stderr,
        )
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
