"""From a batch to its losses: each loss function gets what its parameters name.

These are labels of the batch, parameters of the section `train`, and outputs of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irra.config import TrainConfig
from irra.config.train import BY_PAIR
from irra.data.masking import place_chosen
from irra.distributed import ALONE, World
from irra.losses import LOSSES
from irra.model.irra import Outputs

# What a loss may ask for from the batch itself; `clean` of a batch, (B,) 0 or 1, weighs losses of single pairs.
LABELS = ("pids", "image_ids")
# A loss that asks for one of these compares samples with each other.
FEATURES = {"image_features", "text_features"}
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
    model: nn.Module, batch: dict[str, Tensor], loss_names: str | Sequence[str], **settings: Any
) -> dict[str, Tensor]:
    """Weighted losses of a batch by name, and their sum as `total` (IRRA, section 3.4).

    `loss_names` are joined by +, or a sequence. `settings` are parameters of the section `train` that differ from their
    defaults.
    """
    names = loss_names if isinstance(loss_names, str) else "+".join(loss_names)
    return objective(model, batch, TrainConfig(loss_names=names, **settings)).losses


def objective(
    model: nn.Module,
    batch: dict[str, Tensor],
    config: TrainConfig,
    world: World = ALONE,
    now: Mapping[str, float] = MappingProxyType({}),
) -> Objective:
    """The losses that `config` names, and accuracies of the classifiers that they train.

    With `mask_global_text`, the masked caption also feeds the global losses, as in IRRA's released code, and one pass
    of the text encoder serves both branches. Without it, they see the clean caption, as in the paper's figure.

    If processes share a batch, the mean over them of each value, and of its gradients, is that of the whole batch:
    losses that compare samples get the features of all, and the others are each process's part of the sum.

    Args:
        model: An IRRA, or a wrapper with the same `forward`.
        batch: Tensors as the loader yields them.
        config: Names, weights and parameters of the losses.
        world: The processes among which the loader has divided the samples of the batch; labels are of all of them.
        now: Values of parameters that change while the model is trained, instead of those of `config`.
    """
    names = config.losses
    inputs = _model_inputs(batch, "mlm" in names, config.mask_global_text)
    outputs, together, rows = _outputs(model, inputs, len(batch["pids"]), world)
    labels = {name: batch[name] for name in LABELS}
    own = {name: label[rows] for name, label in labels.items()}
    settings = config.model_dump() | dict(now)
    values, others = {}, {}
    for name, loss in LOSSES.items():
        if name in names:
            compares = not FEATURES.isdisjoint(signature(loss).parameters)
            share = 1.0 if compares else _share(name, batch, rows, world)
            if compares:
                of_views = [_call(name, loss, labels, settings, view) for view in together.views()]
                value = torch.stack([_reduced(each, batch.get("clean")) for each in of_views]).sum()
            else:
                value = _call(name, loss, own, settings, outputs)
            values[name] = config.loss_weights[name] * share * value
            for key, (logits, target) in CLASSIFIERS.get(name, {}).items():
                right = own[target] if target in own else getattr(outputs, target)
                others[f"accuracy/{key}"] = share * _accuracy(getattr(outputs, logits), right)
    total_loss = torch.stack([values[name] for name in names]).sum()
    return Objective({name: values[name] for name in names} | {"total": total_loss}, others)


def varying(config: TrainConfig, done: float) -> dict[str, float]:
    """The parameters of losses that change during training, after `done` epochs: N-ITC's alpha rises in the first."""
    return {"nitc_alpha": config.nitc_alpha * min(1.0, done)}


def pair_losses(model: nn.Module, batch: dict[str, Tensor], config: TrainConfig, world: World = ALONE) -> list[Tensor]:
    """The losses (B,) of the single pairs of a batch, by the first loss that has such: of each kind of features.

    Captions are as the batch has them, never masked.
    """
    inputs = _model_inputs(batch, with_mlm=False, mask_global_text=False)
    _, together, _ = _outputs(model, inputs, len(batch["pids"]), world)
    name = next(name for name in config.losses if name in BY_PAIR)
    labels = {name: batch[name] for name in LABELS}
    return [_call(name, LOSSES[name], labels, config.model_dump(), view) for view in together.views()]


def _outputs(model: nn.Module, inputs: dict[str, Tensor], total: int, world: World) -> tuple[Outputs, Outputs, slice]:
    """The outputs for this process's samples, those with the features of all `total`, and which of them its own are."""
    rows = world.rows(total)
    if world.size > 1:
        places = torch.arange(len(inputs["images"]), device=inputs["images"].device)
        inputs["real"] = places < rows.stop - rows.start
    own: Outputs = model(inputs).first(rows.stop - rows.start)
    return own, own.with_features(lambda features: world.gather(features, total)), rows


def _reduced(values: Tensor, clean: Tensor | None) -> Tensor:
    """Losses of single pairs as their sum, without those that are not `clean`; other losses as they are.

    A sum as in RDE's released code, whose learning rates are those of sums over 64 pairs.
    """
    if values.ndim == 0:
        return values
    return values.sum() if clean is None else (clean * values).sum()


def _model_inputs(batch: dict[str, Tensor], with_mlm: bool, mask_global_text: bool) -> dict[str, Tensor]:
    """The part of a batch that the model sees."""
    inputs = {"images": batch["images"]}
    if with_mlm:
        inputs |= {name: batch[name] for name in ("mlm_ids", "mlm_labels")} | _placed(batch)
    if not with_mlm or not mask_global_text:
        inputs["caption_ids"] = batch["caption_ids"]
    return inputs


def _placed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Where the masked words are: from the loader, or looked up for a batch of other origin."""
    labels, names = batch["mlm_labels"], ("mlm_positions", "mlm_slots")
    if "mlm_slots" in batch:
        return {name: batch[name] for name in names}
    found = map(torch.from_numpy, place_chosen((labels != 0).cpu().numpy()))
    return {name: part.to(labels.device) for name, part in zip(names, found, strict=True)}


def _share(name: str, batch: dict[str, Tensor], rows: slice, world: World) -> Any:
    """What the mean over this process's samples, or over its masked words, counts in the mean over all processes."""
    if world.size == 1:
        return 1.0
    if name == "mlm":
        return world.size * len(batch["mlm_slots"]) / batch["mlm_total"]
    return world.size * (rows.stop - rows.start) / len(batch["pids"])


def _call(
    name: str, loss: Callable[..., Tensor], labels: Mapping[str, Tensor], settings: Mapping[str, Any], outputs: Outputs
) -> Tensor:
    """Call `loss` with the labels, parameters and outputs that its parameters name.

    A parameter of the section `train` may have the loss's name before its own.
    """
    arguments = {}
    for wanted in signature(loss).parameters:
        own = f"{name}_{wanted}"
        if wanted in labels:
            arguments[wanted] = labels[wanted]
        elif own in settings or wanted in settings:
            arguments[wanted] = settings[own if own in settings else wanted]
        else:
            assert hasattr(type(outputs), wanted) or wanted in vars(outputs), (
                f"the loss {name} asks for {wanted}, which is no label ({', '.join(LABELS)}), no parameter of the "
                "section train and no output of the model (Outputs in irra/model/irra.py)"
            )
            arguments[wanted] = getattr(outputs, wanted)
    with torch.autocast(labels["pids"].device.type, enabled=False):
        return loss(**arguments)  # in float32, because similarities at temperature 0.02 need it


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).float().sum().detach() / max(len(labels), 1)
