"""Why a picture was found: the words of the caption and the regions of the picture that contribute to its score.

This is a visual aid, not a proof. It shows what moves the cosine similarity of this caption and this picture, with
methods chosen because hiding what they highlight lowers the score most. It does not show what the model understood.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from irra.data.augment import normalise
from irra.data.masking import END_ID, START_ID
from irra.data.tokens import Tokenizer
from irra.model import IRRA

STEPS = 4  # on the path from a blank picture to the picture


@dataclass(frozen=True)
class Explanation:
    """The importance of each word of a caption and of each pixel of a picture, both scaled to 0..1 with maximum 1.

    Attributes:
        words: The words that the model reads, in order, with their importance.
        unread: The end of the caption, if it is too long for the model.
        heat: (H, W) importance of the pixels.
    """

    words: list[tuple[str, float]]
    unread: str
    heat: NDArray[np.float32]


def explain(model: IRRA, pixels: NDArray[np.uint8], caption: str) -> Explanation:
    """Explain the cosine similarity of `caption` and `pixels` (H, W, 3), which must have the model's image size.

    Whatever lowers the score counts as 0. The model is not modified, so several threads may call this at once.
    """
    assert pixels.dtype == np.uint8, f"pixels must be uint8, not {pixels.dtype}"
    assert pixels.shape == (*model.spec.image_size, 3), f"pixels are {pixels.shape}, not of {model.spec.image_size}"
    kept, unread = tokenizer().cut(caption, model.spec.text_length)
    words, pieces = [word for word, _ in kept], [ids for _, ids in kept]
    picture = torch.from_numpy(pixels[None].copy()).to(next(model.parameters()).device)
    with torch.inference_mode(False):
        importance = scaled(word_importance(model, picture, pieces)).tolist()
        heat = scaled(picture_heat(model, picture, pieces))
    return Explanation(list(zip(words, importance, strict=True)), unread, heat.cpu().numpy())


def word_importance(model: IRRA, picture: Tensor, pieces: list[list[int]]) -> Tensor:
    """The contribution (N,) of each word to the score of `picture` (1, H, W, 3).

    It is the mean of what the score loses without the word and what it gains from the word alone. These are the last
    and the first place in the orders over which Shapley values average. The loss alone would miss redundant words.
    """
    with torch.no_grad():
        image = model.encode_image(normalise(picture))
        without = [pieces[:i] + pieces[i + 1 :] for i in range(len(pieces))]
        whole = F.cosine_similarity(encode(model, [pieces, *without]), image)
        alone = F.cosine_similarity(encode(model, [[], *([word] for word in pieces)]), image)
    return (whole[0] - whole[1:] + alone[1:] - alone[0]) / 2


def picture_heat(model: IRRA, picture: Tensor, pieces: list[list[int]]) -> Tensor:
    """The contribution (H, W) of each pixel to the score of `picture` (1, H, W, 3), smoothed over a quarter patch.

    Integrated gradients (Sundararajan et al., 2017): the mean gradient on the straight path from a blank picture to
    this one, times their difference. A blank of one colour hides whatever resembles it, so three paths are averaged:
    from the picture's mean colour, from black and from white. Before smoothing, contributions sum to the score's mean
    rise along these paths.
    """
    with torch.no_grad():
        text = encode(model, [pieces])
    image, black, white = (normalise(p) for p in (picture, torch.zeros_like(picture), torch.full_like(picture, 255)))
    fractions = (torch.arange(STEPS, device=image.device).view(-1, 1, 1, 1) + 0.5) / STEPS
    total = torch.zeros_like(image)
    for blank in (image.mean(dim=(2, 3), keepdim=True), black, white):
        points = torch.lerp(blank, image, fractions).requires_grad_()
        with torch.enable_grad():
            score = F.cosine_similarity(model.encode_image(points), text).sum()
        (gradient,) = torch.autograd.grad(score, points)
        total += gradient.mean(dim=0) * (image - blank) / 3
    sigma = model.clip.visual.patch_size[0] / 4  # enough to remove the grain
    smooth: Tensor = gaussian_blur(total.sum(dim=1), 2 * round(2 * sigma) + 1, sigma)
    return smooth[0]


def scaled(values: Tensor) -> Tensor:
    """`values` with negative ones set to 0, scaled to a maximum of 1; all 0 if none is positive."""
    positive = values.clamp(min=0.0)
    return positive / positive.max() if positive.any() else positive


def encode(model: IRRA, captions: list[list[list[int]]]) -> Tensor:
    """Embeddings (B, D) of captions, each given as the token ids of its words."""
    rows = [torch.tensor([START_ID, *(i for word in caption for i in word), END_ID]) for caption in captions]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return model.encode_text(ids.to(next(model.parameters()).device))


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer, created once, since reading its vocabulary takes longer than explaining a picture."""
    return Tokenizer()
