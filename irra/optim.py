"""Parameter groups, optimizers and schedules of IRRA's recipe."""

import math
from bisect import bisect_right
from typing import Any

import torch
from torch.optim import Optimizer

from irra.config import TrainConfig
from irra.model import IRRA, Part

Group = dict[str, Any]

UNDECAYED = {"default": "vector", "new": "new_vector"}  # where vectors go that are spared from weight decay


def parameter_groups(model: IRRA, config: TrainConfig) -> list[Group]:
    """One group per pair of learning rate and weight decay, with the keys name, params, lr and weight_decay.

    `new`: cross-modal branch and heads; `new_bias`: biases of the heads; `bias`: all other biases, including those
    of the cross-modal branch; `default`: the rest. The model tells which part each parameter belongs to.

    Without `decay_vectors`, what has fewer than two axes leaves `default` and `new` for `vector` and `new_vector`, of
    the same rates without weight decay, as in TBPS-CLIP's released code. So does a trained temperature, which decay
    would draw to 1. Frozen parameters are in no group.
    """
    groups: dict[str, Group] = {
        name: {"name": name, "params": [], "lr": config.lr * factor, "weight_decay": decay}
        for name, (factor, decay) in _rules(config).items()
    }
    parts = model.part_of_parameters()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = group_of(name, parts[name])
            if parameter.ndim == 0 or (parameter.ndim < 2 and not config.decay_vectors):
                group = UNDECAYED.get(group, group)
            groups[group]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def group_of(name: str, part: Part) -> str:
    """Name of the group for a parameter called `name` in the model's `part`; the recipe's later rules win."""
    bias = name.endswith("bias")
    if part == "head":
        return "new_bias" if bias else "new"
    if bias:
        return "bias"
    return "new" if part == "branch" else "default"


def learning_rates(config: TrainConfig, done: float) -> dict[str, float]:
    """Learning rate of every group after `done` epochs: warm-up, then the schedule.

    Each group's rate rises to lr times the group's factor, but `target_lr` is absolute: all groups end at the same
    rate, and one whose full rate is below it would rise.
    """
    return {name: _scheduled(config, config.lr * factor, done) for name, (factor, _) in _rules(config).items()}


def temperature(config: TrainConfig, done: float) -> float:
    """Temperature of the similarities after `done` epochs, falling geometrically from temperature_start if set.

    It reaches `temperature` when the last epoch begins.
    """
    if config.temperature_start is None or config.num_epoch == 1:
        return config.temperature
    progress = min(done / (config.num_epoch - 1), 1.0)
    return config.temperature_start * math.pow(config.temperature / config.temperature_start, progress)


def build_optimizer(model: IRRA, config: TrainConfig) -> Optimizer:
    """Fused SGD, Adam (coupled L2) or AdamW over the parameter groups.

    For float16 weights they are not fused, but round after every operation, as in the released code. A fused step
    computes in float32: it divides by second moments that float16 rounds to 0, so that fewer weights move.
    """
    groups = parameter_groups(model, config)
    fused = True if config.precision != "fp16-weights" else None  # None: a kernel per operation
    if config.optimizer == "SGD":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "Adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.alpha, config.beta), eps=config.eps, fused=fused)


def _rules(config: TrainConfig) -> dict[str, tuple[float, float]]:
    """Of each group, what multiplies lr, and the weight decay."""
    rules = {
        "default": (1.0, config.weight_decay),
        "new": (config.lr_factor, config.weight_decay),
        "bias": (config.bias_lr_factor, config.weight_decay_bias),
        "new_bias": (config.lr_factor, config.weight_decay_bias),
    }
    if config.decay_vectors and not config.learn_temperature:
        return rules
    return rules | {name: (rules[group][0], 0.0) for group, name in UNDECAYED.items()}


def _scheduled(config: TrainConfig, base: float, done: float) -> float:
    """Learning rate after `done` epochs, for a group whose full rate is `base`."""
    if done < config.warmup_epochs:
        alpha = done / config.warmup_epochs if config.warmup_method == "linear" else 0.0
        return base * (config.warmup_factor * (1.0 - alpha) + alpha)
    if config.lrscheduler == "step":
        return base * math.pow(config.gamma, bisect_right(config.milestones, done))
    ratio = (done - config.warmup_epochs) / (config.num_epoch - config.warmup_epochs)
    if config.lrscheduler == "exp":
        return base * math.pow(config.power, ratio)
    if config.lrscheduler == "linear":
        return base * (1.0 - ratio)
    span = base - config.target_lr
    if config.lrscheduler == "poly":
        return config.target_lr + span * math.pow(config.power, 1.0 - ratio)
    return config.target_lr + span * 0.5 * (1.0 + math.cos(math.pi * ratio))
