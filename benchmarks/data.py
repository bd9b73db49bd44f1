"""Made-up data, models and trainings: random pixels, captions as long as real ones, random weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from irra.backbones import read_config
from irra.checkpoint import StateFolder, model_fingerprint, save_model, save_weights
from irra.config import Params, TrainConfig, load_params
from irra.data.bpe import BytePairs
from irra.data.datasets import Record
from irra.data.loader import Batch, TrainingData
from irra.data.store import PreparedStore, StoreWriter
from irra.data.tokens import TokenStore, write_tokens
from irra.layout import WEIGHTS
from irra.model import IRRA, ModelSpec, build_model
from irra.search.build import index_split
from irra.search.encoder import Encoder
from irra.trainer import Trainer
from irra.training import model_spec

WORDS = 23.5  # mean length of a caption of CUHK-PEDES (Li et al., CVPR 2017)
VOCABULARY = 9000
PEOPLE = 11_003  # in the training split of CUHK-PEDES
IMAGES_EACH = 3  # of a person

Split = tuple[int, int]  # images, captions of each


def preset(name: str) -> Params:
    """The parameters of a preset, with random initial weights, and epochs enough for every benchmark."""
    params = load_params(Path("presets", f"{name}.yaml"))
    changes = {"pretrained": None, "num_epoch": 1000}
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def write_store(folder: Path, image_size: tuple[int, int], splits: dict[str, Split]) -> PreparedStore:
    """Write random images, with captions of random words, to the new `folder`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    captions = random_captions(rng, sum(images * each for images, each in splits.values()))
    writer = StoreWriter(folder, "random", image_size)
    number = 0
    for split, (images, each) in splits.items():
        for _ in range(images):
            texts = tuple(next(captions) for _ in range(each))
            pixels = rng.integers(0, 256, (*image_size, 3), dtype=np.uint8)
            writer.add(Record(number // IMAGES_EACH, f"{number:06d}.png", texts, split), pixels)
            number += 1
        number = -(-number // IMAGES_EACH) * IMAGES_EACH  # no person in two splits
    writer.finish()
    return PreparedStore.open(folder)


def random_captions(rng: np.random.Generator, count: int) -> Iterator[str]:
    """Captions of English words, those of CLIP's pieces that are whole words, as long as in CUHK-PEDES."""
    pieces = [piece.removesuffix("</w>") for piece in BytePairs(unused=1, longest=77).pieces if piece.endswith("</w>")]
    words = np.array([piece for piece in pieces if piece.isascii() and piece.isalpha() and len(piece) > 2])
    for length in rng.poisson(WORDS, count):
        yield " ".join(rng.choice(words[:VOCABULARY], max(3, length)))


def write_data(folder: Path, params: Params, splits: dict[str, Split]) -> tuple[PreparedStore, TokenStore]:
    """Write a store and its tokens to the new `folder`, in the sizes that `params` name."""
    height, width = params.prepare.image_size
    store = write_store(folder / "prepared", (height, width), splits)
    write_tokens(store, params.tokenize.model_copy(update={"mask_draws": 2}), folder / "tokens")
    return store, TokenStore.open(folder / "tokens")


def make_trainer(
    data: tuple[PreparedStore, TokenStore], config: TrainConfig, device: torch.device, model: IRRA | None = None
) -> Trainer:
    """A trainer of `model`, or of a new one with as many people as CUHK-PEDES has."""
    store, tokens = data
    torch.manual_seed(config.seed)
    model = model or build_model(replace(model_spec(store, tokens, config), num_classes=PEOPLE))
    states = StateFolder(store.root.parent / "states", {})
    return Trainer(model, TrainingData(store, tokens, config), config, device, states)


def compile_setting(kind: str) -> dict[str, str]:
    """The setting of the compiler; none where there is no compiler to set."""
    return {"compile": kind} if "compile" in TrainConfig.model_fields else {}


def endless(trainer: Trainer) -> Iterator[Batch]:
    """The trainer's batches, epoch after epoch."""
    while True:
        yield from trainer.rest_of_epoch()
        trainer.state.epoch, trainer.state.step = trainer.state.epoch + 1, 0


def random_model(backbone: str, image_size: tuple[int, int] = (384, 128)) -> IRRA:
    """An untrained model without heads."""
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture=read_config(backbone),
        image_size=image_size,
        stride_size=16,
        text_length=77,
        temperature=0.02,
        num_classes=None,
        cmt_depth=None,
    )
    return build_model(spec).eval()


def write_index(folder: Path, pictures: int) -> tuple[Path, Path]:
    """Write an untrained model of the default's size, and its index of random pictures; returns both folders."""
    params = preset("synthetic")
    height, width = params.prepare.image_size
    model = random_model(params.train.backbone, (height, width))
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / WEIGHTS)
    save_model(folder / "model", folder / WEIGHTS, model.spec, {"selected": {"best_epoch": 1}})
    store = write_store(folder / "prepared", (height, width), {"train": (1, 1), "test": (pictures, 2)})
    index_split(store, "test", Encoder(model), model_fingerprint(folder / "model"), folder / "index", "float16", 64)
    return folder / "model", folder / "index"
