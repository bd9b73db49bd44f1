"""The rendered dataset: what lies on disk, what the pictures show and what the captions say."""

import dataclasses
import hashlib
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from irra.config import SyntheticConfig
from irra.synthetic import write_dataset
from irra.synthetic.attributes import (
    BAGS,
    COLOURS,
    EYEWEAR,
    HAIR_STYLES,
    HATS,
    HELD,
    LOWERS,
    SHOES,
    SKINS,
    UPPERS,
    Item,
    Person,
    draw_people,
)
from irra.synthetic.canvas import Canvas, View
from irra.synthetic.captions import describe
from irra.synthetic.photograph import Photograph, take
from irra.synthetic.scene import CAMERAS
from irra.synthetic.solids import Lathe, Ring
from irra.synthetic.subject import PARTS
from irra.synthetic.visibility import LEAST, visible_slots
from irra.synthetic.wording import COLOUR_WORDS, HAIR_COLOUR_WORDS, NOUNS, PEOPLE

SLOTS = ("upper", "inner", "lower", "shoes", "bag", "hat", "scarf", "held")
PERSON = Person(
    gender="man", skin="tan", build="average", hair=Item("short", "brown"), beard=True,
    upper=Item("t-shirt", "white", "logo", "red"), sleeves="short", inner=Item(), lower=Item("jeans", "blue"),
    shoes=Item("sneakers", "black"), bag=Item("suitcase", "green"), hat=Item("cap", "yellow"), eyewear="glasses",
    scarf=Item("scarf", "pink"), held=Item("umbrella", "purple"),
)  # fmt: skip


def config(**changes: float) -> SyntheticConfig:
    sizes = {"train_ids": 3, "val_ids": 1, "test_ids": 2, "images_per_id": 3, "captions_per_image": 2, "seed": 0}
    return SyntheticConfig(**{**sizes, "wrong_captions": 0.0, **changes})


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def photographs(person: Person, count: int) -> list[Photograph]:
    return [take(person, 1, CAMERAS[i % len(CAMERAS)], random.Random(i)) for i in range(count)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    write_dataset(folder, config(), workers=1)
    return folder


@pytest.fixture(scope="module")
def records(root: Path) -> list[dict]:
    return json.loads((root / "reid_raw.json").read_text())


def test_annotations_have_the_keys_of_cuhk_pedes(records):
    assert all(set(record) == {"id", "captions", "split", "file_path", "wrong_captions"} for record in records)


def test_every_annotation_names_a_picture_and_every_picture_is_named(root, records):
    named = [record["file_path"] for record in records]
    assert sorted(named) == sorted(str(path.relative_to(root / "imgs")) for path in root.glob("imgs/*/*"))


def test_counts_follow_the_configuration(records):
    ids = {split: len({r["id"] for r in records if r["split"] == split}) for split in ("train", "val", "test")}
    assert ids == {"train": 3, "val": 1, "test": 2}
    assert len(records) == 6 * 3
    assert all(len(record["captions"]) == 2 for record in records)


def test_ids_count_from_one_and_belong_to_one_split(records):
    splits = {(record["id"], record["split"]) for record in records}
    assert sorted(pid for pid, _ in splits) == [1, 2, 3, 4, 5, 6]


def test_pictures_have_the_size_of_pedestrian_crops(root):
    for path in root.glob("imgs/*/*.jpg"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            assert 192 <= image.height <= 256
            assert 2.55 < image.height / image.width < 3.05


def test_two_processes_write_the_same_bytes_as_one(root, tmp_path):
    write_dataset(tmp_path, config(), workers=2)
    assert digests(tmp_path) == digests(root)


def test_another_seed_gives_other_pictures_and_captions(root, tmp_path):
    write_dataset(tmp_path, config(seed=1), workers=1)
    one, other = digests(root), digests(tmp_path)
    assert all(one[name] != other[name] for name in one.keys() & other.keys())


def test_writing_again_replaces_what_was_there(tmp_path):
    for ids in (2, 1):
        write_dataset(tmp_path, config(train_ids=ids, images_per_id=1), workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imgs", "reid_raw.json"]
    assert len(list(tmp_path.glob("imgs/*/*.jpg"))) == 4


def test_training_captions_alone_describe_somebody_else_as_often_as_asked(tmp_path):
    sizes = {"train_ids": 50, "test_ids": 10, "images_per_id": 4}
    write_dataset(tmp_path, config(**sizes, wrong_captions=0.5))
    people = draw_people(0, 61)
    wrong_gender, marked = {"train": [], "val": [], "test": []}, {"train": [], "val": [], "test": []}
    for record in json.loads((tmp_path / "reid_raw.json").read_text()):
        right_words = set(PEOPLE[people[record["id"] - 1].gender])
        for caption in record["captions"]:
            wrong_gender[record["split"]].append(right_words.isdisjoint(re.findall(r"\w+", caption)))
        marked[record["split"]] += record["wrong_captions"]
    # half of the others are of the other gender; 2.5 standard deviations of 400 captions
    assert 0.196 < sum(wrong_gender["train"]) / len(wrong_gender["train"]) < 0.304
    assert not any(wrong_gender["val"] + wrong_gender["test"])
    # all of these are marked, and as many more; nothing outside of the training split is
    pairs = list(zip(wrong_gender["train"], marked["train"], strict=True))
    assert all(wrong for other, wrong in pairs if other)
    assert 0.43 < sum(wrong for _, wrong in pairs) / len(pairs) < 0.57
    assert not any(marked["val"] + marked["test"])


def test_people_are_all_different():
    people = draw_people(0, 2000)
    assert len(set(people)) == 2000


def test_a_longer_list_of_people_begins_with_the_shorter_one():
    assert draw_people(5, 50)[:20] == draw_people(5, 20)


def every_value() -> list[Person]:
    """PERSON once with every value of every attribute."""
    tables = {"upper": UPPERS, "lower": LOWERS, "shoes": SHOES, "bag": BAGS, "hat": HATS, "held": HELD}
    items = [(slot, Item(kind, "red")) for slot, table in tables.items() for kind in table]
    items += [("upper", Item(kind, "red", pattern, "white")) for kind in UPPERS for pattern in UPPERS[kind].patterns]
    items += [("upper", Item("shirt", colour)) for colour in COLOURS]
    items += [("hair", Item(kind, "black")) for styles in HAIR_STYLES.values() for kind in styles]
    plain = [("eyewear", kind) for kind in EYEWEAR] + [("skin", skin) for skin in SKINS] + [("gender", "woman")]
    plain += [("sleeves", kind) for kind in ("none", "short", "long")] + [("build", kind) for kind in ("slim", "heavy")]
    people = [dataclasses.replace(PERSON, **{slot: value}) for slot, value in [*items, *plain]]
    open_ones = [Item(kind, "grey") for kind in UPPERS if UPPERS[kind].open]
    return people + [dataclasses.replace(PERSON, upper=upper, inner=Item("t-shirt", "red")) for upper in open_ones]


def test_every_attribute_value_can_be_drawn_and_described():
    for number, person in enumerate(every_value()):
        rng = random.Random(number)
        picture = take(person, number, CAMERAS[number % len(CAMERAS)], rng)
        assert describe(person, picture.visible, picture.facing, rng).endswith(".")


def test_every_attribute_is_visible_in_some_picture():
    people = [PERSON, dataclasses.replace(PERSON, upper=Item("jacket", "red"), inner=Item("t-shirt", "white"))]
    people += [dataclasses.replace(PERSON, hair=Item(kind, "black"), hat=Item()) for kind in ("bald", "long")]
    seen = {slot for person in people for picture in photographs(person, 10) for slot in picture.visible}
    assert seen == set(LEAST)


def test_a_back_view_shows_neither_face_nor_chest():
    pictures = photographs(dataclasses.replace(PERSON, held=Item()), 40)
    back = [picture.visible for picture in pictures if picture.facing == "back"]
    front = [picture.visible for picture in pictures if picture.facing == "front"]
    assert back
    assert not any(visible & {"eyewear", "beard", "pattern"} for visible in back)
    assert all({"beard", "pattern"} & visible for visible in front)


def test_a_part_is_visible_only_while_most_of_it_is_uncovered():
    whole = [1000] * 256
    assert visible_slots(whole, whole, 192) == frozenset(LEAST)
    assert visible_slots(whole, [590] * 256, 192) == frozenset()


def test_the_shirt_has_the_named_colour_in_the_picture():
    for colour in ("red", "green", "blue", "yellow"):
        person = dataclasses.replace(PERSON, upper=Item("t-shirt", colour), scarf=Item(), held=Item(), bag=Item())
        for picture in photographs(person, 6):
            height, width = picture.image.height, picture.image.width
            box = (width * 2 // 5, height * 3 // 10, width * 3 // 5, height * 9 // 20)
            mean = np.asarray(picture.image.crop(box), dtype=float).mean(axis=(0, 1))
            distances = {name: np.linalg.norm(mean - np.array(rgb)) for name, rgb in COLOURS.items()}
            assert colour in sorted(distances, key=distances.get)[:3]


def named_kinds(caption: str) -> set[str]:
    """Kinds of things that a caption names; longer nouns first, so that a t-shirt is no shirt."""
    pairs = sorted(((noun, kind) for kind, nouns in NOUNS.items() for noun in nouns), key=lambda pair: -len(pair[0]))
    kinds = set()
    for noun, kind in pairs:
        caption, hits = re.subn(rf"\b{noun}\b", "_", caption)
        kinds |= {kind} if hits else set()
    return kinds


def named_colours(caption: str) -> set[str]:
    """Colours that a caption names, under their own names."""
    words = {word: colour for colour in COLOURS for word in COLOUR_WORDS.get(colour, (colour,))}
    for colour in ("blond", "red"):
        words.update(dict.fromkeys(HAIR_COLOUR_WORDS[colour], colour))
    colours = set()
    for word in sorted(words, key=len, reverse=True):
        caption, hits = re.subn(rf"\b{word}\b", "_", caption.lower())
        colours |= {words[word]} if hits else set()
    return colours


def test_captions_name_only_what_is_there_and_visible():
    for number, person in enumerate(draw_people(3, 150)):
        rng = random.Random(number)
        visible = frozenset(slot for slot in LEAST if rng.random() < 0.6)
        items = {slot: getattr(person, slot) for slot in SLOTS if slot in visible and getattr(person, slot)}
        kinds = {item.kind for item in items.values()}
        colours = {item.colour for item in items.values()}
        colours |= {person.upper.second} if {"upper", "pattern"} <= visible else set()
        colours |= {person.hair.colour} if "hair" in visible else set()
        for _ in range(4):
            caption = describe(person, visible, "front", rng)
            assert named_kinds(caption) <= kinds, caption
            assert named_colours(caption) <= colours, caption


def test_where_nothing_is_visible_only_the_person_is_named():
    caption = describe(PERSON, frozenset(), "back", random.Random(0))
    assert not named_kinds(caption) | named_colours(caption)


def test_hidden_face_and_hair_are_not_described():
    visible = frozenset(LEAST) - {"eyewear", "beard", "hair", "style", "bald", "pattern"}
    text = " ".join(describe(PERSON, visible, "back", random.Random(i)) for i in range(200))
    assert not re.search(r"glasses|beard|hair|bald|logo|print", text)


def test_a_hat_hides_how_the_hair_is_cut():
    visible = frozenset(LEAST) - {"style"}
    text = " ".join(describe(PERSON, visible, "front", random.Random(i)) for i in range(200))
    assert "brown hair" in text
    assert "short brown hair" not in text


def test_captions_vary():
    captions = [describe(PERSON, frozenset(LEAST), "front", random.Random(i)) for i in range(300)]
    assert len(set(captions)) > 290
    assert len({tuple(caption.split()[:3]) for caption in captions}) > 60


def test_captions_are_clean_sentences_of_usual_length():
    lengths = []
    for number, person in enumerate(draw_people(4, 300)):
        caption = describe(person, frozenset(LEAST), "side", random.Random(number))
        assert caption.endswith("."), caption
        for sentence in caption.removesuffix(".").split(". "):
            assert re.fullmatch(r"[A-Z][a-z-]*(,? [a-z-]+)+", sentence), caption
        assert not re.search(r"\ba [aeio]|\ban [^aeio]|\b(\w+) \1\b", caption), caption
        lengths.append(len(re.findall(r"\w+|[^\w\s]", caption)))
    assert max(lengths) <= 50
    assert 12 <= np.median(lengths) <= 35


def test_patches_on_the_far_side_of_a_solid_are_not_drawn():
    canvas = Canvas(40, 100, 1.0, random.Random(0))
    lathe = Lathe(canvas, View(0.0, 0.1, 150.0, (40.0, 190.0)), [Ring(1.0, 0.1, 0.1), Ring(0.2, 0.1, 0.1)], part=1)
    lathe.patch(0.8, 0.4, (150, 210), (255, 0, 0), part=2)
    assert canvas.part_sizes()[2] == 0
    lathe.patch(0.8, 0.4, (-30, 30), (255, 0, 0), part=2)
    assert canvas.part_sizes()[2] > 0


def test_part_numbers_fit_the_visibility_layer():
    assert len(set(PARTS)) == len(PARTS) < 256
