"""Captions: sentences in varied wording that describe what a picture shows of a person."""

import random
from collections.abc import Sequence

from irra.synthetic import wording
from irra.synthetic.attributes import Person
from irra.synthetic.wording import article, carry_phrase, hair_phrase, item_phrase, upper_phrase

Phrases = dict[str, str]  # slot -> phrase

INTEREST = {  # weight of a slot in the choice of what a caption names
    "upper": 14.0,
    "lower": 10.0,
    "bag": 8.0,
    "held": 6.0,
    "hat": 6.0,
    "scarf": 5.0,
    "shoes": 5.0,
    "hair": 5.0,
    "eyewear": 2.0,
    "beard": 2.0,
}
NAMED = {1: 0.4, 2: 1.0, 3: 2.5, 4: 4.0, 5: 4.5, 6: 3.0, 7: 1.0}  # number of slots in a caption: weight
MAX_WORDS = 38
WORN = ("upper", "lower", "shoes", "hat", "scarf", "eyewear")  # most conspicuous first
OPENINGS = (  # who: noun with article; worn: list of garments
    "{who} is wearing {worn}",
    "{who} wears {worn}",
    "{who} in {worn}",
    "{who} dressed in {worn}",
    "{who} has on {worn}",
    "{who} wearing {worn}",
    "the picture shows {who} wearing {worn}",
)
INVERTED = ("wearing {worn}, {who} {ending}", "dressed in {worn}, {who} {ending}", "in {worn}, {who} {ending}")
ENDINGS = ("walks by", "passes the camera", "is on the way", "is seen here")
FACING = {
    "front": ("facing the camera", "seen from the front"),
    "back": ("seen from behind", "with {poss} back turned to the camera"),
    "side": ("seen from the side", "turned to the side"),
}
PRONOUNS = {"man": ("he", "his"), "woman": ("she", "her")}
PLURAL = ("trousers", "jeans", "leggings", "shorts", "sneakers", "leather shoes", "boots", "sandals", "high heels")


def describe(person: Person, visible: frozenset[str], facing: str, rng: random.Random) -> str:
    """A caption that names some of the attributes in `visible`; `facing` is "front", "back" or "side"."""
    phrases = _phrases(person, visible, rng)
    count = rng.choices(list(NAMED), list(NAMED.values()))[0]
    order = sorted(phrases, key=lambda slot: rng.random() ** (1 / INTEREST[slot]), reverse=True)  # weighted, no repeats
    while True:
        caption = _compose(person, {slot: phrases[slot] for slot in order[:count]}, facing, rng)
        if len(caption.split()) <= MAX_WORDS:
            return caption
        count = min(count, len(order)) - 1


def _phrases(person: Person, visible: frozenset[str], rng: random.Random) -> Phrases:
    """A phrase for every slot that the person has and the picture shows."""
    poss = PRONOUNS[person.gender][1]
    phrases = {"hair": hair_phrase(person, visible, rng)}
    if "upper" in visible:
        phrases["upper"] = upper_phrase(person, visible, rng)
    for slot in ("lower", "shoes", "hat", "scarf"):
        item = getattr(person, slot)
        if item and slot in visible:
            phrase = item_phrase(item, rng)
            phrases[slot] = phrase if item.kind in PLURAL else article(phrase)
    for slot in ("bag", "held"):
        if getattr(person, slot) and slot in visible:
            phrases[slot] = carry_phrase(getattr(person, slot), poss, rng)
    if person.eyewear != "none" and "eyewear" in visible:
        phrases["eyewear"] = rng.choice(wording.EYEWEAR[person.eyewear])
    if person.beard and "beard" in visible:
        phrases["beard"] = rng.choice(wording.BEARDS)
    return {slot: phrase for slot, phrase in phrases.items() if phrase}


def _compose(person: Person, phrases: Phrases, facing: str, rng: random.Random) -> str:
    """Sentences that use all `phrases`, some of them in the first sentence and the rest after it."""
    pronoun, poss = PRONOUNS[person.gender]
    has = [phrases[slot] for slot in ("hair", "beard") if slot in phrases]
    carried = [phrases[slot] for slot in ("bag", "held") if slot in phrases]
    worn = [phrases[slot] for slot in WORN if slot in phrases]
    if rng.random() < 0.25:
        rng.shuffle(worn)
    later: list[str] = []
    if len(worn) > 2 and rng.random() < 0.45:
        cut = rng.randint(1, len(worn) - 1)
        worn, rest = worn[:cut], worn[cut:]
        later.append(
            rng.choice(("{p} also wears {x}", "{p} has {x} on", "{p} is also wearing {x}")).format(
                p=pronoun, x=_and(rest)
            )
        )
    who = _who(person, rng)
    if has and rng.random() < 0.55:
        who, has = f"{who} with {_and(has)}", []
    tail = [carried.pop(0)] if carried and rng.random() < 0.6 else []
    if rng.random() < 0.12:
        later.append(_does(pronoun, rng.choice(FACING[facing]).format(poss=poss)))
    if has:
        later.append(f"{pronoun} has {_and(has)}")
    later += [_does(pronoun, clause) for clause in carried]
    rng.shuffle(later)
    return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in [_opening(who, worn, tail, rng), *later])


def _does(pronoun: str, clause: str) -> str:
    """Turn a clause that could follow a noun into a sentence: "with a bag" becomes "she has a bag"."""
    return f"{pronoun} has {clause.removeprefix('with ')}" if clause.startswith("with ") else f"{pronoun} is {clause}"


def _who(person: Person, rng: random.Random) -> str:
    noun = rng.choice(wording.PEOPLE[person.gender])
    if person.build in wording.BUILD_WORDS and rng.random() < 0.3:
        noun = f"{rng.choice(wording.BUILD_WORDS[person.build])} {noun}"
    return rng.choice((article(noun), article(noun), f"the {noun}", f"this {noun}"))


def _opening(who: str, worn: Sequence[str], tail: list[str], rng: random.Random) -> str:
    if not worn:
        return f"{who} {tail[0] if tail else rng.choice(ENDINGS)}"
    if rng.random() < 0.2:
        return rng.choice(INVERTED).format(
            worn=_and(worn), who=who, ending=_does("", tail[0]).strip() if tail else rng.choice(ENDINGS)
        )
    sentence = rng.choice(OPENINGS).format(who=who, worn=_and(worn, rng.choice(("and", "and", "with"))))
    return f"{sentence}{rng.choice((' ', ', '))}{tail[0]}" if tail else sentence


def _and(phrases: Sequence[str], last: str = "and") -> str:
    """The phrases as an enumeration: "a, b and c"."""
    return f"{', '.join(phrases[:-1])} {last} {phrases[-1]}" if len(phrases) > 1 else "".join(phrases)
