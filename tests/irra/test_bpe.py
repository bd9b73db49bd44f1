"""Byte-pair encoding against open_clip's tokenizer."""

import random

import pytest
from open_clip.tokenizer import SimpleTokenizer

from irra.data.bpe import BytePairs

ALPHABETS = [
    "etaoinshrdlu  ",
    "Aa Zz09 .,-'!_&<>/\\\"",
    "'s 't 're 've 'm 'll 'd ",
    "ßéÅİıſ ñœ µ¼ŉ ﬁ",
    "女人穿红色 한국 الأحمر ",
    "👩‍🦰🧥❤️🇩🇪 \u200d\ufe0f",
    "\x00\x07\x1b\x7f\u0085\u00a0\u2028\u0301\ufffd\ufeff\t\n ",
    "Ã¶â€™Â ",  # what ftfy repairs
]
TEXTS = [
    "",
    "   ",
    "A woman's coat; she's &amp;amp; he'LL carry it -- WHITE-haired.",
    "<start_of_text> a man <END_OF_TEXT><end_of_text>x",
    "&lt;b&gt;bold&lt;/b&gt; &nbsp;&#128512; &notit;",
    "schÃ¶ne Straße â€œquotedâ€\x9d",
    "Dr Jekyll",
    "aaaaaaaaaaaaaaa abababababab mississippi",
]


@pytest.fixture(scope="module")
def theirs() -> SimpleTokenizer:
    tokenizer = SimpleTokenizer()
    tokenizer.cache.clear()  # the names of special tokens are ordinary words here
    return tokenizer


@pytest.fixture(scope="module")
def ours() -> BytePairs:
    return BytePairs(unused=0, longest=77)


def test_the_vocabulary_is_clip_s(ours: BytePairs, theirs: SimpleTokenizer) -> None:
    assert {piece: number for number, piece in enumerate(ours.pieces)} == theirs.encoder


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_has_clip_s_ids(ours: BytePairs, theirs: SimpleTokenizer, text: str) -> None:
    assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("alphabet", [*ALPHABETS, "".join(ALPHABETS)])
def test_random_texts_have_clip_s_ids_and_come_back(ours: BytePairs, theirs: SimpleTokenizer, alphabet: str) -> None:
    chance = random.Random(0)
    for _ in range(300):
        text = "".join(chance.choices(alphabet, k=chance.randrange(60)))
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)


def test_pieces_in_any_order_have_clip_s_ids(ours: BytePairs, theirs: SimpleTokenizer) -> None:
    chance = random.Random(0)
    for _ in range(1000):
        text = theirs.decode(chance.choices(range(49406), k=6))
        assert ours.encode(text) == theirs.encode(text)


def test_unused_merges_leave_their_ids_free(ours: BytePairs) -> None:
    assert ours.encode("jekyll") == [49405]
    ids = BytePairs(unused=1, longest=77).encode("jekyll")
    assert len(ids) > 1
    assert ours.decode(ids) == "jekyll "
