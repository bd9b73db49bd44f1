"""Measuring a model: encode the images and captions of a split once, rank both ways."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irra.checkpoint import load_model
from irra.config import EvaluateConfig
from irra.data.loader import caption_batches, check_same_data, image_batches
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.metrics import bootstrap_intervals
from irra.model import IRRA
from irra.ranking import Ranking, rank_gallery
from irra.utils.device import autocast, choose_device
from irra.utils.errors import UserError
from irra.utils.progress import progress

SPLITS = ("val", "test")


@dataclass(frozen=True)
class SplitFeatures:
    """Global features (N, D) of a split's images and captions on the device, with their ids and identities."""

    image_ids: NDArray[np.int64]
    caption_ids: NDArray[np.int64]
    image_pids: NDArray[np.int64]
    caption_pids: NDArray[np.int64]
    images: Tensor
    captions: Tensor


@torch.inference_mode()
def encode_split(
    model: IRRA, store: PreparedStore, tokens: TokenStore, split: str, batch_size: int, precision: str
) -> SplitFeatures:
    """Encode every image and caption of `split` with `model`, on the model's device.

    UserError when a feature is not finite: nothing could be ranked by it.
    """
    device = next(model.parameters()).device
    image_ids, caption_ids = store.image_ids(split), store.caption_ids(split)
    images, captions = [], []
    with autocast(device, precision):
        batches = image_batches(store, image_ids, batch_size, device)
        for pixels in progress(batches, f"encode {split} images", -(-len(image_ids) // batch_size), "batches"):
            images.append(model.encode_image(pixels))
        rows = caption_batches(tokens, caption_ids, batch_size, device)
        for ids in progress(rows, f"encode {split} captions", -(-len(caption_ids) // batch_size), "batches"):
            captions.append(model.encode_text(ids))
    pids = store.image_pids
    return SplitFeatures(
        image_ids,
        caption_ids,
        pids[image_ids],
        pids[store.caption_image_ids[caption_ids]],
        _finite(torch.cat(images), image_ids, f"{split} images", precision),
        _finite(torch.cat(captions), caption_ids, f"{split} captions", precision),
    )


def _finite(features: Tensor, ids: NDArray[np.int64], what: str, precision: str) -> Tensor:
    bad = (~torch.isfinite(features)).any(dim=1).nonzero()[:, 0].tolist()
    if bad:
        cure = (
            "use precision: fp32 or bf16" if precision == "fp16" else "the weights of the model are damaged or diverged"
        )
        raise UserError(
            f"features of {len(bad)} of the {len(ids)} {what} are not finite, first of id {ids[bad[0]]}; {cure}"
        )
    return features


def text_to_image(features: SplitFeatures, top_k: int) -> Ranking:
    """Every caption of the split queries every image of the split."""
    captions, images = torch.from_numpy(features.caption_pids), torch.from_numpy(features.image_pids)
    return rank_gallery(features.captions, features.images, captions, images, top_k)


def image_to_text(features: SplitFeatures, top_k: int) -> Ranking:
    """Every image of the split queries every caption of the split."""
    captions, images = torch.from_numpy(features.caption_pids), torch.from_numpy(features.image_pids)
    return rank_gallery(features.images, features.captions, images, captions, top_k)


@dataclass(frozen=True)
class Direction:
    """One way of retrieval on one split: its ranking and the identities of its queries."""

    ranking: Ranking
    query_pids: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """A model measured on val and test, where the data has them, text to image (t2i) and image to text (i2t).

    directions: by split and way. features: of the last split.
    """

    directions: dict[str, dict[str, Direction]]
    features: SplitFeatures

    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """R1, R5, R10, mAP and mINP in percent by split and way."""
        return self._each(lambda one: one.ranking.scores.metrics())

    def intervals(self, samples: int, seed: int) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
        """Their 95% intervals, from `samples` bootstrap samples of the identities."""
        return self._each(lambda one: bootstrap_intervals(one.ranking.scores, one.query_pids, samples, seed))

    def cmc(self, ranks: int) -> dict[str, dict[str, list[float]]]:
        """Recall in percent at ranks 1 to `ranks`, by split and way."""
        return self._each(lambda one: one.ranking.scores.cmc(ranks))

    def _each(self, value: Callable[[Direction], Any]) -> dict[str, dict[str, Any]]:
        return {split: {way: value(one) for way, one in ways.items()} for split, ways in self.directions.items()}


def evaluate(model: Path, prepared: Path, tokens: Path, config: EvaluateConfig) -> Evaluation:
    """Measure the model in a folder on a prepared dataset and its tokens.

    Raises:
        UserError: One of them is missing or damaged, or they do not belong together.
    """
    store, token_store = PreparedStore.open(prepared), TokenStore.open(tokens)
    check_same_data(store, token_store)
    weights = load_model(model)
    check_same_sizes(model, weights.spec.image_size, weights.spec.text_length, store, token_store)
    weights = weights.to(choose_device(config.device)).eval()
    directions: dict[str, dict[str, Direction]] = {}
    for split in [name for name in SPLITS if name in store.splits]:
        features = encode_split(weights, store, token_store, split, config.test_batch_size, config.precision)
        directions[split] = rank_both_ways(features, config.top_k)
    return Evaluation(directions, features)


def check_same_sizes(
    folder: Path, image_size: tuple[int, int], text_length: int, store: PreparedStore, tokens: TokenStore
) -> None:
    """UserError when the data does not have the sizes that the model was made for."""
    if image_size != store.image_size or text_length != tokens.text_length:
        raise UserError(
            f"{folder} takes images of {image_size} and texts of {text_length} tokens, the data has {store.image_size} "
            f"and {tokens.text_length}; train again, or prepare and tokenize with the model's sizes"
        )


def rank_both_ways(features: SplitFeatures, top_k: int) -> dict[str, Direction]:
    """Text-to-image and image-to-text retrieval of a split."""
    return {
        "t2i": Direction(text_to_image(features, top_k), features.caption_pids),
        "i2t": Direction(image_to_text(features, top_k), features.image_pids),
    }
