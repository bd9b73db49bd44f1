"""From a batch to its losses: the model's outputs, handed to the loss functions by the names of their parameters."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irra.losses import LOSSES

# What each classifier predicts, for the accuracies that are reported: logits and labels among the outputs.
CLASSIFIERS = {
    "id": {"id_image": ("image_logits", "pids"), "id_text": ("text_logits", "pids")},
    "mlm": {"mlm": ("token_logits", "token_labels")},
}


class Objective(NamedTuple):
    """Weighted losses by name, with their sum as `total`, and accuracies of the classifiers; all scalars."""

    losses: dict[str, Tensor]
    accuracies: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """All of them under the names of the history: `loss/sdm`, `accuracy/mlm`."""
        losses = {f"loss/{name}": value for name, value in self.losses.items()}
        return losses | {f"accuracy/{name}": value for name, value in self.accuracies.items()}


def compute_losses(
    model: nn.Module,
    batch: dict[str, Tensor],
    loss_names: Sequence[str],
    *,
    mask_global_text: bool = True,
    soft_labels: bool = False,
    id_loss_weight: float = 1.0,
    mlm_loss_weight: float = 1.0,
) -> dict[str, Tensor]:
    """The named losses of a batch, weighted, and their sum as `total` (IRRA, section 3.4)."""
    weights = {"id": id_loss_weight, "mlm": mlm_loss_weight}
    return objective(model, batch, loss_names, weights, mask_global_text, soft_labels).losses


def objective(
    model: nn.Module,
    batch: dict[str, Tensor],
    loss_names: Sequence[str],
    weights: Mapping[str, float],
    mask_global_text: bool,
    soft_labels: bool,
) -> Objective:
    """Losses and accuracies of `model`, an IRRA or a wrapper with the same `forward`, on a batch.

    With `mask_global_text` the masked caption also feeds the global losses, as in IRRA's released code, and one pass
    of the text encoder serves both branches. Without it, they see the clean caption, as in the paper's figure.
    `weights` has those that are not 1.
    """
    outputs = model(_seen(batch, "mlm" in loss_names, mask_global_text))
    labels = {"pids": batch["pids"], **({"image_ids": batch["image_ids"]} if soft_labels else {})}
    values = {
        name: weights.get(name, 1.0) * _call(loss, outputs, labels)
        for name, loss in LOSSES.items()
        if name in loss_names
    }
    total = torch.stack([values[name] for name in loss_names]).sum()
    accuracies = {
        key: _accuracy(getattr(outputs, logits), labels[true] if true in labels else getattr(outputs, true))
        for name, classifiers in CLASSIFIERS.items()
        if name in loss_names
        for key, (logits, true) in classifiers.items()
    }
    return Objective({name: values[name] for name in loss_names} | {"total": total}, accuracies)


def _seen(batch: dict[str, Tensor], with_mlm: bool, mask_global_text: bool) -> dict[str, Tensor]:
    """The part of a batch that the model gets to see."""
    seen = {"images": batch["images"], "caption_ids": batch["caption_ids"]}
    if with_mlm:
        seen |= {"mlm_ids": batch["mlm_ids"], "mlm_labels": batch["mlm_labels"]}
        if mask_global_text:
            seen["caption_ids"] = batch["mlm_ids"]
    return seen


def _call(loss: Callable[..., Tensor], outputs: Any, labels: Mapping[str, Tensor]) -> Tensor:
    """The loss of what its parameters name among the labels of the batch and the outputs of the model."""
    arguments = {
        name: labels[name] if name in labels else getattr(outputs, name)
        for name, parameter in signature(loss).parameters.items()
        if name in labels or parameter.default is Parameter.empty
    }
    with torch.autocast(arguments[next(iter(arguments))].device.type, enabled=False):
        return loss(**arguments)  # in float32, which similarities at temperature 0.02 need


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).float().mean().detach()
