import hashlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights

from irra.footage import detector as detection
from irra.footage.detector import DETECTORS, Detector, find_weights
from irra.footage.frames import Box
from irra.utils.errors import UserError

NAME = "ssdlite320_mobilenet_v3_large"
FILE = get_model_weights(NAME).DEFAULT.url.rpartition("/")[2]
PERSON, CLASSES, MIN_SCORE = 1, 91, 0.5
PICTURES = [
    np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    for seed, size in enumerate([(120, 160), (90, 60)])
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of torch with random weights of a detector that sees people and other things everywhere."""
    torch.manual_seed(0)
    model = get_model(NAME, weights=None, weights_backbone=None).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # one batch sets its statistics; without them, all scores would be equal
    model.head(list(model.backbone(2 * torch.rand(2, 3, 320, 320) - 1).values()))
    weights = model.state_dict()
    for layer in range(6):
        weights[f"head.classification_head.module_list.{layer}.1.bias"].view(-1, CLASSES)[:, 1:3] = 4.0
    folder = tmp_path_factory.mktemp("torch")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(weights, folder / "hub" / "checkpoints" / FILE)
    return folder


@pytest.fixture
def cached(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(home))
    return home / "hub" / "checkpoints" / FILE


@pytest.fixture(scope="module")
def detector(home: Path) -> Detector:
    return Detector(NAME, home / "hub" / "checkpoints" / FILE, MIN_SCORE, "cpu")


@pytest.fixture(scope="module")
def people(detector: Detector) -> list[list[Box]]:
    return detector.detect(PICTURES)


def test_it_finds_what_torchvision_calls_a_person_above_the_score(people: list[list[Box]], cached: Path) -> None:
    model = get_model(NAME, weights="DEFAULT").eval()
    for picture, boxes in zip(PICTURES, people, strict=True):
        with torch.inference_mode():
            found = model([torch.from_numpy(picture).permute(2, 0, 1) / 255])[0]
        is_person, is_likely = found["labels"] == PERSON, found["scores"] >= MIN_SCORE
        assert all(kind.any() for kind in (is_person & is_likely, is_person & ~is_likely, ~is_person & is_likely))
        ours = [(box.x, box.y, box.x + box.width, box.y + box.height, box.score) for box in boxes]
        theirs = torch.cat([found["boxes"], found["scores"][:, None]], 1)[is_person & is_likely]
        np.testing.assert_allclose(sorted(ours), sorted(theirs.tolist()), atol=1e-3)


def test_boxes_are_in_the_picture_with_the_surest_first(people: list[list[Box]]) -> None:
    for picture, boxes in zip(PICTURES, people, strict=True):
        corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
        height, width = picture.shape[:2]
        assert np.min(corners) >= 0.0
        assert (np.max(corners, axis=0)[2:] <= (width + 1e-3, height + 1e-3)).all()
        scores = [box.score for box in boxes]
        assert scores == sorted(scores, reverse=True)


def test_what_is_found_does_not_depend_on_the_other_pictures(detector: Detector, people: list[list[Box]]) -> None:
    assert detector.detect(PICTURES[::-1]) == people[::-1]
    assert detector.detect([]) == []


def test_it_is_described_by_what_its_boxes_depend_on(detector: Detector, cached: Path) -> None:
    assert detector.description == f"{NAME} {hashlib.sha256(cached.read_bytes()).hexdigest()} score {MIN_SCORE}"


def test_weights_are_found_in_the_cache_of_torch(cached: Path) -> None:
    assert find_weights(NAME) == cached


def test_weights_that_cannot_be_had_are_named_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(UserError) as caught:
        Detector(NAME)
    assert f"put {FILE} into {tmp_path}/hub/checkpoints, or name the file with --detector-weights" in str(caught.value)
    assert "refused" in str(caught.value)
    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a folder with a file called as torchvision's weights are."""
    data = b"weights"
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth").write_bytes(data)
    (tmp_path / "served" / "net-00000000.pth").write_bytes(data)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_stored_under_its_name(tmp_path: Path, server: str) -> None:
    name = next(file.name for file in (tmp_path / "served").iterdir() if "00000000" not in file.name)
    detection._download(f"{server}/{name}", tmp_path / "cache" / name)
    assert (tmp_path / "cache" / name).read_bytes() == b"weights"


def test_a_download_of_something_else_leaves_nothing(tmp_path: Path, server: str) -> None:
    with pytest.raises(OSError, match="not this file"):
        detection._download(f"{server}/net-00000000.pth", tmp_path / "cache" / "net-00000000.pth")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        detection._download(f"http://127.0.0.1:{silent.getsockname()[1]}/net-1.pth", tmp_path / "net-1.pth")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"backbone.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"--detector {NAME}: .*other\.pth: weights do not fit") as caught:
        Detector(NAME, tmp_path / "other.pth")
    assert "\n" not in str(caught.value)


def test_code_in_a_file_of_weights_is_not_executed(tmp_path: Path) -> None:
    torch.save({"weight": Path("anything")}, tmp_path / "code.pth")
    with pytest.raises(UserError, match=r"code\.pth: .*it holds Python objects"):
        Detector(NAME, tmp_path / "code.pth")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        Detector(NAME, tmp_path / "none.pth")


def test_an_unknown_detector_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError) as caught:
        Detector("yolo")
    assert all(name in str(caught.value) for name in ("'yolo'", *DETECTORS))


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_outside_0_to_1_is_refused(score: float) -> None:
    with pytest.raises(UserError, match=r"--min-score: .* is not in 0\.\.1"):
        Detector(NAME, None, score)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_has_people_among_its_classes(name: str) -> None:
    assert get_model_weights(name).DEFAULT.meta["categories"].index(detection.PERSON) == PERSON
