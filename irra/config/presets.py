"""Generating params.yaml: every key with its value, its comment, and the default where the value differs from it."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from irra.config.params import Params
from irra.config.reader import load_params
from irra.config.section import ConfigSection
from irra.config.values import write_yaml

NOTE = """
# Comments are those of irra/config; `make params` renews them. Defaults are the published recipe on CUHK-PEDES.
"""


def render_file(path: Path) -> str:
    """The complete params.yaml for the preset or parameter file at `path`, after the comment at the top of that file.

    Raises:
        UserError: As in `load_params`.
    """
    return render(load_params(path), header_of(path))


def render(params: Params, header: str) -> str:
    """The text of params.yaml with these values, from which `load_params` reads them back."""
    return header + NOTE + "".join(f"{line}\n" for line in _lines(params))


def header_of(path: Path) -> str:
    """The comment at the top of a parameter file."""
    with path.open(encoding="utf-8") as file:
        return "".join(takewhile(lambda line: line.startswith("#"), file))


def _lines(section: ConfigSection, indent: str = "") -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, ConfigSection):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        elif field.description:
            comment = _comment(field.annotation, field.description, value, field.default)
            yield f"{indent}{name}: {write_yaml(value)} # {comment}"


def _comment(annotation: Any, description: str, value: Any, default: Any) -> str:
    parts = [description]
    if get_origin(annotation) is Literal:
        *others, last = get_args(annotation)
        parts.insert(0, f"{', '.join(others)} or {last}")
    suffix = f" (default: {write_yaml(default)})" if value != default else ""
    return "; ".join(parts) + suffix
