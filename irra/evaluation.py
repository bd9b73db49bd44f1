"""Evaluating a model: encode the images and captions of a split once, then rank in both directions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irra.checkpoint import load_model
from irra.config import EvaluateConfig
from irra.data.loader import caption_batches, check_same_data, image_batches, in_order
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore, by_length
from irra.distributed import ALONE, World
from irra.metrics import bootstrap_intervals
from irra.model import IRRA
from irra.ranking import GalleryCaptions, Ranking, mean_queries, query_parts, rank_gallery
from irra.utils.device import autocast, choose_device, matrix_products
from irra.utils.errors import SharedError, UserError
from irra.utils.progress import progress

SPLITS = ("val", "test")


@dataclass(frozen=True)
class SplitFeatures:
    """Embeddings (N, D) of a split's images and captions, on the device, with their ids and pids.

    Attributes:
        own_rows: The row in `images` of each caption's image.
    """

    image_ids: NDArray[np.int64]
    caption_ids: NDArray[np.int64]
    image_pids: NDArray[np.int64]
    caption_pids: NDArray[np.int64]
    own_rows: NDArray[np.int64]
    images: Tensor
    captions: Tensor


@torch.inference_mode()
def encode_split(
    model: IRRA,
    store: PreparedStore,
    tokens: TokenStore,
    split: str,
    batch_size: int,
    precision: str,
    world: World = ALONE,
) -> SplitFeatures:
    """Encode every image and caption of `split` with `model`, on the model's device.

    The processes of `world` share the batches, and all get all features.

    Raises:
        UserError: A feature is not finite, so nothing can be ranked by it.
    """
    device = next(model.parameters()).device
    image_ids, caption_ids = store.image_ids(split), store.caption_ids(split)
    image_rows = in_order(len(image_ids), batch_size)
    caption_rows = by_length(tokens.caption_ids[caption_ids], batch_size)
    own = slice(world.rank, None, world.size)
    images, captions = (_room(model, len(ids)) for ids in (image_ids, caption_ids))
    with matrix_products(precision), autocast(device, precision):
        pixels = image_batches(store, [image_ids[rows] for rows in image_rows[own]], device)
        _encode(model.encode_image, pixels, image_rows[own], images, f"encode {split} images")
        ids = caption_batches(tokens, [caption_ids[rows] for rows in caption_rows[own]], device)
        _encode(model.encode_text, ids, caption_rows[own], captions, f"encode {split} captions")
    for features in (images, captions):
        world.sum(features)
    pids, own_ids = store.image_pids, store.caption_image_ids[caption_ids]
    return SplitFeatures(
        image_ids,
        caption_ids,
        pids[image_ids],
        pids[own_ids],
        np.searchsorted(image_ids, own_ids),
        _finite(images, image_ids, f"{split} images", precision),
        _finite(captions, caption_ids, f"{split} captions", precision),
    )


def _room(model: IRRA, count: int) -> Tensor:
    """Zeros for `count` features, on the device of the weights: float32, or their type if that has more bits."""
    weight = model.clip.text_projection
    return weight.new_zeros(count, model.embedding_width, dtype=torch.promote_types(weight.dtype, torch.float32))


def _encode(
    encode: Callable[[Tensor], Tensor],
    batches: Iterator[Tensor],
    rows: Sequence[NDArray[np.int64]],
    features: Tensor,
    description: str,
) -> None:
    """Write the features of each batch to its `rows` of `features` (N, D), while reporting progress."""
    for batch, numbers in zip(progress(batches, description, len(rows), "batches"), rows, strict=True):
        features[torch.from_numpy(numbers).to(features.device)] = encode(batch)


def _finite(features: Tensor, ids: NDArray[np.int64], what: str, precision: str) -> Tensor:
    bad = (~torch.isfinite(features)).any(dim=1).nonzero()[:, 0].tolist()
    if bad:
        remedy = (
            "use precision: fp32 or bf16"
            if precision.startswith("fp16")
            else "the model's weights are damaged, or its training diverged"
        )
        raise SharedError(
            f"features of {len(bad)} of the {len(ids)} {what} are not finite, starting with id {ids[bad[0]]}; {remedy}"
        )
    return features


def text_to_image(features: SplitFeatures, top_k: int) -> Ranking:
    """Query all images of the split with each of its captions."""
    captions, images = torch.from_numpy(features.caption_pids), torch.from_numpy(features.image_pids)
    return rank_gallery(features.captions, features.images, captions, images, top_k)


def text_to_image_with_captions(features: SplitFeatures, config: EvaluateConfig) -> Ranking:
    """Like `text_to_image`, but a query is several captions of its image, or the gallery has captions, or both.

    There are as many queries: each caption, with others of its image. `GalleryCaptions` says how the gallery is scored.
    """
    captions, images = torch.from_numpy(features.caption_pids), torch.from_numpy(features.image_pids)
    parts = torch.from_numpy(query_parts(features.own_rows, config.sentences))
    queries = mean_queries(features.captions, parts) if config.sentences > 1 else features.captions
    own, weight = torch.from_numpy(features.own_rows), config.gallery_captions
    described = GalleryCaptions.of(weight, features.captions, own, len(images), parts) if weight else None
    return rank_gallery(queries, features.images, captions, images, config.top_k, described)


def image_to_text(features: SplitFeatures, top_k: int) -> Ranking:
    """Query all captions of the split with each of its images."""
    captions, images = torch.from_numpy(features.caption_pids), torch.from_numpy(features.image_pids)
    return rank_gallery(features.images, features.captions, images, captions, top_k)


@dataclass(frozen=True)
class Direction:
    """One retrieval direction on one split: its ranking and the pids of its queries."""

    ranking: Ranking
    query_pids: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """Results of a model on val and test, where the data has them: text to image (t2i) and image to text (i2t).

    Attributes:
        directions: By split, then `t2i` or `i2t`.
        features: Those of the last split.
        with_captions: Text to image again, with captions at test time, if the section `evaluate` asks for it.
    """

    directions: dict[str, dict[str, Direction]]
    features: SplitFeatures
    with_captions: "Evaluation | None" = None

    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """R1, R5, R10, mAP and mINP in percent, by split and direction."""
        return self._each(lambda direction: direction.ranking.scores.metrics())

    def intervals(self, samples: int, seed: int) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
        """95% intervals of the metrics, from `samples` bootstrap samples of the identities."""
        return self._each(
            lambda direction: bootstrap_intervals(direction.ranking.scores, direction.query_pids, samples, seed)
        )

    def cmc(self, ranks: int) -> dict[str, dict[str, list[float]]]:
        """CMC, in percent, at ranks 1 to `ranks`, by split and direction."""
        return self._each(lambda direction: direction.ranking.scores.cmc(ranks))

    def _each(self, value: Callable[[Direction], Any]) -> dict[str, dict[str, Any]]:
        return {
            split: {name: value(direction) for name, direction in directions.items()}
            for split, directions in self.directions.items()
        }


def evaluate(
    model: Path,
    prepared: Path,
    tokens: Path,
    config: EvaluateConfig,
    world: World = ALONE,
    *,
    last_split_only: bool = False,
) -> Evaluation:
    """Evaluate the model in a folder on a prepared dataset and its tokens.

    The processes of `world` encode together; only the first one gets rankings. With `last_split_only`, they are those
    of the test split, or of val if the data have no test split.

    Raises:
        UserError: One of the folders is missing or damaged, they do not belong together, or there is nothing to
            evaluate on.
    """
    with world.first_before_others():
        store, token_store = PreparedStore.open(prepared), TokenStore.open(tokens)
        splits = [name for name in SPLITS if name in store.splits]
        if not splits:
            raise UserError(f"{prepared}: {store.dataset_name} has neither a val nor a test split to evaluate on")
        splits = splits[-1:] if last_split_only else splits
        check_same_data(store, token_store)
        weights = load_model(model)
        check_same_sizes(model, weights.spec.image_size, weights.spec.text_length, store, token_store)
        weights = weights.to(choose_device(config.device)).eval()
    directions: dict[str, dict[str, Direction]] = {}
    with_captions: dict[str, dict[str, Direction]] = {}
    for split in splits:
        features = encode_split(weights, store, token_store, split, config.test_batch_size, config.precision, world)
        if world.first:
            directions[split] = rank_both_ways(features, config.top_k)
            if config.with_captions:
                ranking = text_to_image_with_captions(features, config)
                with_captions[split] = {"t2i": Direction(ranking, features.caption_pids)}
    return Evaluation(directions, features, Evaluation(with_captions, features) if with_captions else None)


def check_same_sizes(
    folder: Path, image_size: tuple[int, int], text_length: int, store: PreparedStore, tokens: TokenStore
) -> None:
    """Check that the data has the image size and text length of the model.

    Raises:
        UserError: It does not.
    """
    if image_size != store.image_size or text_length != tokens.text_length:
        raise UserError(
            f"{folder} takes images of {image_size} and texts of {text_length} tokens, but the data has "
            f"{store.image_size} and {tokens.text_length}; train again, or prepare and tokenize with the model's sizes"
        )


def rank_both_ways(features: SplitFeatures, top_k: int) -> dict[str, Direction]:
    """Text-to-image and image-to-text retrieval on a split."""
    return {
        "t2i": Direction(text_to_image(features, top_k), features.caption_pids),
        "i2t": Direction(image_to_text(features, top_k), features.image_pids),
    }
