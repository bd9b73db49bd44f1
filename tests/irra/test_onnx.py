"""The exported encoders, run by ONNX Runtime, against the model."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from irra.data.augment import CLIP_MEAN, CLIP_STD
from irra.data.masking import END_ID, START_ID
from irra.layout import EXPORT_FACTS, IMAGE_ENCODER, TEXT_ENCODER
from irra.model import IRRA
from irra.search import onnx as export
from irra.search.onnx import check_export, export_onnx
from tests.models import architecture, small_model

MODELS = {
    "plain": {},
    "overlapping patches": {"stride_size": 11},
    "selected tokens": {"token_selection": 0.3},
    "no heads, erf GELU": {
        "num_classes": None,
        "cmt_depth": None,
        "architecture": architecture() | {"quick_gelu": False},
    },
}


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[IRRA, Path]:
    model, folder = small_model(**MODELS[request.param]).eval(), tmp_path_factory.mktemp("export") / "onnx"
    export_onnx(model, folder, "abc")
    return model, folder


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["embeddings"], {session.get_inputs()[0].name: inputs})[0]


@pytest.mark.parametrize("batch", [1, 3])
def test_pixels_give_the_model_s_embeddings(exported: tuple[IRRA, Path], batch: int) -> None:
    model, folder = exported
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 64, 32, 3), dtype=np.uint8)
    images = (torch.from_numpy(pixels) / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    expected = F.normalize(model.encode_image(images.permute(0, 3, 1, 2)), dim=1).detach()
    np.testing.assert_allclose(run(folder / IMAGE_ENCODER, pixels), expected, atol=1e-5)


@pytest.mark.parametrize("length", [4, 16])
def test_captions_of_any_length_are_read_at_their_end(exported: tuple[IRRA, Path], length: int) -> None:
    model, folder = exported
    ids = np.zeros((3, length), np.int64)
    ids[0, :2] = START_ID, END_ID
    ids[1, :4] = START_ID, 320, 49404, END_ID
    ids[2] = [START_ID, *range(1000, 998 + length), END_ID]
    expected = F.normalize(model.encode_text(torch.from_numpy(ids)), dim=1).detach()
    np.testing.assert_allclose(run(folder / TEXT_ENCODER, ids), expected, atol=1e-5)


def test_facts_say_what_the_encoders_take(exported: tuple[IRRA, Path]) -> None:
    metadata = json.loads((exported[1] / EXPORT_FACTS).read_text())
    assert (metadata["model_fingerprint"], metadata["embedding_dimension"]) == ("abc", exported[0].embedding_width)
    assert (metadata["image_encoder"]["image_size"], metadata["text_encoder"]["text_length"]) == ([64, 32], 16)


def test_an_export_of_another_model_fails_the_check(exported: tuple[IRRA, Path]) -> None:
    with pytest.raises(RuntimeError, match=r"image_encoder\.onnx: embeddings differ"):
        check_export(small_model(seed=1, token_selection=exported[0].spec.token_selection), exported[1])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training: bool, tmp_path: Path) -> None:
    model = small_model().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "onnx")
    assert {module.training for module in model.modules()} == {training}
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_failed_check_leaves_the_earlier_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_onnx(small_model(), tmp_path / "onnx", "first")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differ"):
        export_onnx(small_model(seed=1), tmp_path / "onnx", "second")
    assert json.loads((tmp_path / "onnx" / EXPORT_FACTS).read_text())["model_fingerprint"] == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_the_parts_of_an_embedding_are_said_where_there_are_several() -> None:
    model = small_model()
    assert "embedding" not in export.describe(model, None)
    object.__setattr__(model.spec, "token_selection", 0.5)
    assert "16 global (CLS / END), 32 of the selected 50% of tokens" in export.describe(model, None)["embedding"]
