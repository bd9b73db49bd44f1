"""Keys that name a split which the data lack are refused before training."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from irra.config import PrepareConfig, load_params
from irra.data.splits import check_annotations, check_store, needed_splits
from irra.utils.errors import UserError
from tests.conftest import write_store
from tests.imports import ROOT


def check(root: Path, needed: dict[str, str], **changes: Any) -> None:
    check_annotations(root / "mine", PrepareConfig(dataset_name="mine", **changes), needed)


def annotate(root: Path, *splits: str, file_name: str = "mine/annotations.json") -> Path:
    """Annotate a dataset of one picture for each of `splits`; returns its root."""
    entries = [
        {"id": pid, "file_path": f"{pid}.jpg", "img_path": f"{pid}.jpg", "captions": ["A man."], "split": split}
        for pid, split in enumerate(splits)
    ]
    path = root / file_name
    (path.parent / "imgs").mkdir(parents=True)
    path.write_text(json.dumps(entries))
    return root


def test_every_key_that_names_a_split_is_looked_at() -> None:
    params = load_params(ROOT / "presets" / "tiny.yaml")
    assert needed_splits(params.train, params.index, params.registry) == {
        "train.select_on": "val",
        "index.split": "test",
        "registry.metric": "val/t2i/R1",
    }


def test_one_message_names_all_keys_what_is_there_and_the_cure(tmp_path: Path) -> None:
    root = annotate(tmp_path, "train", "train", "val")
    with pytest.raises(UserError) as caught:
        check(root, {"index.split": "test", "registry.metric": "test/t2i/R1", "x": "train"})
    assert str(caught.value) == (
        f"{root}/mine/annotations.json: no test split for index.split: test, registry.metric: test/t2i/R1; "
        "it has pictures in train (2), val (1). "
        "Set these keys to a split that is there, or annotate pictures of other people as test"
    )


def test_without_a_val_split_the_message_names_what_holds_one_out(tmp_path: Path) -> None:
    root = annotate(tmp_path, "train", "train", "test")
    with pytest.raises(UserError, match=r"no val split for train\.select_on: val; .*, or set prepare\.val_share"):
        check(root, {"train.select_on": "val"})


def test_identities_that_will_be_held_out_are_a_val_split(tmp_path: Path) -> None:
    check(annotate(tmp_path, "train", "train"), {"train.select_on": "val"}, val_share=0.5)


def test_a_single_identity_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no val split"):
        check(annotate(tmp_path, "train"), {"train.select_on": "val"}, val_share=0.5)


def test_what_the_prepare_stage_warns_of_is_not_said_twice(tmp_path: Path) -> None:
    root = annotate(tmp_path, "train", "val", file_name="RSTPReid/data_captions.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_annotations(root / "RSTPReid", PrepareConfig(dataset_name="RSTPReid"), {"train.select_on": "val"})


def test_a_prepared_dataset_is_looked_at_too(tmp_path: Path) -> None:
    store = write_store(tmp_path / "prepared", {"train": 4, "val": 2})
    with pytest.raises(UserError, match=r"prepared \(toy\): no test split for index\.split: test; .* val \(4\)"):
        check_store(store, {"index.split": "test"})
