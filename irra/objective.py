"""From a batch to its losses: encoders and heads joined with the loss functions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from irra import losses
from irra.model.irra import IRRA, end_features


class Objective(NamedTuple):
    """Weighted losses by name, with their sum as `total`, and accuracies of the two classifiers; all scalars."""

    losses: dict[str, Tensor]
    accuracies: dict[str, Tensor]


class Features(NamedTuple):
    """What the losses look at: global features (B, D), image tokens (B, P, D) and masked text tokens (B, L, D)."""

    image: Tensor
    text: Tensor
    image_tokens: Tensor
    mlm_tokens: Tensor | None


def compute_losses(
    model: IRRA,
    batch: dict[str, Tensor],
    loss_names: Sequence[str],
    *,
    mask_global_text: bool = True,
    soft_labels: bool = False,
    id_loss_weight: float = 1.0,
    mlm_loss_weight: float = 1.0,
) -> dict[str, Tensor]:
    """The named losses of a batch, weighted, and their sum as `total` (IRRA, section 3.4)."""
    features = encode(model, batch, "mlm" in loss_names, mask_global_text)
    return objective(model, features, batch, loss_names, soft_labels, id_loss_weight, mlm_loss_weight).losses


def encode(model: IRRA, batch: dict[str, Tensor], with_mlm: bool, mask_global_text: bool) -> Features:
    """Run the encoders.

    With `mask_global_text` the masked caption also feeds the global losses, as in IRRA's released code, and one pass
    of the text encoder serves both branches. Without it, they see the clean caption, as in the paper's figure.
    """
    image_tokens = model.image_tokens(batch["images"])
    image = image_tokens[:, 0].float()
    if not with_mlm:
        return Features(image, model.encode_text(batch["caption_ids"]), image_tokens, None)
    mlm_tokens = model.text_tokens(batch["mlm_ids"])
    text = end_features(mlm_tokens, batch["mlm_ids"]) if mask_global_text else model.encode_text(batch["caption_ids"])
    return Features(image, text, image_tokens, mlm_tokens)


def objective(
    model: IRRA,
    features: Features,
    batch: dict[str, Tensor],
    loss_names: Sequence[str],
    soft_labels: bool,
    id_loss_weight: float,
    mlm_loss_weight: float,
) -> Objective:
    """Losses and accuracies from encoded features."""
    image, text, pids = features.image, features.text, batch["pids"]
    values: dict[str, Tensor] = {}
    accuracies: dict[str, Tensor] = {}
    with torch.autocast(image.device.type, enabled=False):  # similarities at temperature 0.02 need float32
        if "sdm" in loss_names:
            image_ids = batch["image_ids"] if soft_labels else None
            values["sdm"] = losses.sdm(image, text, pids, model.logit_scale, image_ids)
        if "itc" in loss_names:
            values["itc"] = losses.itc(image, text, model.logit_scale)
        if "cmpm" in loss_names:
            values["cmpm"] = losses.cmpm(image, text, pids)
    if "id" in loss_names:
        assert model.classifier is not None, "the model has no ID classifier"
        image_logits, text_logits = model.classifier(image).float(), model.classifier(text).float()
        values["id"] = id_loss_weight * losses.id_loss(image_logits, text_logits, pids)
        accuracies["id_image"] = _accuracy(image_logits, pids)
        accuracies["id_text"] = _accuracy(text_logits, pids)
    if "mlm" in loss_names:
        token_logits, labels = mlm_logits(model, features, batch["mlm_labels"])
        values["mlm"] = mlm_loss_weight * losses.mlm(token_logits, labels)
        accuracies["mlm"] = _accuracy(token_logits, labels)
    total = torch.stack([values[name] for name in loss_names]).sum()
    return Objective({name: values[name] for name in loss_names} | {"total": total}, accuracies)


def mlm_logits(model: IRRA, features: Features, mlm_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) at the N chosen positions alone, and their labels (N,) among the tokens that MLM predicts."""
    assert model.interaction is not None, "the model has no cross-modal branch"
    assert features.mlm_tokens is not None
    chosen = mlm_labels != 0
    fused = model.interaction(features.mlm_tokens, features.image_tokens, chosen)
    labels = mlm_labels[chosen]
    if model.mlm_class_of is not None:
        labels = model.mlm_class_of[labels]
    return model.interaction.mlm_head(fused).float(), labels


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).float().mean().detach()
