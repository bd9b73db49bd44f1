"""A model as two functions: from pictures to embeddings, and from sentences to embeddings."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from irra.data.augment import normalise
from irra.data.tokens import Tokenizer, by_length, trimmed
from irra.model import IRRA
from irra.utils.device import autocast, matrix_products
from irra.utils.progress import progress

BATCH = 64  # captions encoded at once, unless told otherwise

Floats = NDArray[np.float32]


class Encoder:
    """Encodes on the model's device; safe to use from several threads at once."""

    def __init__(self, model: IRRA, precision: str = "fp32") -> None:
        self.model = model.eval()
        self.precision = precision
        self.device = next(model.parameters()).device
        self._tokenizer = Tokenizer()

    @torch.inference_mode()
    def images(self, pixels: NDArray[np.uint8]) -> Floats:
        """Un-normalised embeddings (B, D) of pixels (B, H, W, 3), which must have the model's image size."""
        with matrix_products(self.precision), autocast(self.device, self.precision):
            features = self.model.encode_image(normalise(torch.from_numpy(pixels).to(self.device)))
        return features.cpu().numpy()

    @torch.inference_mode()
    def texts(self, captions: Sequence[str], batch_size: int = BATCH, title: str | None = None) -> Floats:
        """Un-normalised embeddings (N, D) of captions, cut and tokenized as in training.

        Captions of similar length are encoded together. With a title, progress is reported.
        """
        ids = self.tokenize(captions)
        batches = by_length(ids, batch_size)
        embeddings = np.empty((len(ids), self.model.embedding_width), dtype=np.float32)
        for rows in progress(batches, title, len(batches), "batches") if title else batches:
            with matrix_products(self.precision), autocast(self.device, self.precision):
                features = self.model.encode_text(torch.from_numpy(trimmed(ids[rows])).to(self.device))
            embeddings[rows] = features.cpu().numpy()
        return embeddings

    def unread(self, caption: str) -> str:
        """The words of a caption beyond the model's text length, which are cut off; "" if there are none."""
        return self._tokenizer.cut(caption, self.model.spec.text_length)[1]

    def tokenize(self, captions: Sequence[str]) -> NDArray[np.uint16]:
        """Token ids (N, L) as in training."""
        return self._tokenizer.encode(captions, self.model.spec.text_length)
