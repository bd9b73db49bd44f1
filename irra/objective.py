"""From a batch to its losses: each loss function gets the model outputs and labels that its parameters name."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irra.losses import LOSSES

# Reported accuracies, by the loss that trains the classifier: names of the logits and of the labels.
CLASSIFIERS = {
    "id": {"id_image": ("image_logits", "pids"), "id_text": ("text_logits", "pids")},
    "mlm": {"mlm": ("token_logits", "token_labels")},
}


class Objective(NamedTuple):
    """Weighted losses by name, with their sum as `total`, and classifier accuracies; all scalar tensors."""

    losses: dict[str, Tensor]
    accuracies: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """All values under the names used in the history, such as `loss/sdm` and `accuracy/mlm`."""
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
    """Weighted losses of a batch by name, and their sum as `total` (IRRA, section 3.4)."""
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
    """Losses and accuracies of a model on a batch.

    Args:
        model: An IRRA, or a wrapper with the same `forward`.
        batch: Tensors as the loader yields them.
        loss_names: Losses to compute.
        weights: Weight by loss name; 1 for losses that are not listed.
        mask_global_text: True: the masked caption also feeds the global losses, as in IRRA's released code, and one
            pass of the text encoder serves both branches. False: they see the clean caption, as in the paper's figure.
        soft_labels: Give SDM the image ids, so that another image of the same person counts 0.3.
    """
    outputs = model(_model_inputs(batch, "mlm" in loss_names, mask_global_text))
    labels = {"pids": batch["pids"], **({"image_ids": batch["image_ids"]} if soft_labels else {})}
    values = {
        name: weights.get(name, 1.0) * _call(loss, outputs, labels)
        for name, loss in LOSSES.items()
        if name in loss_names
    }
    total = torch.stack([values[name] for name in loss_names]).sum()
    accuracies = {
        key: _accuracy(getattr(outputs, logits), labels[target] if target in labels else getattr(outputs, target))
        for name, classifiers in CLASSIFIERS.items()
        if name in loss_names
        for key, (logits, target) in classifiers.items()
    }
    return Objective({name: values[name] for name in loss_names} | {"total": total}, accuracies)


def _model_inputs(batch: dict[str, Tensor], with_mlm: bool, mask_global_text: bool) -> dict[str, Tensor]:
    """The part of a batch that the model sees."""
    inputs = {"images": batch["images"], "caption_ids": batch["caption_ids"]}
    if with_mlm:
        inputs |= {"mlm_ids": batch["mlm_ids"], "mlm_labels": batch["mlm_labels"]}
        if mask_global_text:
            inputs["caption_ids"] = batch["mlm_ids"]
    return inputs


def _call(loss: Callable[..., Tensor], outputs: Any, labels: Mapping[str, Tensor]) -> Tensor:
    """Call `loss` with the batch labels and model outputs that its parameters name."""
    arguments = {
        name: labels[name] if name in labels else getattr(outputs, name)
        for name, parameter in signature(loss).parameters.items()
        if name in labels or parameter.default is Parameter.empty
    }
    with torch.autocast(arguments[next(iter(arguments))].device.type, enabled=False):
        return loss(**arguments)  # in float32, because similarities at temperature 0.02 need it


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).float().mean().detach()
