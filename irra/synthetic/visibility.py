"""What a picture shows of a person, judged by the number of visible pixels of each part."""

from irra.synthetic.subject import PART

LEAST = {  # slot: parts that show it, and the minimum of their pixels in a picture 192 pixels high
    "upper": (("upper", "pattern"), 250),
    "lower": (("lower",), 250),
    "shoes": (("shoes",), 24),
    "bag": (("bag", "straps"), 60),
    "hat": (("hat",), 40),
    "scarf": (("scarf",), 40),
    "held": (("held",), 16),
    "eyewear": (("eyewear",), 7),
    "beard": (("beard",), 8),
    "inner": (("inner",), 60),
    "pattern": (("pattern",), 60),
    "hair": (("hair", "style"), 28),
    "style": (("style",), 26),
    "bald": (("scalp",), 24),
    "sleeves": (("arm", "sleeve"), 60),
}
SHARE = 0.6  # of a slot's pixels that must remain after occlusion


def visible_slots(whole: list[int], left: list[int], height: int) -> frozenset[str]:
    """Names of the visible slots of LEAST, from the part sizes before (`whole`) and after (`left`) occlusion."""
    unit = (height / 192) ** 2
    seen = set()
    for slot, (parts, least) in LEAST.items():
        before, after = (sum(sizes[PART[part]] for part in parts) for sizes in (whole, left))
        if after >= max(least * unit, SHARE * before):
            seen.add(slot)
    return frozenset(seen)
