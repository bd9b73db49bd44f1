"""Files of boxes: COCO JSON, MOT text and CSV, told by their content."""

import json
from pathlib import Path
from typing import Any

import pytest

from irra.footage.boxes import Boxes, FrameName, read_boxes
from irra.footage.frames import Box
from irra.utils.errors import UserError

MOT = "1,-1,10,20,30,60,0.9,-1,-1,-1\n"
CSV = "frame,x,y,width,height\na.jpg,1,2,3,4\n"


def read(tmp_path: Path, content: str | bytes | dict[str, Any] | list[Any]) -> Boxes:
    path = tmp_path / "boxes.txt"  # whatever it is: no suffix is looked at
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_boxes(path)


def found(boxes: Boxes) -> dict[str, list[Box]]:
    return {str(name): boxes.of(name) for name in boxes.frames}


def coco(annotations: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "cam1/a.jpg"}, {"id": 8, "file_name": "cam1/b.jpg"}],
        "annotations": annotations,
        **more,
    }


def test_coco_gives_the_people_of_each_named_image(tmp_path: Path) -> None:
    boxes = read(
        tmp_path,
        coco(
            [
                {"image_id": 8, "category_id": 1, "bbox": [1, 2, 3, 4.5]},
                {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9]},
                {"image_id": 7, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.5, "track_id": 4},
                {"image_id": 7, "category_id": 1, "bbox": [0, 0, 99, 99], "iscrowd": 1},
                {"image_id": 8, "category_id": 1, "bbox": [9, 9, 9, 9]},
            ],
            categories=[{"id": 1, "name": "Person"}, {"id": 3, "name": "car"}],
        ),
    )
    assert found(boxes) == {
        "cam1/b.jpg": [Box(1, 2, 3, 4.5), Box(9, 9, 9, 9)],
        "cam1/a.jpg": [Box(5, 6, 7, 8, 0.5, 4)],
    }
    assert (boxes.ignored, boxes.tracked) == (2, True)


def test_without_names_of_categories_all_boxes_are_people(tmp_path: Path) -> None:
    for categories in ([], None, 5):
        boxes = read(tmp_path, coco([{"image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]}], categories=categories))
        assert len(boxes.places) == 1


@pytest.mark.parametrize(("key", "name"), [("image_id", "000001"), ("file_name", "a.jpg")])
def test_a_plain_list_of_detections_may_name_its_images(tmp_path: Path, key: str, name: str) -> None:
    boxes = read(tmp_path, [{"category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25, key: name}])
    assert found(boxes) == {name: [Box(1, 2, 3, 4, 0.25)]}


def test_mot_detections_have_scores_and_no_tracks(tmp_path: Path) -> None:
    boxes = read(tmp_path, "2,-1,1.5,2,3,4,0.5,-1,-1,-1\n\n1,-1,5,6,7,8,-1,-1,-1,-1\n")
    assert found(boxes) == {"frame 2": [Box(1.5, 2, 3, 4, 0.5)], "frame 1": [Box(5, 6, 7, 8)]}
    assert (boxes.first, boxes.tracked) == (1, False)


def test_boxes_keep_the_order_of_the_file(tmp_path: Path) -> None:
    boxes = read(tmp_path, "".join(f"{1 + x % 3},-1,{x},2,3,4,0.5\n" for x in range(60)))
    assert [box.x for box in boxes.of(FrameName("", 2))] == list(range(1, 60, 3))


def test_mot_ground_truth_has_pedestrians_and_tracks(tmp_path: Path) -> None:
    lines = ["1,3,1,2,3,4,1,1,0.7", "1,4,1,2,3,4,1,7,1", "1,5,1,2,3,4,0,1,1"]
    boxes = read(tmp_path, "\r\n".join(lines))
    assert found(boxes) == {"frame 1": [Box(1, 2, 3, 4, None, 3)]}
    assert (boxes.ignored, boxes.tracked) == (2, True)


def test_csv_names_frames_by_file_or_number(tmp_path: Path) -> None:
    text = "\ufeffX,y,Width,height,frame,file,score,track\n1,2,3,4,a b.jpg,,,\n5,6,7,8,0,v.mp4,0.5,2\n9,9,9,9,3,,1,\n"
    assert found(read(tmp_path, text)) == {
        "a b.jpg": [Box(1, 2, 3, 4)],
        "v.mp4: frame 0": [Box(5, 6, 7, 8, 0.5, 2)],
        "frame 3": [Box(9, 9, 9, 9, 1.0)],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "no file of boxes"),
        ("", "no column frame in its first line"),
        ("name,x\n", "no column frame in its first line"),
        ("frame,x,y,width,height\n", "no boxes of people in it"),
        (CSV + "b.jpg,1,nan,3,4\n", "line 3: y is nan; it must be finite"),
        (CSV + "b.jpg,1,,3,4\n", "line 3: y is '', not a number"),
        (CSV + "b.jpg,1,2,3\n", "line 3: 4 fields where the first line has 5"),
        (CSV + "-1,1,2,3,4\n", "line 3: frame -1; frames are counted from 0"),
        (MOT + "2,-1,1,2,3\n", "line 2: not frame,id,x,y"),
        (MOT + "0,-1,1,2,3,4,1\n", "line 2: frame 0; frames are counted from 1"),
        (MOT + "1.5,-1,1,2,3,4,1\n", "line 2: frame is 1.5; it must be a whole number"),
        (MOT + "2,-1,1,2,-3,4,1\n", "line 2: a box of -3 x 4; its size must be above 0"),
        (MOT + "2,-1,1,inf,3,4,1\n", "line 2: y is inf; it must be finite"),
        ("1,1,1,2,3,4,0,1,1\n", "no boxes of people in it, only 1"),
        ("{", "no file of boxes"),
        ({"a": 1}, "no images in it"),
        ({"images": [{"id": 1}], "annotations": []}, r"images\[0\]: no id and file_name"),
        (coco([]), "no boxes of people in it"),
        (
            coco([{"image_id": 9, "bbox": [1, 2, 3, 4]}]),
            r"annotations\[0\]: image_id is 9, which is none of the images",
        ),
        (coco([{"image_id": 7, "bbox": [1, 2, 0, 4]}]), r"annotations\[0\]: a box of 0 x 4"),
        (coco([{"image_id": 7, "bbox": [1, 2, 3]}]), r"annotations\[0\]: bbox is \[1, 2, 3\], not \[x, y"),
        (coco([{"image_id": 7, "bbox": [1, 2, None, 3]}]), r"annotations\[0\]: width is None, not a number"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [NaN, 1, 1, 1]}]}',
            "finite",
        ),
        (coco([{"image_id": 7, "bbox": [1, 2, 10**400, 3]}]), "width is 10*; it must be finite"),
        ('[{"bbox": [' + "9" * 5000, "no file of boxes"),
        (coco([], categories=[{"id": 1, "name": "car"}]), "none of its categories is called person: car"),
        ([{"image_id": 5, "bbox": [1, 2, 3, 4]}], r"\[0\]: image_id 5 says no file name; give the file with images"),
    ],
)
def test_what_is_no_file_of_boxes_is_refused_with_the_place(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"boxes.txt: .*{message}") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file of boxes"):
        read_boxes(tmp_path / "boxes.json")


def test_the_content_of_a_frame_changes_with_any_of_its_boxes(tmp_path: Path) -> None:
    name = FrameName("a.jpg")
    texts = [CSV, CSV + "b.jpg,1,2,3,4\n", CSV + "a.jpg,1,2,3,4\n", CSV.replace("4", "5")]
    contents = [read(tmp_path, text).content(name) for text in texts]
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3
