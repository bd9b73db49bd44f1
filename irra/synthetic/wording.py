"""Vocabulary of the captions: synonyms for colours, garments and bags, and the phrases built from them."""

import random

from irra.synthetic.attributes import Item, Person

COLOURLESS = ("straw hat", "phone")  # kinds that are named without their colour
COLOUR_WORDS = {
    "grey": ("grey", "gray"),
    "dark blue": ("dark blue", "dark blue", "navy blue", "navy"),
    "light blue": ("light blue", "light blue", "sky blue", "pale blue"),
    "beige": ("beige", "beige", "tan", "cream-colored"),
    "purple": ("purple", "purple", "violet"),
    "blond": ("blond", "blonde"),
}
HAIR_COLOUR_WORDS = {**COLOUR_WORDS, "red": ("red", "ginger")}
NOUNS = {
    "t-shirt": ("t-shirt", "t-shirt", "tee shirt", "tee"),
    "tank top": ("tank top", "sleeveless top"),
    "shirt": ("shirt", "shirt", "button-up shirt", "collared shirt"),
    "sweater": ("sweater", "sweater", "pullover", "jumper"),
    "hoodie": ("hoodie", "hoodie", "hooded sweatshirt"),
    "jacket": ("jacket", "jacket", "zip-up jacket"),
    "down jacket": ("down jacket", "puffer jacket", "padded jacket", "quilted jacket"),
    "blazer": ("blazer", "suit jacket"),
    "coat": ("coat", "long coat", "overcoat"),
    "vest": ("vest", "sleeveless jacket", "gilet"),
    "dress": ("dress", "dress", "knee-length dress"),
    "trousers": ("trousers", "pants", "pants", "slacks"),
    "jeans": ("jeans", "jeans", "denim pants"),
    "leggings": ("leggings", "tights"),
    "shorts": ("shorts",),
    "skirt": ("skirt", "short skirt"),
    "long skirt": ("long skirt", "ankle-length skirt", "maxi skirt"),
    "sneakers": ("sneakers", "sneakers", "trainers", "sports shoes", "running shoes"),
    "leather shoes": ("leather shoes", "dress shoes", "formal shoes"),
    "boots": ("boots",),
    "sandals": ("sandals",),
    "high heels": ("high heels", "heels", "high-heeled shoes"),
    "backpack": ("backpack", "backpack", "rucksack"),
    "handbag": ("handbag", "purse"),
    "shoulder bag": ("shoulder bag", "messenger bag", "crossbody bag"),
    "suitcase": ("suitcase", "rolling suitcase", "trolley case"),
    "plastic bag": ("plastic bag", "shopping bag", "carrier bag"),
    "cap": ("cap", "cap", "baseball cap"),
    "beanie": ("beanie", "knit hat", "woolly hat"),
    "straw hat": ("straw hat", "wide-brimmed straw hat"),
    "scarf": ("scarf",),
    "umbrella": ("umbrella", "open umbrella"),
    "phone": ("phone", "mobile phone", "cell phone"),
}
PEOPLE = {
    "man": ("man", "man", "man", "male", "guy", "gentleman"),
    "woman": ("woman", "woman", "woman", "lady", "female"),
}
BUILD_WORDS = {"slim": ("slim", "thin", "slender"), "heavy": ("heavyset", "stout", "heavy-set")}
PATTERNS = {
    "striped": ("{colour} and {second} striped {noun}", "{colour} {noun} with {second} stripes"),
    "checked": (
        "{colour} and {second} checked {noun}",
        "{colour} and {second} plaid {noun}",
        "{colour} {noun} with {second} checks",
    ),
    "dotted": ("{colour} {noun} with {second} dots", "{colour} polka dot {noun} with {second} dots"),
    "logo": ("{colour} {noun} with a {second} logo", "{colour} {noun} with a {second} print on the chest"),
}
SLEEVE_WORDS = {
    "short": ("short-sleeved", "short sleeve"),
    "long": ("long-sleeved", "long sleeve"),
    "none": ("sleeveless",),
}
SLEEVED = ("t-shirt", "shirt", "dress")  # garments whose sleeves a caption may mention
UNDER = ("{outer} over {inner}", "{outer} with {inner} underneath", "{outer} and {inner} under it")
HAIR_PHRASES = {
    "short": ("short {colour} hair", "short {colour} hair", "{colour} short hair"),
    "long": ("long {colour} hair", "long {colour} hair", "long, {colour} hair"),
    "bob": ("shoulder-length {colour} hair", "{colour} hair down to the shoulders"),
    "ponytail": ("{colour} hair in a ponytail", "a {colour} ponytail", "{colour} hair tied back in a ponytail"),
    "bun": ("{colour} hair in a bun", "a {colour} hair bun", "{colour} hair tied up in a bun"),
    "curly": ("curly {colour} hair", "{colour} curly hair"),
}
BALD = ("a bald head", "a shaved head", "no hair")
CARRY = {
    "backpack": ("with {bag} on {poss} back", "carrying {bag}", "carrying {bag} on {poss} back"),
    "handbag": ("holding {bag}", "carrying {bag}", "with {bag} in one hand"),
    "shoulder bag": ("with {bag} at {poss} side", "carrying {bag}", "with {bag} across {poss} body"),
    "suitcase": ("pulling {bag}", "with {bag}", "dragging {bag} behind"),
    "plastic bag": ("carrying {bag}", "holding {bag}", "with {bag} in one hand"),
    "umbrella": ("holding {bag}", "under {bag}", "carrying {bag} overhead"),
    "phone": ("using {bag}", "holding {bag}", "looking at {bag}"),
}
EYEWEAR = {"glasses": ("glasses", "eyeglasses"), "sunglasses": ("sunglasses", "dark sunglasses")}
BEARDS = ("a beard", "facial hair")


def article(phrase: str) -> str:
    """The phrase with "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def colour_word(colour: str, rng: random.Random) -> str:
    """A word for a colour of clothes or bags."""
    return rng.choice(COLOUR_WORDS.get(colour, (colour,)))


def item_phrase(item: Item, rng: random.Random, patterned: bool = False) -> str:
    """Colour and noun, with the pattern if `patterned`; without an article."""
    noun = rng.choice(NOUNS[item.kind])
    if item.kind in COLOURLESS:
        return noun
    colour = colour_word(item.colour, rng)
    if not patterned:
        return f"{colour} {noun}"
    second = colour_word(item.second, rng)
    return rng.choice(PATTERNS[item.pattern]).format(colour=colour, second=second, noun=noun)


def upper_phrase(person: Person, visible: frozenset[str], rng: random.Random) -> str:
    """The upper garment, with what is visible of its pattern, its sleeves and the shirt under it."""
    upper = person.upper
    phrase = item_phrase(upper, rng, "pattern" in visible and upper.pattern != "plain")
    if "sleeves" in visible and upper.kind in SLEEVED and rng.random() < 0.3:
        phrase = f"{rng.choice(SLEEVE_WORDS[person.sleeves])} {phrase}"
    if "inner" in visible and person.inner and rng.random() < 0.7:
        return article(rng.choice(UNDER).format(outer=phrase, inner=article(item_phrase(person.inner, rng))))
    return article(phrase)


def hair_phrase(person: Person, visible: frozenset[str], rng: random.Random) -> str:
    """The hair, as far as it is visible; empty if nothing can be said about it."""
    if person.hair.kind == "bald":
        return rng.choice(BALD) if "bald" in visible and not person.hat else ""
    if "hair" not in visible:
        return ""
    colour = rng.choice(HAIR_COLOUR_WORDS.get(person.hair.colour, (person.hair.colour,)))
    style_visible = "style" in visible or (person.hair.kind == "short" and not person.hat)
    return rng.choice(HAIR_PHRASES[person.hair.kind]).format(colour=colour) if style_visible else f"{colour} hair"


def carry_phrase(item: Item, poss: str, rng: random.Random) -> str:
    """How something is carried, as a clause that can follow a noun."""
    return rng.choice(CARRY[item.kind]).format(bag=article(item_phrase(item, rng)), poss=poss)
