"""Reading the annotations of a dataset, in any of the layouts in which they are given out.

* A list of objects with `id`, `captions`, `split` and a path: CUHK-PEDES, ICFG-PEDES, RSTPReid, UFine6926, UFine3C,
  SYNTH-PEDES (without `split`) and users' own data; in one file, or in one for each split (as TBPS-CLIP has them).
* A list of objects with `image_id`, `caption` and `image`, in one file for each split: MALS, and APTM's other files.
* An object that maps paths to captions: LUPerson-MLLM.
"""

import difflib
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from irra.data.datasets import FORMATS, OWN_DATA, SPLITS, DatasetFormat, Record, warn_of_other_sizes
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file

MAX_PID = 2**31 - 1
SHOWN_PROBLEMS = 5
LOOKED_AT = 100  # images that tell where all of them lie
FOLDER_OF_PERSON = re.compile(r"(.*Part\d+/\d+)/[^/]+")  # in SYNTH-PEDES: the group is one person's folder
HALF_PAIR = re.compile("[\ud800-\udfff]")
OPTIONAL: dict[str, tuple[type, str]] = {
    "wrong_captions": (bool, "true or false"),
    "captions_bt": (str, 'sentences or ""'),
}
HINTS = {
    "split": "; it says train, val or test. Take the annotation file that has it, or one for each split, as train.json"
}


@dataclass(frozen=True)
class Keys:
    """How an annotation file calls what it says of an image."""

    id: str = "id"
    captions: str = "captions"
    path: str = "path"

    @property
    def are_aptm_s(self) -> bool:
        """Whether it is one of APTM's files: each may have a numbering of its own, and a caption that is no list."""
        return self.id == "image_id" or self.captions == "caption"


@dataclass(frozen=True)
class Entry:
    """What an annotation file says of one image, unchecked.

    Attributes:
        where: What messages call it.
        keys: The file's own keys.
        values: Under id, captions, path, split and OPTIONAL, so far as they are there; or what is no object.
    """

    where: str
    keys: Keys
    values: Any


def read_annotations(dataset_root: Path, dataset_name: str | None = None) -> list[Record]:
    """Read the records of all images of a dataset, in the order of its annotation files.

    Identities that are strings become numbers from 0, in the order in which they first appear.
    Warns if the sizes of a public dataset differ from the published ones.

    Args:
        dataset_root: Folder of the dataset.
        dataset_name: Name that decides the expected format; by default the name of the folder.

    Raises:
        UserError: Something cannot be used; the message names file, entry and key.
    """
    name = dataset_name or dataset_root.name
    expected = FORMATS.get(name, OWN_DATA)
    files = find_annotations(dataset_root, name)
    entries = _number_identities(list(_read_files(files, expected)))
    records, problems = _check(entries, expected.image_keys)
    if not expected.ids_restart and not any(entry.keys.are_aptm_s for entry in entries):
        problems += _shared_identities(records)
    if problems:
        raise UserError(_summary(files[0] if len(files) == 1 else dataset_root, problems))
    image_folder(dataset_root, records)
    warn_of_other_sizes(name, records)
    return records


def find_annotations(dataset_root: Path, dataset_name: str) -> list[Path]:
    """Find the annotation files of a dataset: those of its format, or else one for each split.

    Raises:
        UserError: They are missing, or the dataset's folder is.
    """
    if not dataset_root.parent.is_dir():
        raise UserError(
            f"{dataset_root.parent}: no such folder; prepare.root_dir must name the folder that holds the datasets"
        )
    if not dataset_root.is_dir():
        raise UserError(f"{dataset_root}: no such folder{_nearest_folder(dataset_root)}")
    names = FORMATS.get(dataset_name, OWN_DATA).annotation_files
    for name in names:
        if found := _matching(dataset_root, name):
            return found
    if by_split := [path for path in _matching(dataset_root, "*.json") if split_of(path)]:
        return by_split
    present = sorted(path.name for path in dataset_root.glob("*.json"))
    hint = f"; it holds {', '.join(present)}" if present else ""
    raise UserError(
        f"{dataset_root}: no annotation file {' or '.join(names)}{hint} (nor one for each split, such as train.json)"
    )


def split_of(path: Path) -> str | None:
    """The split that the name of an annotation file says, as `test_reid.json` does."""
    named = set(re.split(r"[^a-z]+", path.stem.lower())) & set(SPLITS)
    return named.pop() if len(named) == 1 else None


def image_folder(dataset_root: Path, records: list[Record]) -> Path:
    """The folder in which the images of a dataset lie: `imgs`, or if there is none its own.

    Raises:
        UserError: They lie in neither.
    """
    images = dataset_root / "imgs"
    if images.is_dir():
        return images
    if any((dataset_root / record.path).is_file() for record in records[:LOOKED_AT]):
        return dataset_root
    raise UserError(f"{images}: no such folder; the images that the annotations name belong there")


def _matching(folder: Path, pattern: str) -> list[Path]:
    paths = sorted(folder.glob(pattern)) if "*" in pattern else [folder / pattern]
    return [path for path in paths if path.is_symlink() or (path.exists() and not path.is_dir())]


def _nearest_folder(dataset_root: Path) -> str:
    names = sorted(path.name for path in dataset_root.parent.iterdir() if path.is_dir())
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(dataset_root.name.lower(), lowered, n=1)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    return f"; {dataset_root.parent} holds {', '.join(names) or 'no folders'}"


def _read_files(files: list[Path], expected: DatasetFormat) -> Iterator[Entry]:
    """The entries of all files; those by path come last, since several files may have captions of the same image."""
    captions: dict[tuple[str, str], list[Any]] = {}
    for file in files:
        content, split = _load(file), split_of(file) or expected.split
        if isinstance(content, list):
            yield from _listed(content, f"{file.name}: " if len(files) > 1 else "", split, expected.image_keys)
            continue
        for path, value in content.items():
            place = PurePosixPath(path).name if expected.flat else path
            captions.setdefault((split or "train", place), []).extend(value if isinstance(value, list) else [value])
    for (split, path), texts in captions.items():
        person = FOLDER_OF_PERSON.fullmatch(path)
        values = {"id": person[1] if person else path, "captions": texts, "path": path, "split": split}
        yield Entry(f"entry {_show(path)}", Keys(), values)


def _load(path: Path) -> list[Any] | dict[str, Any]:
    check_regular_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error}") from None
    except (ValueError, RecursionError) as error:  # json's own, and numbers of thousands of digits
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if isinstance(content, list) and not content:
        raise UserError(f"{path}: the list is empty; it must have one object per image")
    if isinstance(content, list) or (isinstance(content, dict) and any(map(_may_be_captions, content.values()))):
        return content
    raise UserError(
        f"{path}: must be a JSON list with one object per image, found {type(content).__name__} "
        "(an object is read if it maps paths to captions)"
    )


def _may_be_captions(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and any(isinstance(item, str) for item in value))


def _listed(items: list[Any], label: str, split: str | None, image_keys: tuple[str, ...]) -> Iterator[Entry]:
    """The entries of a list, whose first object tells the keys; `split` is that of those that name none."""
    first = next((item for item in items if isinstance(item, dict)), {})
    identity = "image_id" if "image_id" in first and "id" not in first else "id"
    captions = "caption" if "caption" in first and "captions" not in first else "captions"
    if split is None and "prompt_caption" in first:
        split = "train"  # as SYNTH-PEDES is, also under another name
    for number, item in enumerate(items):
        present = (key for key in (*image_keys, "image") if isinstance(item, dict) and key in item)
        keys = Keys(identity, captions, next(present, image_keys[0]))
        yield Entry(f"{label}entry {number}", keys, _values(item, keys, split) if isinstance(item, dict) else item)


def _values(item: dict[str, Any], keys: Keys, split: str | None) -> dict[str, Any]:
    names = {**vars(keys), **{key: key for key in ("split", *OPTIONAL)}}
    values: dict[str, Any] = {"split": split} if split else {}
    values |= {key: item[name] for key, name in names.items() if name in item}
    if keys.captions == "caption" and isinstance(values.get("captions"), str):
        values["captions"] = [values["captions"]]
    return values


def _number_identities(entries: list[Entry]) -> list[Entry]:
    """Replace identities that are strings by numbers, unless others are numbers."""
    named = [entry.values.get("id") if isinstance(entry.values, dict) else None for entry in entries]
    names = [name for name in named if name is not None]
    if not all(isinstance(name, str) and _is_text(name) for name in names):
        return entries
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [
        entry if name is None else replace(entry, values=entry.values | {"id": numbers[name]})
        for entry, name in zip(entries, named, strict=True)
    ]


def _check(entries: Iterable[Entry], image_keys: tuple[str, ...]) -> tuple[list[Record], list[str]]:
    """The records of the valid entries, and the problems of the others."""
    records: list[Record] = []
    problems: list[str] = []
    first: dict[str, str] = {}
    for entry in entries:
        if found := list(_entry_problems(entry, image_keys)):
            problems += [f"{entry.where}: {problem}" for problem in found]
            continue
        record = _record(entry.values)
        if record.path in first:
            again = f"{entry.keys.path} {record.path!r} is already the image of {first[record.path]}"
            problems.append(f"{entry.where}: {again}")
            continue
        first[record.path] = entry.where
        records.append(record)
    return records, problems


def _record(values: dict[str, Any]) -> Record:
    wrong = tuple(values["wrong_captions"]) if "wrong_captions" in values else None
    twins = tuple(text if _is_caption(text) else "" for text in values.get("captions_bt", ()))
    path, captions = _posix(values["path"]).as_posix(), tuple(values["captions"])
    return Record(values["id"], path, captions, values["split"], wrong, twins if any(twins) else None)


def _entry_problems(entry: Entry, image_keys: tuple[str, ...]) -> Iterator[str]:
    values, keys = entry.values, entry.keys
    if not isinstance(values, dict):
        yield f"must be an object, found {_show(values)}"
        return
    checks = {"id": _id_problem, "captions": _captions_problem, "split": _split_problem, "path": _path_problem}
    for key, check in checks.items():
        name = getattr(keys, key, key)
        if key not in values:
            missing = " or ".join(map(repr, image_keys if key == "path" else (name,)))
            yield f"key {missing} is missing{HINTS.get(key, '')}"
        elif problem := check(values[key]):
            yield f"{name} {problem}"
    captions = values.get("captions")
    for key, (kind, each) in OPTIONAL.items():
        if key in values and isinstance(captions, list) and not _is_list_of(values[key], kind, len(captions)):
            yield f"{key} must be a list of {each}, one for each caption ({len(captions)}), found {_show(values[key])}"


def _is_list_of(value: Any, kind: type, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(isinstance(item, kind) for item in value)


def _id_problem(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_PID:
        return None
    return f"must be a whole number from 0 to {MAX_PID}, found {_show(value)}"


def _captions_problem(value: Any) -> str | None:
    if not isinstance(value, list) or not value:
        return f"must be a list of at least one sentence, found {_show(value)}"
    wrong = [caption for caption in value if not isinstance(caption, str) or not _is_caption(caption)]
    return f"must be sentences, found {_show(wrong[0])}" if wrong else None


def _split_problem(value: Any) -> str | None:
    return None if value in SPLITS else f"must be one of {', '.join(SPLITS)}, found {_show(value)}"


def _path_problem(value: Any) -> str | None:
    if not isinstance(value, str) or not _is_text(value):
        return f"must be a path inside imgs/, found {_show(value)}"
    path = _posix(value)
    if path.is_absolute() or ".." in path.parts:
        return f"must stay inside imgs/ (no leading / and no ..), found {_show(value)}"
    return None if path.name else f"must name a file in imgs/, found {_show(value)}"


def _posix(value: str) -> PurePosixPath:
    """The path that an annotation names, which was written on Windows where it has backslashes and no slash."""
    return PurePosixPath(value if "/" in value else value.replace("\\", "/"))


def _is_caption(value: str) -> bool:
    """Whether any text is left after HTML entities such as `&nbsp;` are decoded.

    They are decoded twice, as in CLIP's tokenizer, since `&amp;nbsp;` occurs too.
    """
    return _is_text(html.unescape(html.unescape(value)))


def _is_text(value: str) -> bool:
    """Whether there is readable text that UTF-8 can encode (JSON may contain half a surrogate pair).

    Control characters alone do not count, since the tokenizer removes them.
    """
    readable = any(character.isprintable() and not character.isspace() for character in value)
    return readable and not HALF_PAIR.search(value)


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _shared_identities(records: list[Record]) -> list[str]:
    splits: dict[int, set[str]] = {}
    for record in records:
        splits.setdefault(record.pid, set()).add(record.split)
    return [
        f"id {pid} is in {' and '.join(split for split in SPLITS if split in where)}; an identity belongs to one split"
        for pid, where in splits.items()
        if len(where) > 1
    ]


def _summary(place: Path, problems: list[str]) -> str:
    more = len(problems) - SHOWN_PROBLEMS
    lines = [f"{place}: cannot be used (entries are counted from 0)"]
    lines += [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
    return "\n".join(lines + ([f"  and {more} more"] if more > 0 else []))
