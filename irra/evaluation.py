"""Measuring a model on a split: encode its images and captions once, rank both ways."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irra.data.loader import caption_batches, image_batches
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.model import IRRA
from irra.ranking import Ranking, rank_gallery
from irra.utils.device import autocast
from irra.utils.errors import UserError
from irra.utils.progress import progress


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
