import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from irra.data.datasets import FORMATS, OWN_DATA, Record, Size, split_sizes
from irra.data.layouts import read_annotations
from irra.utils.errors import UserError


def entry(number: int, **changes: Any) -> dict[str, Any]:
    sound = {"id": number, "file_path": f"cam/{number}.jpg", "captions": ["A man.", "A tall man."], "split": "train"}
    return {**sound, **changes}


def write(root: Path, entries: Any, file_name: str = "annotations.json") -> Path:
    (root / "imgs").mkdir(parents=True)
    text = entries if isinstance(entries, str) else json.dumps(entries)
    (root / file_name).write_text(text, encoding="utf-8")
    return root


def complaint(root: Path, entries: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_annotations(write(root, entries))
    assert str(root / "annotations.json") in str(caught.value)
    return str(caught.value)


def test_records_hold_the_entries_in_the_order_of_the_file(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", [entry(7), entry(3, split="test"), entry(5, split="val")])
    assert read_annotations(root) == [
        Record(7, "cam/7.jpg", ("A man.", "A tall man."), "train"),
        Record(3, "cam/3.jpg", ("A man.", "A tall man."), "test"),
        Record(5, "cam/5.jpg", ("A man.", "A tall man."), "val"),
    ]


@pytest.mark.parametrize(
    ("name", "file_name", "image_key"),
    [
        (name, file_name, image_key)
        for name, known in FORMATS.items()
        for file_name in known.annotation_files
        if "*" not in file_name
        for image_key in known.image_keys
    ],
)
@pytest.mark.parametrize("own_name", [False, True])
def test_every_public_layout_is_read_under_its_own_name_and_under_any_other(
    tmp_path: Path, name: str, file_name: str, image_key: str, own_name: bool
) -> None:
    sound = {"id": 0, image_key: "a.jpg", "captions": ["A man."], "split": "train"}
    root = write(tmp_path / (name if own_name else "mine"), [sound], file_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one image is not the published number
        assert read_annotations(root) == [Record(0, "a.jpg", ("A man.",), "train")]


def test_a_dataset_name_overrules_the_name_of_the_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "artifact-17", [entry(0)], "reid_raw.json")
    with pytest.warns(UserWarning, match="CUHK-PEDES"):
        read_annotations(root, "CUHK-PEDES")


def test_own_data_may_mix_both_image_keys(tmp_path: Path) -> None:
    second = {"id": 1, "img_path": "b.jpg", "captions": ["A woman."], "split": "test"}
    assert [record.path for record in read_annotations(write(tmp_path / "mine", [entry(0), second]))] == [
        "cam/0.jpg",
        "b.jpg",
    ]


def test_captions_repeated_across_identities_and_cjk_characters_are_kept(tmp_path: Path) -> None:
    captions = ["一个穿红色外套的女人。", "A man."]
    root = write(tmp_path / "mine", [entry(0, captions=captions), entry(1, captions=captions)])
    assert [record.captions for record in read_annotations(root)] == [tuple(captions)] * 2


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    assert len(read_annotations(write(tmp_path / "mine", "\ufeff" + json.dumps([entry(0)])))) == 1


def test_a_file_that_is_named_but_absent_is_left_to_the_decoder(tmp_path: Path) -> None:
    assert len(read_annotations(write(tmp_path / "mine", [entry(0)]))) == 1


@pytest.mark.parametrize(("written", "read"), [("cam\\a\\0.jpg", "cam/a/0.jpg"), ("cam/a\\0.jpg", "cam/a\\0.jpg")])
def test_backslashes_separate_folders_only_in_paths_without_a_slash(tmp_path: Path, written: str, read: str) -> None:
    root = write(tmp_path / "mine", [entry(0, file_path=written)])
    assert [record.path for record in read_annotations(root)] == [read]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": "1"}, 'id must be a whole number from 0 to 2147483647, found "1"'),
        ({"id": True}, "id must be a whole number from 0 to 2147483647, found true"),
        ({"id": 1.0}, "id must be a whole number from 0 to 2147483647, found 1.0"),
        ({"id": -1}, "id must be a whole number from 0 to 2147483647, found -1"),
        ({"id": 2**31}, "id must be a whole number from 0 to 2147483647, found 2147483648"),
        ({"split": "valid"}, 'split must be one of train, val, test, found "valid"'),
        ({"split": ["train"]}, 'split must be one of train, val, test, found ["train"]'),
        ({"captions": []}, "captions must be a list of at least one sentence, found []"),
        ({"captions": "A man."}, 'captions must be a list of at least one sentence, found "A man."'),
        ({"captions": ["A man.", ""]}, 'captions must be sentences, found ""'),
        ({"captions": [" \n"]}, 'captions must be sentences, found " \\n"'),
        ({"captions": ["\x07\x1b"]}, 'captions must be sentences, found "\\u0007\\u001b"'),
        ({"captions": ["&amp;nbsp;"]}, 'captions must be sentences, found "&amp;nbsp;"'),
        ({"captions": [3]}, "captions must be sentences, found 3"),
        ({"captions": ["\ud800"]}, 'captions must be sentences, found "\\ud800"'),
        ({"wrong_captions": [True]}, "wrong_captions must be a list of true or false, one for each caption (2), found"),
        ({"wrong_captions": [0, 1]}, "wrong_captions must be a list of true or false, one for each caption (2), found"),
        ({"wrong_captions": True}, "wrong_captions must be a list of true or false, one for each caption (2), found"),
        ({"captions_bt": ["A man.", 3]}, 'captions_bt must be a list of sentences or "", one for each caption (2)'),
        ({"captions_bt": ["A man."]}, 'captions_bt must be a list of sentences or "", one for each caption (2)'),
        ({"file_path": 3}, "file_path must be a path inside imgs/, found 3"),
        ({"file_path": ""}, 'file_path must be a path inside imgs/, found ""'),
        ({"file_path": "./"}, 'file_path must name a file in imgs/, found "./"'),
        ({"file_path": "/etc/a.jpg"}, "file_path must stay inside imgs/"),
        ({"file_path": "cam/../../a.jpg"}, "file_path must stay inside imgs/"),
        ({"file_path": "..\\a.jpg"}, "file_path must stay inside imgs/"),
    ],
)
def test_a_wrong_value_is_named_with_entry_key_and_what_would_be_right(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    assert f"entry 1: {expected}" in complaint(tmp_path / "mine", [entry(0), entry(1, **changes)])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("id", "'id'"),
        ("captions", "'captions'"),
        ("split", "'split'"),
        ("file_path", " or ".join(map(repr, OWN_DATA.image_keys))),
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, key: str, expected: str) -> None:
    incomplete = {name: value for name, value in entry(1).items() if name != key}
    assert f"entry 1: key {expected} is missing" in complaint(tmp_path / "mine", [entry(0), incomplete])


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("[{", "not valid JSON"),
        (f"[{'9' * 4301}]", "not valid JSON"),
        ({"train": []}, "must be a JSON list with one object per image, found dict"),
        ([], "the list is empty"),
        ({}, "must be a JSON list with one object per image, found dict"),
        ({"train": [entry(0)]}, "must be a JSON list with one object per image, found dict"),
        ("3", "must be a JSON list with one object per image, found int"),
        ([entry(0), "x"], 'entry 1: must be an object, found "x"'),
        ([entry(0), entry(1, file_path="cam/./0.jpg")], "'cam/0.jpg' is already the image of entry 0"),
        ([entry(0), entry(0, file_path="b.jpg", split="test")], "id 0 is in train and test"),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(tmp_path: Path, entries: Any, expected: str) -> None:
    assert expected in complaint(tmp_path / "mine", entries)


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", [])
    (root / "annotations.json").write_bytes(b"[\xff]")
    with pytest.raises(UserError, match="not UTF-8"):
        read_annotations(root)


def test_only_the_first_problems_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    message = complaint(tmp_path / "mine", [entry(number, id=-1) for number in range(12)])
    assert "entry 4:" in message
    assert "entry 5:" not in message
    assert message.endswith("and 7 more")


def test_two_problems_of_one_entry_are_both_listed(tmp_path: Path) -> None:
    message = complaint(tmp_path / "mine", [entry(0, id=-1, split="x")])
    assert "entry 0: id" in message
    assert "entry 0: split" in message


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; prepare\.root_dir"):
        read_annotations(tmp_path / "nowhere" / "CUHK-PEDES")


@pytest.mark.parametrize("asked", ["cuhk-pedes", "CUHK_PEDES", "CUHKPEDES"])
def test_a_near_miss_of_a_folder_name_gets_a_suggestion(tmp_path: Path, asked: str) -> None:
    (tmp_path / "CUHK-PEDES").mkdir()
    with pytest.raises(UserError, match="did you mean 'CUHK-PEDES'"):
        read_annotations(tmp_path / asked)


def test_a_missing_dataset_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "market").mkdir()
    with pytest.raises(UserError, match=r"RSTPReid: no such folder; .* holds market"):
        read_annotations(tmp_path / "RSTPReid")


def test_a_missing_annotation_file_is_answered_with_the_names_looked_for_and_those_found(tmp_path: Path) -> None:
    root = write(tmp_path / "RSTPReid", [], "captions.json")
    with pytest.raises(UserError, match=r"no annotation file data_captions\.json; it holds captions\.json"):
        read_annotations(root)


def test_a_missing_imgs_folder_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", [entry(0)])
    (root / "imgs").rmdir()
    with pytest.raises(UserError, match="imgs: no such folder"):
        read_annotations(root)


def test_another_split_than_the_published_one_is_warned_of_with_both_numbers(tmp_path: Path) -> None:
    old_split = [
        {"id": pid, "img_path": f"{pid}_{image}.jpg", "captions": ["A man.", "He walks."], "split": split}
        for pid in range(4101)
        for image in range(5)
        for split in ["train" if pid < 3901 else "val" if pid < 4001 else "test"]
    ]
    root = write(tmp_path / "RSTPReid", old_split, "data_captions.json")
    with pytest.warns(UserWarning, match="train 3901 / 19505 / 39010 instead of 3701 / 18505 / 37010"):
        read_annotations(root)


def test_the_published_split_is_read_without_a_warning(tmp_path: Path) -> None:
    published = [
        {"id": pid, "img_path": f"{pid}_{image}.jpg", "captions": ["A man.", "He walks."], "split": split}
        for pid in range(4101)
        for image in range(5)
        for split in ["train" if pid < 3701 else "val" if pid < 3901 else "test"]
    ]
    root = write(tmp_path / "RSTPReid", published, "data_captions.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_annotations(root)) == 20505


def test_split_sizes_count_identities_images_and_captions() -> None:
    records = [Record(1, "a", ("x", "y"), "train"), Record(1, "b", ("x",), "train"), Record(2, "c", ("z",), "test")]
    assert split_sizes(records) == {"train": Size(1, 2, 3), "test": Size(1, 1, 1)}
