"""Token selection (TSE of RDE, Qin et al., CVPR 2024): a second feature, of the tokens that get most attention.

The released code keeps padding in the statistics of its batch norm, takes the token with id 0 for padding, and returns
nan from a caption without words on; here only words that are kept count, and such a caption has a feature of zeros.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 2  # dimensions of the feature per dimension of a token, as in the released code for ViT-B/16
NORM_EPSILON = 1e-8


def select_patches(attention: Tensor, ratio: float) -> Tensor:
    """(B, k) positions of the patches with the highest of the class token's `attention` (B, 1 + patches)."""
    patches = attention[:, 1:]
    return patches.topk(max(1, int(patches.shape[1] * ratio)), dim=1).indices + 1


def select_words(attention: Tensor, ends: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions of the words with the highest of the end token's `attention` (B, L), and which of them are words.

    Args:
        attention: Of the tokens at `ends` (B, 1).
        ends: Positions of the end tokens.
        count: How many to select at most, at least one.

    Returns:
        Positions and a bool mask, both (B, k); k is `count`, or L if that is less.
    """
    places = torch.arange(attention.shape[1], device=attention.device)
    words = (places > 0) & (places < ends)
    order = torch.where(words, attention, -1.0).sort(dim=1, descending=True).indices
    chosen = order[:, : max(1, count)]
    return chosen, words.gather(1, chosen)


class SelectionHead(nn.Module):
    """Selected tokens (B, k, D) to one feature (B, E): a perceptron with a linear bypass, then the maximum.

    Attributes:
        by_batch: Whether the batch norm normalises by the statistics of the batch in training. Otherwise it is an
            affine map of values that were never normalised, as in the version of the released code that gave the
            paper's numbers.
        total: Sums values over the processes that share a batch.
    """

    def __init__(self, width: int, by_batch: bool) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.linear = nn.Linear(width, outputs)
        self.hidden = nn.Linear(width, outputs // 2)
        self.norm = nn.BatchNorm1d(outputs // 2)
        self.output = nn.Linear(outputs // 2, outputs)
        self.by_batch = by_batch
        self.total: Callable[[Tensor], Tensor] = lambda values: values

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """The maximum over the tokens that are `kept` (B, k); zeros where there is none."""
        wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))  # in float16, the epsilon would be 0
        unit = F.normalize(wide, dim=-1, eps=NORM_EPSILON)
        outputs: Tensor = self.output(F.relu(self._normalised(self.hidden(unit), kept))) + self.linear(unit)
        pooled: Tensor = outputs.masked_fill(~kept[:, :, None], -torch.inf).max(dim=1).values
        feature: Tensor = torch.where(kept.any(dim=1, keepdim=True), pooled, 0.0)
        return feature

    def _normalised(self, x: Tensor, kept: Tensor) -> Tensor:
        norm, like = self.norm, x.dtype
        if not (self.training and self.by_batch):
            mean, var = norm.running_mean, norm.running_var
            assert mean is not None
            assert var is not None
        else:
            x = x.to(torch.promote_types(like, torch.float32))
            mean, var = self._statistics(x, kept)
        normalised: Tensor = (x - mean) * (var + norm.eps).rsqrt() * norm.weight + norm.bias
        return normalised.to(like)

    def _statistics(self, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (H,) of the rows of `x` (B, k, H) that are kept, of all processes; also in the averages."""
        norm, share = self.norm, kept[:, :, None].to(x.dtype)
        sums = torch.cat([share.sum().view(1), (x * share).sum(dim=(0, 1))])
        sums = self.total(sums)
        rows = sums[0].detach().clamp(min=1)
        mean = sums[1:] / rows
        var = self.total(((x - mean).square() * share).sum(dim=(0, 1))) / rows
        with torch.no_grad():
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert norm.momentum is not None
            assert norm.num_batches_tracked is not None
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var * rows / (rows - 1).clamp(min=1), norm.momentum)
            norm.num_batches_tracked += 1
        return mean, var


class TokenSelection(nn.Module):
    """The heads of both encoders."""

    def __init__(self, width: int, by_batch: bool) -> None:
        super().__init__()
        self.image = SelectionHead(width, by_batch)
        self.text = SelectionHead(width, by_batch)

    def share_statistics(self, total: Callable[[Tensor], Tensor]) -> None:
        """Let both heads take the statistics of a batch that processes share, whose sums `total` gives."""
        self.image.total = self.text.total = total


def joint(feature: Tensor, selected: Tensor) -> Tensor:
    """One embedding (B, D + E) of both features, whose cosine similarities are the means of theirs."""
    embedding: Tensor = torch.cat([F.normalize(part, dim=1) for part in (feature, selected)], dim=1) * 0.5**0.5
    return embedding
