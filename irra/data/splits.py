"""Which splits the parameters need, and a message before training, not hours later, if the data lack one."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from irra.config import IndexConfig, PrepareConfig, RegistryConfig, TrainConfig
from irra.data.datasets import split_sizes
from irra.data.layouts import find_annotations, read_annotations
from irra.data.preparation import hold_out_val
from irra.data.store import PreparedStore
from irra.utils.errors import UserError


def needed_splits(
    train: TrainConfig, index: IndexConfig | None = None, registry: RegistryConfig | None = None
) -> dict[str, str]:
    """The keys that name a split, with their values: `test`, or a metric such as `test/t2i/R1`."""
    needed: dict[str, str] = {"train.select_on": train.select_on}
    if index:
        needed["index.split"] = index.split
    if registry:
        needed["registry.metric"] = registry.metric
    return needed


def check_annotations(folder: Path, config: PrepareConfig, needed: Mapping[str, str]) -> None:
    """Check that the dataset in `folder` can train, and has the `needed` splits or gets val by `prepare.val_share`.

    Raises:
        UserError: It has not, or its annotations cannot be used.
    """
    files = find_annotations(folder, config.dataset_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the prepare stage warns of the same
        records = hold_out_val(read_annotations(folder, config.dataset_name), config.val_share)
    where = files[0] if len(files) == 1 else folder
    _check(str(where), {split: size.images for split, size in split_sizes(records).items()}, needed)


def check_store(store: PreparedStore, needed: Mapping[str, str]) -> None:
    """Check that a prepared dataset can train, and has the `needed` splits.

    Raises:
        UserError: It has not.
    """
    pictures = {split: len(store.image_ids(split)) for split in store.splits}
    _check(f"{store.root} ({store.dataset_name})", pictures, needed)


def _check(where: str, pictures: Mapping[str, int], needed: Mapping[str, str]) -> None:
    """Name all keys whose split has no pictures, the splits that have some, and the cure."""
    there = ", ".join(f"{split} ({count})" for split, count in pictures.items())
    if "train" not in pictures:
        raise UserError(
            f"{where}: no train split; it has pictures in {there}. A model can be measured on it, but not trained: "
            "set prepare.dataset_name to a dataset to train on, and name this one in evaluate.also"
        )
    lacking: dict[str, list[str]] = {}
    for key, value in needed.items():
        if (split := value.split("/")[0]) not in pictures:
            lacking.setdefault(split, []).append(f"{key}: {value}")
    if not lacking:
        return
    what = " and ".join(f"no {split} split for {', '.join(keys)}" for split, keys in lacking.items())
    cure = f"Set these keys to a split that is there, or annotate pictures of other people as {' and '.join(lacking)}"
    share = ", or set prepare.val_share, which holds out training identities as val" if "val" in lacking else ""
    raise UserError(f"{where}: {what}; it has pictures in {there}. {cure}{share}")
