"""What a dataset for person retrieval consists of, and the public ones by name."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
        pid: Number of its identity.
        path: Where it lies in the folder of the images.
        captions: Its captions.
        split: train, val or test.
        wrong: Of each caption, whether it is known to describe somebody else; None if the annotation does not say.
        back_translated: Of each caption, the same in other words, "" where there are none; None if no caption has any.
    """

    pid: int
    path: str
    captions: tuple[str, ...]
    split: str
    wrong: tuple[bool, ...] | None = None
    back_translated: tuple[str, ...] | None = None


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
    """File names and keys of a dataset, and the published sizes of its splits.

    Attributes:
        annotation_files: Names or patterns. All files that match the first pattern that any matches are read together.
        image_keys: Keys that name the image.
        sizes: By split; empty where they are not published, and for users' own data.
        ids_restart: The same id in two splits means two people.
        split: That of entries whose annotation does not say it.
        flat: All images lie in one folder, whatever folders the annotations name.
    """

    annotation_files: tuple[str, ...]
    image_keys: tuple[str, ...] = ("file_path",)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    ids_restart: bool = False
    split: str | None = None
    flat: bool = False


ANY_FILE = "*.json"  # where the name under which a dataset is given out is not documented
FORMATS = {
    "CUHK-PEDES": DatasetFormat(
        ("reid_raw.json", "caption_all.json", "CUHK-PEDES.json"),
        sizes={"train": Size(11003, 34054, 68126), "val": Size(1000, 3078, 6158), "test": Size(1000, 3074, 6156)},
    ),
    "ICFG-PEDES": DatasetFormat(
        ("ICFG-PEDES.json", "ICFG_PEDES.json"),
        sizes={"train": Size(3102, 34674, 34674), "test": Size(1000, 19848, 19848)},
        ids_restart=True,  # it is not documented whether its splits share one numbering, so equal ids prove nothing
    ),
    "RSTPReid": DatasetFormat(
        ("data_captions.json",),
        ("img_path",),
        {"train": Size(3701, 18505, 37010), "val": Size(200, 1000, 2000), "test": Size(200, 1000, 2000)},
    ),
    "UFine6926": DatasetFormat((ANY_FILE,)),
    "UFine3C": DatasetFormat((ANY_FILE,), sizes={"test": Size(2250, 7446, 37939)}, split="test"),
    "MALS": DatasetFormat(("gene_attrs/*.json", ANY_FILE), ("image",), split="train"),
    "SYNTH-PEDES": DatasetFormat(
        ("synthpedes_dataset.json", ANY_FILE), sizes={"train": Size(312321, 4791771, 12138157)}, split="train"
    ),
    "LUPerson-MLLM": DatasetFormat(("captions/*.json", "caption/*.json", ANY_FILE), split="train", flat=True),
}
OWN_DATA = DatasetFormat(
    ("annotations.json", *(name for known in FORMATS.values() for name in known.annotation_files if "*" not in name)),
    tuple(dict.fromkeys(key for known in FORMATS.values() for key in known.image_keys)),
)


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


def warn_of_other_sizes(name: str, records: Iterable[Record]) -> None:
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
