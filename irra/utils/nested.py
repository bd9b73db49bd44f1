"""Nested dictionaries, as in JSON."""

from collections.abc import Mapping
from typing import Any


def flatten(nested: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """The innermost values, keyed by their joined path: `{"a": {"b": 1}}` becomes `{"a.b": 1}` with separator `.`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}{separator}{inner}": innermost for inner, innermost in flatten(value, separator).items()}
        else:
            flat[name] = value
    return flat
