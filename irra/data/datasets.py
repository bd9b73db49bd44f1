"""Reader for CUHK-PEDES, ICFG-PEDES, RSTPReid and users' own data in the same layout.

`<root>/<dataset>/<annotation file>` is a JSON list of objects with the keys `id`, `captions`, `split` and an image key,
whose value is a path inside `<root>/<dataset>/imgs/`.
"""

import difflib
import html
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from irra.utils.errors import UserError
from irra.utils.files import check_regular_file

SPLITS = ("train", "val", "test")
MAX_PID = 2**31 - 1
SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Record:
    """One image: its identity, its path inside `imgs/`, its captions and its split."""

    pid: int
    path: str
    captions: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Size:
    """Number of identities, images and captions of a split."""

    identities: int
    images: int
    captions: int

    def __str__(self) -> str:
        return f"{self.identities} / {self.images} / {self.captions}"


@dataclass(frozen=True)
class DatasetFormat:
    """File names and keys of a dataset, and the published sizes of its splits (empty for users' own data)."""

    annotation_files: tuple[str, ...]
    image_keys: tuple[str, ...]
    sizes: Mapping[str, Size] = field(default_factory=dict)
    ids_restart: bool = False  # the same id in two splits means two people


FORMATS = {
    "CUHK-PEDES": DatasetFormat(
        ("reid_raw.json", "caption_all.json", "CUHK-PEDES.json"),
        ("file_path",),
        {"train": Size(11003, 34054, 68126), "val": Size(1000, 3078, 6158), "test": Size(1000, 3074, 6156)},
    ),
    "ICFG-PEDES": DatasetFormat(
        ("ICFG-PEDES.json", "ICFG_PEDES.json"),
        ("file_path",),
        {"train": Size(3102, 34674, 34674), "test": Size(1000, 19848, 19848)},
        ids_restart=True,  # it is not documented whether its splits share one numbering, so equal ids prove nothing
    ),
    "RSTPReid": DatasetFormat(
        ("data_captions.json",),
        ("img_path",),
        {"train": Size(3701, 18505, 37010), "val": Size(200, 1000, 2000), "test": Size(200, 1000, 2000)},
    ),
}
OWN_DATA = DatasetFormat(
    ("annotations.json", *(name for known in FORMATS.values() for name in known.annotation_files)),
    tuple(dict.fromkeys(key for known in FORMATS.values() for key in known.image_keys)),
)


def read_annotations(dataset_root: Path, dataset_name: str | None = None) -> list[Record]:
    """Read the records of all images of a dataset, in the order of its annotation file.

    Warns if the sizes of a public dataset differ from the published ones.

    Args:
        dataset_root: Folder of the dataset.
        dataset_name: Name that decides the expected format; by default the name of the folder.

    Raises:
        UserError: Something cannot be used; the message names file, entry and key.
    """
    name = dataset_name or dataset_root.name
    expected = FORMATS.get(name, OWN_DATA)
    path = find_annotations(dataset_root, name)
    records, problems = _parse(_load_entries(path), expected.image_keys)
    if not expected.ids_restart:
        problems += _shared_identities(records)
    if problems:
        raise UserError(_summary(path, problems))
    warn_of_other_sizes(name, records)
    return records


def split_sizes(records: Iterable[Record]) -> dict[str, Size]:
    """The size of each split that has images, in the order of SPLITS."""
    groups: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record in records:
        groups[record.split].append(record)
    return {
        split: Size(len({record.pid for record in group}), len(group), sum(len(record.captions) for record in group))
        for split, group in groups.items()
        if group
    }


def find_annotations(dataset_root: Path, dataset_name: str) -> Path:
    """Find the annotation file of a dataset.

    Raises:
        UserError: The file, the dataset's folder or the folder of the images is missing.
    """
    expected = FORMATS.get(dataset_name, OWN_DATA)
    if not dataset_root.parent.is_dir():
        raise UserError(
            f"{dataset_root.parent}: no such folder; prepare.root_dir must name the folder that holds the datasets"
        )
    if not dataset_root.is_dir():
        raise UserError(f"{dataset_root}: no such folder{_nearest_folder(dataset_root)}")
    found = [dataset_root / name for name in expected.annotation_files if _is_there(dataset_root / name)]
    if not found:
        present = sorted(path.name for path in dataset_root.glob("*.json"))
        hint = f"; it holds {', '.join(present)}" if present else ""
        raise UserError(f"{dataset_root}: no annotation file {' or '.join(expected.annotation_files)}{hint}")
    if not (dataset_root / "imgs").is_dir():
        raise UserError(f"{dataset_root / 'imgs'}: no such folder; the images of {found[0].name} belong there")
    return found[0]


def _is_there(path: Path) -> bool:
    return path.is_symlink() or (path.exists() and not path.is_dir())


def _nearest_folder(dataset_root: Path) -> str:
    names = sorted(path.name for path in dataset_root.parent.iterdir() if path.is_dir())
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(dataset_root.name.lower(), lowered, n=1)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    return f"; {dataset_root.parent} holds {', '.join(names) or 'no folders'}"


def _load_entries(path: Path) -> list[Any]:
    check_regular_file(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error}") from None
    except (ValueError, RecursionError) as error:  # json's own, and numbers of thousands of digits
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(entries, list):
        raise UserError(f"{path}: must be a JSON list with one object per image, found {type(entries).__name__}")
    if not entries:
        raise UserError(f"{path}: the list is empty; it must have one object per image")
    return entries


def _parse(entries: list[Any], image_keys: tuple[str, ...]) -> tuple[list[Record], list[str]]:
    """The records of the valid entries, and the problems of the others."""
    records: list[Record] = []
    problems: list[str] = []
    first_entry: dict[str, int] = {}
    for number, entry in enumerate(entries):
        image_key = next((key for key in image_keys if isinstance(entry, dict) and key in entry), image_keys[0])
        entry_problems = [f"entry {number}: {problem}" for problem in _entry_problems(entry, image_key, image_keys)]
        problems += entry_problems
        if entry_problems:
            continue
        path = _posix(entry[image_key]).as_posix()
        if path in first_entry:
            problems.append(f"entry {number}: {image_key} {path!r} is already the image of entry {first_entry[path]}")
            continue
        first_entry[path] = number
        records.append(Record(entry["id"], path, tuple(entry["captions"]), entry["split"]))
    return records, problems


def _entry_problems(entry: Any, image_key: str, image_keys: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"must be an object, found {_show(entry)}"
        return
    checks = {"id": _id_problem, "captions": _captions_problem, "split": _split_problem, image_key: _path_problem}
    for key, check in checks.items():
        if key not in entry:
            names = image_keys if key == image_key else (key,)
            hint = "; it says train, val or test. Take the annotation file that has it" if key == "split" else ""
            yield f"key {' or '.join(map(repr, names))} is missing{hint}"
        elif problem := check(entry[key]):
            yield f"{key} {problem}"


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
    return readable and not any("\ud800" <= character <= "\udfff" for character in value)


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


def _summary(path: Path, problems: list[str]) -> str:
    more = len(problems) - SHOWN_PROBLEMS
    lines = [f"{path}: cannot be used (entries are counted from 0)"]
    lines += [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
    return "\n".join(lines + ([f"  and {more} more"] if more > 0 else []))


def warn_of_other_sizes(name: str, records: list[Record]) -> None:
    """Warn where the records are not those of the published splits."""
    published = FORMATS.get(name, OWN_DATA).sizes
    found = split_sizes(records)
    nothing = Size(0, 0, 0)
    differing = [
        f"{split} {found.get(split, nothing)} instead of {published.get(split, nothing)}"
        for split in SPLITS
        if published and found.get(split, nothing) != published.get(split, nothing)
    ]
    if differing:
        warnings.warn(
            f"{name}: identities / images / captions differ from the published split: {'; '.join(differing)}. "
            "Results on this copy are not comparable with published ones.",
            stacklevel=3,
        )
