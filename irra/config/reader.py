"""Reading parameter files, both complete ones and presets, into checked sections."""

import difflib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from irra.config.messages import SectionT, nearest, validate
from irra.config.params import Params
from irra.config.prepare import SYNTHETIC
from irra.config.section import ConfigSection, section_of
from irra.config.values import read_yaml, write_yaml
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file

Data = dict[str, Any]
BASE = "base"  # the key in which a preset names what it is based on: another preset in its folder, or
PUBLISHED = "published"  # the defaults
RENAMED = {"tokenize.variants": "tokenize.mask_draws", "evaluate.sheet_queries": "report.sheet_queries"}
UPDATE_HINT = "`make params` brings params.yaml up to date"


def load_params(path: Path) -> Params:
    """Read and check a parameter file.

    A file with the key `base` lists only what differs from the preset of that name in the same folder, or from the
    defaults if the base is `published`. Any other file should be complete: keys that it lacks get their defaults, with
    a warning.

    Raises:
        UserError: It cannot be read, or a value is invalid; the message names file, key and what would be right.
    """
    data = _read_mapping(path, hint="; `make preset NAME=synthetic` writes one")
    if BASE in data:
        return validate(Params, _with_base(path, data), str(path))
    _rename_old_keys(data, str(path))
    params = validate(Params, data, str(path))
    _warn_of_gaps(Params, data, str(path))
    return params


def missing_sections(path: Path) -> list[str]:
    """Sections that a whole parameter file lacks: `load_params` does without them, DVC does not."""
    data = _read_mapping(path)
    return [] if BASE in data else [name for name in Params.model_fields if name not in data]


def load_section(kind: type[SectionT], path: Path) -> SectionT:
    """Read a YAML file as `kind`.

    Raises:
        UserError: It cannot be read, or a value is invalid; the message names file, key and what would be right.
    """
    return validate(kind, _read_mapping(path), str(path))


def parse_section(kind: type[SectionT], text: str) -> SectionT:
    """Read one section from a JSON string, the form in which sections are passed between containers.

    Raises:
        UserError: It is not valid JSON, or a value is invalid.
    """
    try:
        data = _mapping(json.loads(text), kind.__name__)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # json's own, and numbers of thousands of digits
        raise UserError(f"{kind.__name__}: not valid JSON: {error}") from None
    section = validate(kind, data, kind.__name__)
    _warn_of_gaps(kind, data, kind.__name__)
    return section


def change(params: Params, assignments: Sequence[str]) -> Params:
    """A copy of `params` with `assignments` such as `train.lr=1e-4` applied.

    Raises:
        UserError: One of them is not an assignment, or its key or value is invalid.
    """
    data = params.model_dump()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"{assignment}: expected key=value, such as train.lr=1e-4")
        if key in RENAMED:
            warnings.warn(f"{key} is now {RENAMED[key]}", stacklevel=2)
        *sections, name = RENAMED.get(key, key).split(".")
        target: Any = data
        for section in sections:
            target = target.get(section) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise UserError(f"{key}: unknown section{nearest(sections[0], data)}")
        try:
            target[name] = read_yaml(text)
        except yaml.YAMLError as error:
            raise UserError(f"{key}: not valid YAML: {error}") from None
    return validate(Params, data, "parameters")


def _read_mapping(path: Path, hint: str = "") -> Data:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: The file is missing or not such a YAML file. If it is missing, the message ends with a similar file
            name in the same folder, or else with `hint`.
    """
    check_regular_file(path)
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        close = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.yaml")], n=1)
        raise UserError(
            f"{path}: no such file{f'; did you mean {path.with_name(close[0])}?' if close else hint}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    return _mapping(data, str(path))


def _mapping(data: Any, source: str) -> Data:
    if not isinstance(data, dict):
        raise UserError(f"{source}: expected keys and values, found {type(data).__name__}")
    return data


def _with_base(path: Path, data: Data, above: tuple[Path, ...] = ()) -> Data:
    """The values of a preset, merged with those of the presets that it is based on.

    `above` are the presets that led here, to detect cycles.
    """
    _rename_old_keys(data, str(path))
    base = data.pop(BASE, PUBLISHED)
    if base == PUBLISHED:
        return data
    below, above = path.parent / f"{base}.yaml", (*above, path)
    if below in above:
        raise UserError(f"{path}: {BASE}: {base!r} is itself based on this file")
    if below.name != f"{base}.yaml" or not below.is_file():  # a path is no name
        known = [PUBLISHED, *sorted(other.stem for other in path.parent.glob("*.yaml") if other not in above)]
        raise UserError(
            f"{path}: {BASE}: no preset {base!r}{nearest(str(base), known)}; it must stand beside the preset, "
            "and `make preset NAME=...` writes both to params.yaml"
        )
    merged = _merge(_with_base(below, _read_mapping(below), above), data)
    prepare = data.get("prepare")
    if isinstance(prepare, dict) and prepare.get("dataset_name", SYNTHETIC) != SYNTHETIC and SYNTHETIC not in prepare:
        merged["prepare"].pop(SYNTHETIC, None)  # the people whom the base renders are not of this dataset
    return merged


def _merge(below: Data, above: Data) -> Data:
    """`below`, overridden by the values of `above`, section by section."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _rename_old_keys(data: Data, source: str) -> None:
    """Rename keys of earlier versions to their current names, with a warning.

    Raises:
        UserError: Both the old and the new key are set.
    """
    renamed = []
    for old, new in RENAMED.items():
        (old_section, old_name), (section, name) = old.split("."), new.split(".")
        if not isinstance(data.get(old_section), dict) or old_name not in data[old_section]:
            continue
        target = data.setdefault(section, {})
        if not isinstance(target, dict) or name in target:
            raise UserError(f"{source}: {old} is now {new}, but both are set; remove {old}")
        target[name] = data[old_section].pop(old_name)
        renamed.append(f"{old} is now {new}")
    if renamed:
        warnings.warn(f"{source}: {', '.join(renamed)}; {UPDATE_HINT}", stacklevel=3)


def _warn_of_gaps(kind: type[ConfigSection], data: Data, source: str) -> None:
    gaps = [f"{key}: {write_yaml(value)}" for key, value in _gaps(kind, data)]
    if gaps:
        warnings.warn(f"{source}: lacks keys, which get their defaults: {', '.join(gaps)}; {UPDATE_HINT}", stacklevel=3)


def _gaps(kind: type[ConfigSection], data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys that `data` lacks, with their defaults; optional sections do not count."""
    for name, field in kind.model_fields.items():
        section, value = section_of(field.annotation), data.get(name, {})
        if section is None:
            if name not in data and not field.is_required():
                yield f"{prefix}{name}", field.default
        elif isinstance(value, dict) and (name in data or field.default_factory):
            yield from _gaps(section, value, f"{prefix}{name}.")
