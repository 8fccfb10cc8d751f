"""Filters: datatrove's decisions, made faster; words and languages of every script."""

import random
import unicodedata

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.utils.text import simplify_text
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.curate import quality
from alignment.curate.language import detect
from alignment.curate.words import SPACELESS, Words, fold
from alignment.recipe.curate_spec import C4Spec, FinewebSpec, GopherQualitySpec, GopherRepetitionSpec

SLOW, FAST = GopherRepetitionFilter(language=Words()), quality.FastRepetition(language=Words())
ARTICLE_1 = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geiste der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميراً وعليهم أن يعامل بعضهم بعضاً بروح الإخاء.",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi con người đều được tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng hữu.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю і повинні діяти у відношенні один до одного в дусі братерства.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.",
}  # fmt: skip


@given(st.lists(st.sampled_from(["ab ", "c ", "dé ", "the cat sat on ", "\n", "\n\n", "x.", "漢字"]), max_size=120))
@settings(max_examples=300, deadline=None)
def test_fast_repetition_decides_as_datatrove_does(parts: list[str]) -> None:
    text = "".join(parts)
    if text.strip():
        assert FAST.filter(Document(text, "1")) == SLOW.filter(Document(text, "1"))


def test_fast_repetition_meets_every_limit_of_datatrove() -> None:
    """Random texts of few words: without this the property test above might see two reasons only."""
    rng = random.Random(3)
    reasons = set()
    for number in range(600):
        few = number % 10 == 0
        words = [f"w{rng.randrange(2 + number // 40 if few else 4 + number * 4)}" for _ in range(150)]
        phrase = [f"p{rng.randrange(50)}" for _ in range(rng.randrange(4, 14))]
        for _ in range(number % 6):
            place = rng.randrange(len(words))
            words[place:place] = phrase
        text = " ".join(word + ("\n" if rng.random() < 0.02 else "") for word in words)
        verdict = SLOW.filter(Document(text, "1"))
        assert FAST.filter(Document(text, "1")) == verdict, text
        reasons.add(verdict if verdict is True else verdict[1])
    assert {True, "top_2_gram"} <= reasons
    assert len([reason for reason in reasons if str(reason).startswith("duplicated")]) >= 2


@given(st.text(st.characters(blacklist_categories=["Cs"], max_codepoint=0x24FF), max_size=60))
@settings(max_examples=500, deadline=None)
def test_folded_words_are_datatroves_where_spaces_part_words(text: str) -> None:
    # Without the scripts that are cut into characters, and without characters newer than Python's own table.
    is_old = [unicodedata.category(char) != "Cn" and not SPACELESS.search(char) for char in text]
    spaced = "".join(char for char, keep in zip(text, is_old, strict=True) if keep)
    assert [word.decode() for word in fold(spaced)] == simplify_text(spaced).split()


@pytest.mark.parametrize("code", ARTICLE_1)
def test_real_text_of_a_language_is_known_and_passes_the_filters(code: str) -> None:
    text = ARTICLE_1[code]
    assert detect(text, 2000)[0] == code
    filters = [
        quality.gopher_quality(GopherQualitySpec(min_words=10), code),
        quality.fineweb(FinewebSpec(), code),
        quality.c4(C4Spec(min_sentences=1), code),
    ]
    for one in filters:
        assert one.filter(Document(text, "1")) is True, type(one).__name__


@pytest.mark.parametrize("text", [" ", "a", "\x00", "\ud800", "?", "\n\n\n", "a\u2028b", "😀" * 50, "x" * 300_000])
def test_strange_text_never_raises(text: str) -> None:
    doc = Document(text, "1")
    for make, spec in (
        (quality.gopher_quality, GopherQualitySpec()),
        (quality.gopher_repetition, GopherRepetitionSpec()),
        (quality.fineweb, FinewebSpec()),
        (quality.c4, C4Spec()),
    ):
        make(spec, "en").filter(doc)
    detect(text, 2000)
    fold(text)


def test_no_letters_are_no_language() -> None:
    assert detect("123 456 ... !!!", 2000) == ("", 0.0)


def test_text_with_accents_and_typographic_marks_folds_as_datatrove_folds_it() -> None:
    characters = "aZé ïÅ’“”—…ñ1 ,.5٫ΣσßİıſKÅﬁ①²٣\u0301\u0327\u00a0\u2009\u200bΩç\n"
    rng = random.Random(0)
    for _ in range(20_000):
        few = rng.sample(characters, rng.randint(2, 8))
        text = "".join(rng.choice(few) for _ in range(rng.randint(1, 12)))
        assert [word.decode() for word in fold(text)] == simplify_text(text).split(), repr(text)
