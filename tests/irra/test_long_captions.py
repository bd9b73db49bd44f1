"""A model of 248 tokens, from training on long captions to a test set alone, a search and an export."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from irra.checkpoint import StateFolder, load_model, model_fingerprint, save_model, save_weights
from irra.config import EvaluateConfig, PrepareConfig, TokenizeConfig, TrainConfig
from irra.data.datasets import Record
from irra.data.loader import TrainingData
from irra.data.preparation import prepare_dataset
from irra.data.store import PreparedStore, StoreWriter
from irra.data.tokens import TokenStore, tokenize_dataset
from irra.evaluation import evaluate
from irra.search.build import index_split
from irra.search.encoder import Encoder
from irra.search.engine import SearchEngine
from irra.search.onnx import export_onnx
from irra.trainer import Trainer
from irra.training import train
from irra.utils.errors import UserError
from tests.models import small_model
from tests.trainers import Quiet

CPU = torch.device("cpu")
WORDS = ["red coat", "blue jeans", "white shoes", "a black bag", "long hair", "a green hat"]
CONFIG = TokenizeConfig(text_length=248, mask_draws=1)


def long_caption(number: int) -> str:
    """More than 77 tokens, of which only those far behind differ."""
    return "A person who wears " + "a plain shirt and " * 25 + WORDS[number % len(WORDS)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, train_config: TrainConfig) -> Path:
    """Data of long captions, their tokens, and a model after an epoch on them."""
    root = tmp_path_factory.mktemp("long")
    (root / "data").mkdir()
    writer = StoreWriter(root / "data", "long", (64, 32))
    for number in range(8):
        split = "train" if number < 4 else "val"
        pixels = np.random.default_rng(number).integers(0, 256, (64, 32, 3), dtype=np.uint8)
        writer.add(Record(number, f"{number}.png", (long_caption(number),), split), pixels)
    writer.finish()
    tokenize_dataset(root / "data", CONFIG, root / "tokens")
    store, tokens = PreparedStore.open(root / "data"), TokenStore.open(root / "tokens")
    config = train_config.model_copy(
        update={"batch_size": 4, "num_epoch": 1, "warmup_epochs": 0, "loss_names": "itc+mlm+id"}
    )
    model = small_model(text_length=248, num_classes=4)
    Trainer(model, TrainingData(store, tokens, config), config, CPU, StateFolder(root / "states", {})).fit(Quiet())
    save_weights(model, root / "weights.safetensors")
    save_model(root / "model", root / "weights.safetensors", model.spec, {})
    return root


def test_positions_behind_77_are_trained_saved_and_loaded(folders: Path) -> None:
    before, after = small_model(text_length=248, num_classes=4), load_model(folders / "model")
    assert after.spec.text_length == 248
    moved = (after.clip.positional_embedding != before.clip.positional_embedding).any(dim=1)
    used = int(TokenStore.open(folders / "tokens").caption_ids.astype(bool).sum(axis=1).max())
    assert used > 100
    assert moved[77:used].all()


def test_search_reads_what_stands_behind_77_tokens(folders: Path) -> None:
    store, encoder = PreparedStore.open(folders / "data"), Encoder(load_model(folders / "model").eval())
    index_split(store, "val", encoder, model_fingerprint(folders / "model"), folders / "index", "float32", 4)
    engine = SearchEngine.open(folders / "model", folders / "index", device="cpu")
    assert engine.encoder.unread(long_caption(0)) == ""
    first, other = engine.search([long_caption(0), long_caption(1)], 4)
    assert [hit.score for hit in first] != [hit.score for hit in other]


def test_an_export_takes_as_many_tokens(folders: Path) -> None:
    facts = export_onnx(load_model(folders / "model").eval(), folders / "onnx", "abc")  # checked against the model
    assert facts["text_encoder"]["text_length"] == 248


@pytest.fixture(scope="module")
def ufine3c(folders: Path) -> Path:
    """A dataset of a test split alone, in the form of UFine3C, prepared and tokenized."""
    entries = []
    (folders / "raw" / "UFine3C" / "images").mkdir(parents=True)
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folders / "raw" / "UFine3C" / "images" / f"{number}.jpg")
        captions = [long_caption(number), "A person."]
        path = f"images/{number}.jpg"
        entries.append({"id": number, "source": "x", "split": "test", "file_path": path, "captions": captions})
    (folders / "raw" / "UFine3C" / "UFine3C.json").write_text(json.dumps(entries))
    config = PrepareConfig(dataset_name="UFine3C", root_dir=str(folders / "raw"), image_size=[64, 32])
    with pytest.warns(UserWarning, match="test 4 / 4 / 8 instead of 2250 / 7446 / 37939"):
        prepare_dataset(config, folders / "ufine3c" / "data")
    tokenize_dataset(folders / "ufine3c" / "data", CONFIG, folders / "ufine3c" / "tokens")
    return folders / "ufine3c"


def test_a_model_trained_elsewhere_is_measured_on_a_test_split_alone(folders: Path, ufine3c: Path) -> None:
    config = EvaluateConfig(device="cpu")
    measured = evaluate(folders / "model", ufine3c / "data", ufine3c / "tokens", config)
    assert list(measured.directions) == ["test"]
    assert len(measured.directions["test"]["t2i"].query_pids) == 8


def test_training_on_a_test_split_alone_is_refused_with_the_cure(
    ufine3c: Path, train_config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"\(UFine3C\): no train split; it has pictures in test \(4\).*evaluate\.also"):
        train(ufine3c / "data", ufine3c / "tokens", train_config, tmp_path / "model")
