"""From a batch to its losses: each is handed what its parameters name.

Those are labels of the batch, parameters of the section `train`, and outputs of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irra.config import TrainConfig
from irra.losses import LOSSES

# What a loss may ask for of the batch itself.
LABELS = ("pids", "image_ids")
# What each classifier predicts, for the accuracies that are reported: logits and labels among the outputs.
CLASSIFIERS = {
    "id": {"id_image": ("image_logits", "pids"), "id_text": ("text_logits", "pids")},
    "mlm": {"mlm": ("token_logits", "token_labels")},
}


class Objective(NamedTuple):
    """Weighted losses by name, with their sum as `total`, and what else is logged, by its name there; all scalars."""

    losses: dict[str, Tensor]
    others: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """All of them under the names of the history: `loss/sdm`, `accuracy/mlm`."""
        return {f"loss/{name}": value for name, value in self.losses.items()} | self.others


def compute_losses(
    model: nn.Module, batch: dict[str, Tensor], loss_names: Sequence[str], **settings: Any
) -> dict[str, Tensor]:
    """The named losses of a batch, weighted, and their sum as `total` (IRRA, section 3.4).

    `settings`: parameters of the section `train` that are not at their defaults.
    """
    return objective(model, batch, TrainConfig(loss_names="+".join(loss_names), **settings)).losses


def objective(model: nn.Module, batch: dict[str, Tensor], config: TrainConfig) -> Objective:
    """The losses that `config` names, of `model`, an IRRA or a wrapper with the same `forward`, on a batch.

    With `mask_global_text` the masked caption also feeds the global losses, as in IRRA's released code, and one pass
    of the text encoder serves both branches. Without it, they see the clean caption, as in the paper's figure.
    """
    names = config.losses
    outputs = model(_seen(batch, "mlm" in names, config.mask_global_text))
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
            getattr(outputs, logits), labels[true] if true in labels else getattr(outputs, true)
        )
        for name, classifiers in CLASSIFIERS.items()
        if name in names
        for key, (logits, true) in classifiers.items()
    }
    return Objective({name: values[name] for name in names} | {"total": total}, others)


def _seen(batch: dict[str, Tensor], with_mlm: bool, mask_global_text: bool) -> dict[str, Tensor]:
    """The part of a batch that the model gets to see."""
    seen = {"images": batch["images"], "caption_ids": batch["caption_ids"]}
    if with_mlm:
        seen |= {"mlm_ids": batch["mlm_ids"], "mlm_labels": batch["mlm_labels"]}
        if mask_global_text:
            seen["caption_ids"] = batch["mlm_ids"]
    return seen


def _call(
    name: str, loss: Callable[..., Tensor], labels: Mapping[str, Tensor], config: TrainConfig, outputs: Any
) -> Tensor:
    """The loss of what its parameters name."""
    arguments = {}
    for wanted in signature(loss).parameters:
        source = config if wanted in TrainConfig.model_fields else outputs
        assert wanted in labels or wanted in dir(source), (
            f"the loss {name} asks for {wanted}, which is no label ({', '.join(LABELS)}), no parameter of the section "
            "train and no output of the model (Outputs in irra/model/irra.py)"
        )
        arguments[wanted] = labels[wanted] if wanted in labels else getattr(source, wanted)
    with torch.autocast(labels["pids"].device.type, enabled=False):
        return loss(**arguments)  # in float32, which similarities at temperature 0.02 need


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).float().mean().detach()
