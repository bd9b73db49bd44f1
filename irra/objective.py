"""From a batch to its losses: each loss function gets what its parameters name.

These are labels of the batch, parameters of the section `train`, and outputs of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irra.config import TrainConfig
from irra.losses import LOSSES

# What a loss may ask for from the batch itself.
LABELS = ("pids", "image_ids")
# Reported accuracies, by the loss that trains the classifier: names of the logits and of the labels.
CLASSIFIERS = {
    "id": {"id_image": ("image_logits", "pids"), "id_text": ("text_logits", "pids")},
    "mlm": {"mlm": ("token_logits", "token_labels")},
}


class Objective(NamedTuple):
    """Weighted losses by name, with their sum as `total`, and other logged values by name; all scalar tensors."""

    losses: dict[str, Tensor]
    others: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """All values under the names used in the history, such as `loss/sdm` and `accuracy/mlm`."""
        return {f"loss/{name}": value for name, value in self.losses.items()} | self.others


def compute_losses(
    model: nn.Module, batch: dict[str, Tensor], loss_names: Sequence[str], **settings: Any
) -> dict[str, Tensor]:
    """Weighted losses of a batch by name, and their sum as `total` (IRRA, section 3.4).

    `settings` are parameters of the section `train` that differ from their defaults.
    """
    return objective(model, batch, TrainConfig(loss_names="+".join(loss_names), **settings)).losses


def objective(model: nn.Module, batch: dict[str, Tensor], config: TrainConfig) -> Objective:
    """The losses that `config` names, and accuracies of the classifiers that they train.

    With `mask_global_text`, the masked caption also feeds the global losses, as in IRRA's released code, and one pass
    of the text encoder serves both branches. Without it, they see the clean caption, as in the paper's figure.

    Args:
        model: An IRRA, or a wrapper with the same `forward`.
        batch: Tensors as the loader yields them.
    """
    names = config.losses
    outputs = model(_model_inputs(batch, "mlm" in names, config.mask_global_text))
    labels = {name: batch[name] for name in LABELS}
    weights = config.loss_weights
    values = {
        name: weights[name] * _call(name, loss, labels, config, outputs)
        for name, loss in LOSSES.items()
        if name in names
    }
    total = torch.stack([values[name] for name in names]).sum()
    others = {
        f"accuracy/{key}": _accuracy(
            getattr(outputs, logits), labels[target] if target in labels else getattr(outputs, target)
        )
        for name, classifiers in CLASSIFIERS.items()
        if name in names
        for key, (logits, target) in classifiers.items()
    }
    return Objective({name: values[name] for name in names} | {"total": total}, others)


def _model_inputs(batch: dict[str, Tensor], with_mlm: bool, mask_global_text: bool) -> dict[str, Tensor]:
    """The part of a batch that the model sees."""
    inputs = {"images": batch["images"], "caption_ids": batch["caption_ids"]}
    if with_mlm:
        inputs |= {"mlm_ids": batch["mlm_ids"], "mlm_labels": batch["mlm_labels"]}
        if mask_global_text:
            inputs["caption_ids"] = batch["mlm_ids"]
    return inputs


def _call(
    name: str, loss: Callable[..., Tensor], labels: Mapping[str, Tensor], config: TrainConfig, outputs: Any
) -> Tensor:
    """Call `loss` with the labels, parameters and outputs that its parameters name."""
    arguments = {}
    for wanted in signature(loss).parameters:
        source = config if wanted in TrainConfig.model_fields else outputs
        assert wanted in labels or hasattr(type(source), wanted) or wanted in vars(source), (
            f"the loss {name} asks for {wanted}, which is no label ({', '.join(LABELS)}), no parameter of the section "
            "train and no output of the model (Outputs in irra/model/irra.py)"
        )
        arguments[wanted] = labels[wanted] if wanted in labels else getattr(source, wanted)
    with torch.autocast(labels["pids"].device.type, enabled=False):
        return loss(**arguments)  # in float32, because similarities at temperature 0.02 need it


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).float().mean().detach()
