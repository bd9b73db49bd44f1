"""Error messages about parameters, which name the key and what would be right."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from irra.config.section import ConfigSection, section_of
from irra.utils.errors import UserError

SHOWN_CHARACTERS = 100  # of a wrong value
SectionT = TypeVar("SectionT", bound=ConfigSection)


def validate(kind: type[SectionT], data: dict[str, Any], source: str) -> SectionT:
    """Check `data` and return it as a section of this kind.

    Raises:
        UserError: Something is wrong; the message has one line per mistake, each starting with `source`.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_explain(kind, dict(problem)) for problem in error.errors()]
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from None


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown `word`: the known word closest to it, or else all known words."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _explain(kind: type[ConfigSection], problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(str(problem['loc'][-1]), _keys(kind, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, found {_show(problem['input'])}"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _keys(kind: type[ConfigSection], location: Sequence[Any]) -> list[str]:
    for part in location:
        if part in kind.model_fields:  # otherwise it is the key of a mapping, or the place in a list
            inner = section_of(kind.model_fields[part].annotation)
            assert inner is not None, f"{part} is a section"
            kind = inner
    return list(kind.model_fields)
