"""Parameter files that people or other programs may write: wrong, odd, or made to break a parser."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from app.check import check
from irra.config import load_params
from tests.hostile.case import Case, content, link_to, place
from tests.presets import preset_text

PARAMS = Path("params.yaml")
LONG, DATES = "9" * 30, ("2001-01-01", "2001-99-99")
WRONG = (*DATES, "{a: 1}", "[[1]]", ".nan", ".inf", "-1", LONG, "1e999", "!!binary aGk=", '"\\0"')
EXECUTING = "!!python/object/apply:os.system ['touch executed']"


def cases(rng: random.Random) -> Iterator[Case]:
    """Wrong values for every key, and files that are wrong as a whole."""
    whole = yaml.safe_load(preset_text("tiny"))
    for keys in _keys(whole, ()):
        for value in [*rng.sample(WRONG, 3), EXECUTING]:
            names = [PARAMS.name] if value in (EXECUTING, LONG, *DATES) else [PARAMS.name, keys[-1]]
            text = _with(whole, keys, value)
            yield Case("a wrong value", f"{'.'.join(keys)}: {value[:50]}", content(PARAMS, text), check_params, names)
        misspelt = _with(whole, (*keys[:-1], keys[-1] + "x"), "1")
        yield Case("an unknown key", ".".join(keys), content(PARAMS, misspelt), check_params, [PARAMS.name, keys[-1]])
    for name, text in _files(yaml.safe_dump(whole), rng):
        yield Case("a wrong file", name, content(PARAMS, text), check_params, [PARAMS.name])
    for name, put in place(PARAMS).items():
        yield Case("no file", name, put, check_params, [PARAMS.name])
    for name, text in _odd_but_right(yaml.safe_dump(whole, sort_keys=False)):
        yield Case("odd but right", name, content(PARAMS, text), check_params, valid=True)
    yield Case("odd but right", "a link", link_to(PARAMS, "real.yaml"), check_params, valid=True)


def check_params() -> str:
    """What `make repro` does first; the parameters, if they are right."""
    check(PARAMS)
    return str(load_params(PARAMS))


def _keys(section: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _keys(value, (*above, name))
        else:
            yield (*above, name)


def _with(whole: dict[str, Any], keys: tuple[str, ...], value: str) -> str:
    """The file with `value`, as YAML, for one key."""
    changed = yaml.safe_load(yaml.safe_dump(whole))
    section = changed
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = "VALUE"
    return yaml.safe_dump(changed).replace("VALUE", value)


def _files(text: str, rng: random.Random) -> Iterator[tuple[str, str | bytes]]:
    laughs = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    yield from {
        "empty": "",
        "null": "null",
        "a list": "- a\n- b",
        "a text": "just a text",
        "a number": "17",
        "billion laughs": "\n".join(laughs) + "\n" + text,
        "an alias in itself": f"a: &a [*a]\n{text}",
        "a merge of laughs": "a: &a {b: 1}\nc: {<<: [" + "*a, " * 20_000 + "*a]}\n" + text,
        "deep brackets": "a: " + "[" * 100_000,
        "deep braces": "a: " + "{a: " * 50_000,
        "deep lists": "- " * 20_000 + "a",
        "a long line": "a: " + "x" * 5_000_000,
        "many keys": "\n".join(f"k{n}: {n}" for n in range(50_000)),
        "a duplicate section": f"{text}\ntrain: {{}}",
        "a duplicate key": text.replace("  lr:", "  lr: 0.5\n  lr:"),
        "an executing tag": f"{text}\nx: {EXECUTING}",
        "an unknown tag": f"{text}\nx: !secret y",
        "not UTF-8": text.encode() + b"\nx: \xff\xfe",
        "UTF-16": text.encode("utf-16"),
        "a zero byte": text.encode() + b"\nx: \0",
        "binary": rng.randbytes(5000),
        "tabs": text.replace("  ", "\t"),
        "two documents": f"{text}\n---\na: 1",
        "a web page": "<!DOCTYPE html><html><body>404</body></html>",
        "a conflict of git": f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n",
        "numbers as keys": f"{text}\n17: 18\n",
        "lists as keys": f"{text}\n[a, b]: 18\n",
        "a section that is a list": text.replace("report:\n  seed: 0\n  sheet_queries: 2", "report: [1, 2]"),
        "a base that is nowhere": "base: nowhere",
        "a base that is itself": "base: params",
        "a base elsewhere": "base: ../../../../etc/passwd",
        "a base that is a list": "base: [a]",
    }.items()
    for _ in range(20):
        at = rng.randrange(len(text))
        yield f"cut at {at}, then a bracket", text[:at] + "\n  [{"


def _odd_but_right(text: str) -> Iterator[tuple[str, str | bytes]]:
    yield from {
        "comments": f"# {'#' * 10_000}\n{text}# end",
        "line ends of Windows": text.replace("\n", "\r\n").encode(),
        "a mark of UTF-8": b"\xef\xbb\xbf" + text.encode(),
        "JSON": json.dumps(yaml.safe_load(text)),
        "document marks": f"---\n{text}...\n",
    }.items()
