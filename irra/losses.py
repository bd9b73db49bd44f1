"""The losses of IRRA and its baselines as pure functions of features, logits, labels and the inverse temperature.

The objective passes arguments by parameter name: `pids` and `image_ids` come from the batch, parameters of the section
`train` from irra/config/train.py, all others from the model's outputs (`Outputs` in irra/model/irra.py).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8
SAME_PERSON_WEIGHT = 0.3


def sdm(
    image_features: Tensor,
    text_features: Tensor,
    pids: Tensor,
    logit_scale: float,
    image_ids: Tensor | None = None,
    soft_labels: bool = True,
    epsilon: float = EPSILON,
) -> Tensor:
    """Similarity distribution matching: KL(p || q), image-to-text plus text-to-image (IRRA, section 3.3).

    p is the softmax of scaled cosine similarities, q the row-normalised matching matrix.

    Args:
        image_features, text_features: (B, D), of any norm.
        pids: (B,) identities; samples with equal ones match.
        logit_scale: 1 / temperature.
        image_ids: (B,), needed for soft labels.
        soft_labels: Whether labels are soft if `image_ids` is given: 1 for the same image, 0.3 for another image of the
            same person.
        epsilon: Added to q. The larger, the less a pair costs that p matches and q does not. At 0.01, half of this loss
            is R-ITC (TBPS-CLIP, AAAI 2024).
    """
    logits = logit_scale * F.normalize(text_features, dim=1) @ F.normalize(image_features, dim=1).T
    labels = matching_labels(pids, image_ids if soft_labels else None)
    target = labels / labels.sum(dim=1, keepdim=True)
    return _kl_to(target, logits, epsilon) + _kl_to(target, logits.T, epsilon)


def itc(image_features: Tensor, text_features: Tensor, logit_scale: float) -> Tensor:
    """Image-text contrast (InfoNCE, as in CLIP): each caption's only positive is its own image.

    Features are (B, D), of any norm; the result is the mean over both directions.
    """
    logits = logit_scale * F.normalize(text_features, dim=1) @ F.normalize(image_features, dim=1).T
    positives = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)) / 2


def nitc(image_features: Tensor, text_features: Tensor, pids: Tensor, logit_scale: float, alpha: float) -> Tensor:
    """Normalised image-text contrast (N-ITC of TBPS-CLIP, AAAI 2024): cross-entropy to all matches, softened.

    The target of a row is its matches, divided by their number, mixed with `alpha` of the softmax of the row itself,
    through which no gradient flows. Features are (B, D), of any norm; the result is the mean over both directions.
    """
    logits = logit_scale * F.normalize(image_features, dim=1) @ F.normalize(text_features, dim=1).T
    labels = matching_labels(pids)
    matches = labels / labels.sum(dim=1, keepdim=True)

    def cross_entropy(logits: Tensor) -> Tensor:
        target = (1 - alpha) * matches + alpha * logits.detach().softmax(dim=1)
        return -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def citc(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Cyclic image-text consistency (C-ITC of TBPS-CLIP, AAAI 2024; Goel et al., CyCLIP): both spaces look alike.

    Over all pairs a, b of the batch, the mean squared difference of image-image and text-text similarities, and that of
    the two image-text similarities, each with the weight 0.25. Features are (B, D), of any norm.
    """
    image, text = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)
    across = image @ text.T
    within = image @ image.T - text @ text.T
    return (within.square().mean() + (across - across.T).square().mean()) / 4


def tal(image_features: Tensor, text_features: Tensor, pids: Tensor, tau: float, margin: float) -> Tensor:
    """Triplet alignment (TAL of RDE, CVPR 2024, equation 6): (B,) losses, each sample as image and as text anchor.

    The positive is the mean of the matches, weighted by their softmax at the temperature `tau`, whose weights are
    constant; the negative is `tau` times the log of the summed exponentials of all others, which bounds the hardest.
    The released code exponentiates first, which overflows below tau = 0.0113 and gives nan without a negative; here
    such sums are taken in the log, and an anchor without a negative costs 0. Features are (B, D), of any norm.
    """
    similarity = F.normalize(text_features, dim=1) @ F.normalize(image_features, dim=1).T
    matches = pids[:, None] == pids[None, :]
    return _triplet(similarity, matches, tau, margin) + _triplet(similarity.T, matches, tau, margin)


def trl(image_features: Tensor, text_features: Tensor, pids: Tensor, tau: float, margin: float) -> Tensor:
    """Triplet ranking (TRL of RDE's released code): as `tal`, with the hardest negative alone, which counts 0 or more.

    Features are (B, D), of any norm; the result is (B,).
    """
    similarity = F.normalize(text_features, dim=1) @ F.normalize(image_features, dim=1).T
    matches = pids[:, None] == pids[None, :]

    def term(similarity: Tensor) -> Tensor:
        hardest = similarity.masked_fill(matches, 0).max(dim=1).values
        return (margin - _soft_positive(similarity, matches, tau) + hardest).clamp(min=0)

    return term(similarity) + term(similarity.T)


def _triplet(similarity: Tensor, matches: Tensor, tau: float, margin: float) -> Tensor:
    """TAL of each row's anchor."""
    scaled = similarity / tau
    alone = matches.all(dim=1)  # no negative: masking every column would make the gradient nan
    negative = tau * scaled.masked_fill(matches & ~alone[:, None], -torch.inf).logsumexp(dim=1)
    positive = _soft_positive(similarity, matches, tau)
    return (margin - positive + negative).clamp(min=0).masked_fill(alone, 0)


def _soft_positive(similarity: Tensor, matches: Tensor, tau: float) -> Tensor:
    """(B,) mean similarity of each row's matches, by weights through which no gradient flows."""
    weights = (similarity / tau).masked_fill(~matches, -torch.inf).softmax(dim=1).detach()
    return (weights * similarity).sum(dim=1)


def cmpm(image_features: Tensor, text_features: Tensor, pids: Tensor) -> Tensor:
    """Cross-modal projection matching (Zhang and Lu, ECCV 2018): raw features projected onto normalised ones.

    Features are (B, D). Rows of the matching matrix are divided by their L2 norm, as in IRRA's code.
    """
    labels = matching_labels(pids)
    target = labels / labels.norm(dim=1, keepdim=True)
    image_to_text = image_features @ F.normalize(text_features, dim=1).T
    text_to_image = text_features @ F.normalize(image_features, dim=1).T
    return _kl_to(target, image_to_text) + _kl_to(target, text_to_image)


def id_loss(image_logits: Tensor, text_logits: Tensor, pids: Tensor) -> Tensor:
    """Identity classification of both modalities with a shared classifier (Zheng et al., dual-path instance loss).

    Logits are (B, classes); pids are (B,) contiguous labels. The result is 0 for B = 0.
    """
    rows = max(len(pids), 1)
    sums = [F.cross_entropy(logits, pids, reduction="sum") for logits in (image_logits, text_logits)]
    return (sums[0] + sums[1]) / (2 * rows)


def mlm(token_logits: Tensor, token_labels: Tensor) -> Tensor:
    """Masked language modelling: mean cross-entropy over the chosen tokens of the batch.

    token_logits (N, V) and token_labels (N,) cover either the chosen positions only, or all positions, with label 0
    where a position was not chosen. The result is 0 if none was.
    """
    chosen = (token_labels != 0).sum().clamp(min=1)
    return F.cross_entropy(token_logits, token_labels, ignore_index=0, reduction="sum") / chosen


# By the names of `train.loss_names`, in the order in which they are computed.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "sdm": sdm,
    "itc": itc,
    "cmpm": cmpm,
    "tal": tal,
    "trl": trl,
    "nitc": nitc,
    "citc": citc,
    "id": id_loss,
    "mlm": mlm,
}


def matching_labels(pids: Tensor, image_ids: Tensor | None = None) -> Tensor:
    """(B, B) matrix: 1 where two samples match, 0 elsewhere.

    With `image_ids`, only the same image counts 1, and another image of the same person 0.3.
    """
    labels = (pids[:, None] == pids[None, :]).float()
    if image_ids is None:
        return labels
    same_image = (image_ids[:, None] == image_ids[None, :]).float()
    return SAME_PERSON_WEIGHT * (labels - same_image) + same_image


def _kl_to(target: Tensor, logits: Tensor, epsilon: float = EPSILON) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    return (log_p.exp() * (log_p - torch.log(target + epsilon))).sum(dim=1).mean()
