"""Flattening of nested dictionaries."""

from irra.utils.nested import flatten


def test_innermost_values_are_named_by_the_way_to_them_in_their_order() -> None:
    nested = {"a": {"b": 1, "c": {"d": [2, 3]}}, "e": None, "f": {}}
    assert list(flatten(nested, "/").items()) == [("a/b", 1), ("a/c/d", [2, 3]), ("e", None)]


def test_flat_ones_stay_as_they_are() -> None:
    assert flatten({"a": 1}, ".") == {"a": 1}
