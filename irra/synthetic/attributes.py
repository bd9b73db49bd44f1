"""The rendered people: vocabularies of their attributes with frequencies, and sampling of a person from them."""

import random
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

Rgb = tuple[int, int, int]
Weights = Mapping[str, float]

COLOURS: dict[str, Rgb] = {
    "black": (34, 34, 38),
    "white": (238, 237, 232),
    "grey": (132, 134, 138),
    "red": (194, 34, 40),
    "blue": (36, 86, 186),
    "dark blue": (28, 38, 92),
    "light blue": (134, 186, 230),
    "green": (38, 128, 62),
    "yellow": (236, 200, 44),
    "orange": (232, 118, 28),
    "pink": (240, 142, 176),
    "purple": (112, 52, 152),
    "brown": (108, 68, 40),
    "beige": (208, 184, 142),
}
SKINS: dict[str, Rgb] = {
    "fair": (240, 204, 180),
    "olive": (220, 174, 136),
    "tan": (190, 138, 98),
    "brown": (140, 94, 64),
    "dark": (92, 62, 46),
}
HAIRS: dict[str, Rgb] = {
    "black": (30, 26, 26),
    "brown": (98, 60, 34),
    "blond": (222, 184, 102),
    "red": (164, 70, 28),
    "grey": (170, 170, 172),
}

ANY = dict.fromkeys(COLOURS, 1.0)
MUTED = {"black": 3.0, "grey": 2.0, "brown": 1.5, "beige": 1.0, "white": 1.5, "dark blue": 1.0, "red": 0.7}
COATS = {**ANY, "black": 2.5, "beige": 2.0, "grey": 1.5, "dark blue": 1.5}
LEGWEAR = {"black": 3, "grey": 2, "dark blue": 1.5, "brown": 1.5, "beige": 2, "white": 1, "green": 0.8, "red": 0.8}
DENIM = {"blue": 2.0, "light blue": 1.5, "dark blue": 1.5}
SHOEWEAR = {"black": 3, "white": 3, "brown": 1.5, "red": 1, "blue": 0.8, "grey": 1.2, "yellow": 0.4, "pink": 0.5}
CONTRAST = {  # candidates for the second colour of a pattern, by whether the first is bright
    True: ("black", "red", "blue", "dark blue", "green", "purple", "brown"),
    False: ("white", "yellow", "light blue", "beige", "pink"),
}


@dataclass(frozen=True)
class Kind:
    """How often men and women wear something, its colours and, for upper garments, its patterns and sleeves."""

    man: float
    woman: float
    colours: Weights
    patterns: Weights = field(default_factory=lambda: {"plain": 1.0})
    sleeves: Weights = field(default_factory=lambda: {"long": 1.0})
    open: float = 0.0  # how often it is worn open over a t-shirt


PRINTS = {"plain": 3.0, "striped": 2.0, "logo": 2.0, "dotted": 0.6, "checked": 0.4}
UPPERS = {
    "t-shirt": Kind(5, 4, ANY, PRINTS, {"short": 1.0}),
    "tank top": Kind(0.6, 1.5, ANY, {"plain": 2.0, "striped": 1.0}, {"none": 1.0}),
    "shirt": Kind(
        4, 3, ANY, {"plain": 2.0, "striped": 1.0, "checked": 2.5, "dotted": 0.5}, {"long": 2.0, "short": 1.0}
    ),
    "sweater": Kind(2.5, 3, ANY, {"plain": 2.0, "striped": 1.5, "dotted": 0.4}),
    "hoodie": Kind(2.5, 1.5, ANY, {"plain": 2.0, "logo": 1.0}),
    "jacket": Kind(3, 2.5, COATS, open=0.6),
    "down jacket": Kind(1.5, 1.5, COATS),
    "blazer": Kind(1.5, 1, MUTED, open=1.0),
    "coat": Kind(2, 3, COATS, {"plain": 3.0, "checked": 1.0}, open=0.5),
    "vest": Kind(1, 0.6, COATS, open=1.0),
    "dress": Kind(
        0, 4, ANY, {"plain": 2.5, "striped": 1, "dotted": 1.5, "checked": 0.7}, {"short": 2, "none": 1, "long": 1}
    ),
}
LOWERS = {
    "trousers": Kind(5, 3, LEGWEAR),
    "jeans": Kind(4, 3, DENIM),
    "leggings": Kind(0, 2, {"black": 3.0, "grey": 2.0, "dark blue": 1.0, "purple": 1.0}),
    "shorts": Kind(3, 2, {**LEGWEAR, "blue": 1.5}),
    "skirt": Kind(0, 3, ANY),
    "long skirt": Kind(0, 1.5, ANY),
}
SHOES = {
    "sneakers": Kind(5, 4, SHOEWEAR),
    "leather shoes": Kind(2, 0.5, {"black": 2.0, "brown": 2.0}),
    "boots": Kind(1, 2, {"black": 2.0, "brown": 2.0, "beige": 0.7}),
    "sandals": Kind(0.8, 1.2, {"black": 1.0, "brown": 1.0, "white": 0.7}),
    "high heels": Kind(0, 1.5, {"black": 2.0, "red": 1.0, "white": 0.7, "beige": 0.7}),
}
BAGS = {
    "none": Kind(4, 2.5, {"": 1.0}),
    "backpack": Kind(3, 2, ANY),
    "handbag": Kind(0.3, 2.5, ANY),
    "shoulder bag": Kind(1.5, 2.5, ANY),
    "suitcase": Kind(0.8, 0.8, ANY),
    "plastic bag": Kind(1, 1, {"white": 3.0, "red": 1.0, "green": 1.0, "yellow": 0.7, "light blue": 1.0}),
}
HATS = {
    "none": Kind(7, 8, {"": 1.0}),
    "cap": Kind(2.5, 1, ANY),
    "beanie": Kind(1.2, 1, ANY),
    "straw hat": Kind(0.3, 1, {"beige": 1.0}),
}
HAIR_STYLES = {
    "man": {"short": 7.0, "bald": 1.5, "curly": 1.0, "long": 0.5, "ponytail": 0.3},
    "woman": {"long": 4.0, "ponytail": 2.5, "bob": 2.0, "bun": 1.5, "short": 1.0, "curly": 1.0},
}
HAIR_COLOURS = {"black": 4.0, "brown": 3.0, "blond": 2.0, "red": 0.8, "grey": 1.0}
BUILDS = {"average": 3.0, "slim": 1.0, "heavy": 1.0}
EYEWEAR = {"none": 7.0, "glasses": 2.0, "sunglasses": 1.0}
HELD = {"none": 8.0, "phone": 1.0, "umbrella": 0.6}


@dataclass(frozen=True)
class Item:
    """One thing worn or carried; its kind is "none" if there is nothing."""

    kind: str = "none"
    colour: str = ""
    pattern: str = "plain"
    second: str = ""  # the other colour of a pattern

    def __bool__(self) -> bool:
        return self.kind != "none"


@dataclass(frozen=True)
class Person:
    """The attributes that all pictures of one identity share."""

    gender: str
    skin: str
    build: str
    hair: Item
    beard: bool
    upper: Item
    sleeves: str
    inner: Item  # the t-shirt below an open upper garment
    lower: Item
    shoes: Item
    bag: Item
    hat: Item
    eyewear: str
    scarf: Item
    held: Item


def pick(rng: random.Random, weights: Weights) -> str:
    """A random key of `weights`, in proportion to its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def luminance(colour: Rgb) -> float:
    """Brightness in 0..255 (ITU-R BT.601 weights)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def draw_people(seed: int, count: int) -> list[Person]:
    """`count` different people; for the same seed, a longer list starts with the shorter one."""
    people: dict[object, Person] = {}
    rng = random.Random(f"people/{seed}")
    while len(people) < count:
        person = draw_person(rng)
        people.setdefault(astuple(person), person)
    return list(people.values())


def draw_person(rng: random.Random) -> Person:
    """A random person, with attributes that go together as they do on a street."""
    gender = rng.choice(("man", "woman"))
    upper = _item(rng, UPPERS, gender)
    kind = UPPERS[upper.kind]
    inner = rng.random() < kind.open
    hair = pick(rng, HAIR_STYLES[gender])
    held = pick(rng, HELD)
    winter = kind.colours is COATS or upper.kind in ("sweater", "hoodie")
    return Person(
        gender=gender,
        skin=rng.choice(list(SKINS)),
        build=pick(rng, BUILDS),
        hair=Item(hair, pick(rng, HAIR_COLOURS) if hair != "bald" else ""),
        beard=gender == "man" and rng.random() < 0.25,
        upper=upper,
        sleeves=pick(rng, kind.sleeves),
        inner=_inner(rng, upper) if inner else Item(),
        lower=_lower(rng, upper, gender),
        shoes=_item(rng, SHOES, gender),
        bag=_item(rng, BAGS, gender),
        hat=_item(rng, HATS, gender) if held != "umbrella" else Item(),
        eyewear=pick(rng, EYEWEAR),
        scarf=Item("scarf", pick(rng, ANY)) if winter and rng.random() < 0.25 else Item(),
        held=Item(held, pick(rng, ANY) if held == "umbrella" else ""),
    )


def _item(rng: random.Random, kinds: Mapping[str, Kind], gender: str) -> Item:
    name = pick(rng, {name: kind.man if gender == "man" else kind.woman for name, kind in kinds.items()})
    colour, pattern = pick(rng, kinds[name].colours), pick(rng, kinds[name].patterns)
    return Item(name, colour, pattern, _contrast(rng, colour) if pattern != "plain" else "")


def _contrast(rng: random.Random, colour: str) -> str:
    return rng.choice(CONTRAST[luminance(COLOURS[colour]) > 120])


def _inner(rng: random.Random, upper: Item) -> Item:
    return Item("t-shirt", rng.choice([colour for colour in ANY if colour != upper.colour]))


def _lower(rng: random.Random, upper: Item, gender: str) -> Item:
    if upper.kind == "dress":
        return Item("leggings", rng.choice(("black", "grey"))) if rng.random() < 0.3 else Item()
    return _item(rng, LOWERS, gender)
