"""Annotations in the forms in which the datasets are given out."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from irra.data.datasets import Record
from irra.data.layouts import image_folder, read_annotations, split_of
from irra.utils.errors import UserError

UFINE6926 = {
    "split": "train",
    "id": 1,
    "file_path": "images/1.jpg",
    "captions": ["A middle-aged woman with a moderate build.", "A middle-aged woman with brown hair."],
}
UFINE3C = {
    "id": 2250,
    "source": "UFine6926",
    "split": "test",
    "file_path": "images/7446.jpg",
    "captions": ["The young man has short black hair.", "This young man is fit.", "A fit young man."],
}
MALS = [
    {"image": "gene_crop/c_g_a_0/0.jpg", "caption": "a young boy", "image_id": "c_g_a_0_0", "label": [1, 0, -1]},
    {"image": "gene_crop/c_g_a_0/20217.jpg", "caption": "a woman", "image_id": "c_g_a_0_20217", "label": [0, 1, -1]},
]
SYNTH_PEDES = {
    "id": 7,
    "file_path": "Part1/7/1.jpg",
    "attributes": ["man,black hair,black shirt,pink shorts,black shoes,unknown"],
    "captions": ["A man in his mid-twenties.", "The man with short black hair."],
    "prompt_caption": ["A man with black hair."],
}
LUPERSON_MLLM = {
    "captions/Ts-qwen.json": {"part1/b.jpg": "A woman.", "part1/a.jpg": "A man in black."},
    "captions/Td-qwen.json": {"/data/LUPerson/a.jpg": "Wearing black, the man walks."},
}


def make(root: Path, files: dict[str, Any], image: str = "imgs/x.jpg") -> Path:
    """A dataset of annotation files, and one image."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content))
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    (root / image).touch()
    return root


def read(root: Path) -> list[Record]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these few images are not the published number
        return read_annotations(root)


def complaint(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(root)
    return str(caught.value)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("file", ["UFine3C_Annotations.json", "test.json"])
def test_ufine3c_is_test_alone_and_its_images_lie_beside_the_annotations(
    tmp_path: Path, split: bool, file: str
) -> None:
    entry = UFINE3C if split else {key: value for key, value in UFINE3C.items() if key != "split"}
    root = make(tmp_path / "UFine3C", {file: [entry]}, "images/7446.jpg")
    assert read(root) == [Record(2250, "images/7446.jpg", tuple(UFINE3C["captions"]), "test")]
    assert image_folder(root, read(root)) == root


def test_ufine6926_is_read_from_whatever_file_there_is(tmp_path: Path) -> None:
    root = make(tmp_path / "UFine6926", {"UFine6926_Annotations.json": [UFINE6926]}, "images/1.jpg")
    assert read(root) == [Record(1, "images/1.jpg", tuple(UFINE6926["captions"]), "train")]


def test_mals_as_given_out_is_for_training_and_its_identities_are_numbered(tmp_path: Path) -> None:
    files = {"gene_attrs/g_4x_attrs.json": MALS[1:], "gene_attrs/g_c_g_a_0_attrs.json": MALS[:1]}
    root = make(tmp_path / "MALS", files, "gene_crop/c_g_a_0/0.jpg")
    assert read(root) == [
        Record(0, "gene_crop/c_g_a_0/20217.jpg", ("a woman",), "train"),
        Record(1, "gene_crop/c_g_a_0/0.jpg", ("a young boy",), "train"),
    ]


@pytest.mark.parametrize("name", ["MALS", "mine", "CUHK-PEDES"])
@pytest.mark.parametrize("identity", ["image_id", "id"])
def test_aptm_s_files_name_the_split_and_may_number_identities_anew(tmp_path: Path, name: str, identity: str) -> None:
    def entry(number: int | str, image: str, caption: Any) -> dict[str, Any]:
        return {"image": image, "caption": caption, identity: number}

    files = {
        "cuhk_train.json": [entry(5, "a.jpg", "a man")],
        "cuhk_val.json": [entry(5, "b.jpg", ["a woman", "she walks"])],
        "cuhk_test.json": [entry(6, "c.jpg", ["a boy"])],
    }
    records = read(make(tmp_path / name, files))
    assert {(record.pid, record.path, record.captions, record.split) for record in records} == {
        (5, "a.jpg", ("a man",), "train"),
        (5, "b.jpg", ("a woman", "she walks"), "val"),
        (6, "c.jpg", ("a boy",), "test"),
    }


def test_tbps_clip_s_files_have_back_translated_captions_and_one_split_each(tmp_path: Path) -> None:
    def entry(number: int, **more: Any) -> dict[str, Any]:
        return {"id": number, "file_path": f"{number}.jpg", "captions": ["a man", "he walks"], **more}

    files = {
        "train_reid.json": [entry(1, captions_bt=["one man", ""]), entry(2, captions_bt=["", " "]), entry(3)],
        "test_reid.json": [entry(4)],
    }
    records = read(make(tmp_path / "CUHK-PEDES", files))
    assert {record.pid: (record.split, record.back_translated) for record in records} == {
        1: ("train", ("one man", "")),
        2: ("train", None),
        3: ("train", None),
        4: ("test", None),
    }


def test_captions_known_to_be_wrong_are_kept_apart_from_those_of_which_nothing_is_said(tmp_path: Path) -> None:
    said = [{**UFINE6926, "id": 2, "file_path": "2.jpg", "wrong_captions": [True, False]}, UFINE6926]
    assert [record.wrong for record in read(make(tmp_path / "mine", {"annotations.json": said}))] == [
        (True, False),
        None,
    ]


@pytest.mark.parametrize(("name", "file"), [("SYNTH-PEDES", "synthpedes_dataset.json"), ("mine", "annotations.json")])
def test_synth_pedes_is_all_for_training(tmp_path: Path, name: str, file: str) -> None:
    root = make(tmp_path / name, {file: [SYNTH_PEDES]}, "Part1/7/1.jpg")
    assert read(root) == [Record(7, "Part1/7/1.jpg", tuple(SYNTH_PEDES["captions"]), "train")]


@pytest.mark.parametrize(("name", "file"), [("SYNTH-PEDES", "synthpedes_dataset.json"), ("mine", "annotations.json")])
def test_paths_that_name_a_person_s_folder_tell_identities_apart(tmp_path: Path, name: str, file: str) -> None:
    captions = {"Part3/12/1.jpg": "a man", "Part1/7/1.jpg": ["a woman", "she walks"], "Part3/12/2.jpg": "he walks"}
    assert read(make(tmp_path / name, {file: captions})) == [
        Record(0, "Part3/12/1.jpg", ("a man",), "train"),
        Record(1, "Part1/7/1.jpg", ("a woman", "she walks"), "train"),
        Record(0, "Part3/12/2.jpg", ("he walks",), "train"),
    ]


def test_luperson_mllm_joins_the_captions_of_an_image_that_is_a_person_of_its_own(tmp_path: Path) -> None:
    assert read(make(tmp_path / "LUPerson-MLLM", LUPERSON_MLLM, "imgs/a.jpg")) == [
        Record(0, "a.jpg", ("Wearing black, the man walks.", "A man in black."), "train"),
        Record(1, "b.jpg", ("A woman.",), "train"),
    ]


def test_captions_by_path_may_be_split_by_file(tmp_path: Path) -> None:
    files = {"train.json": {"part1/a.jpg": "a man"}, "test.json": {"part1/b.jpg": "a woman"}}
    assert [(record.path, record.split) for record in read(make(tmp_path / "mine", files))] == [
        ("part1/b.jpg", "test"),
        ("part1/a.jpg", "train"),
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"annotations.json": {"a.jpg": "a man", "b.jpg": []}}, 'entry "b.jpg": captions must be a list of at least'),
        ({"annotations.json": {"a.jpg": "a man", "b.jpg": 3}}, 'entry "b.jpg": captions must be sentences, found 3'),
        ({"annotations.json": {"/data/a.jpg": "a man"}}, 'entry "/data/a.jpg": path must stay inside imgs/'),
        ({"annotations.json": MALS}, "entry 0: key 'split' is missing; .* or one for each split, as train.json"),
        ({"train.json": [{**MALS[0], "caption": 3}]}, "entry 0: caption must be a list of at least one sentence"),
        ({"train.json": [MALS[0], {**MALS[1], "image_id": 3}]}, 'entry 0: image_id must be .* found "c_g_a_0_0"'),
        ({"train.json": [MALS[0], {"image_id": "x"}]}, "entry 1: key 'caption' is missing"),
        ({"train.json": MALS, "test.json": MALS[:1]}, r"train\.json: entry 0: image .* is already the image of test"),
        ({"a.json": MALS}, r"no annotation file .*; it holds a\.json \(nor one for each split, such as train\.json\)"),
    ],
)
def test_what_is_unclear_is_named_with_file_and_key(tmp_path: Path, files: dict[str, Any], expected: str) -> None:
    root = make(tmp_path / "mine", files)
    with pytest.raises(UserError, match=expected) as caught:
        read(root)
    assert str(root) in str(caught.value)


def test_images_that_lie_nowhere_belong_into_imgs(tmp_path: Path) -> None:
    root = make(tmp_path / "UFine3C", {"test.json": [UFINE3C]}, "elsewhere/7446.jpg")
    assert "imgs: no such folder; the images that the annotations name belong there" in complaint(root)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.json", "train"),
        ("cuhk_val.json", "val"),
        ("test_reid.json", "test"),
        ("CUHK-PEDES-test.json", "test"),
        ("reid_raw.json", None),
        ("testament.json", None),
        ("train_and_test.json", None),
    ],
)
def test_the_name_of_a_file_says_its_split_as_a_word(name: str, split: str | None) -> None:
    assert split_of(Path(name)) == split
