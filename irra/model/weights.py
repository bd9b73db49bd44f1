"""Tensors by name: read from safetensors files, and fitted to a model strictly."""

from pathlib import Path

import safetensors
from safetensors.torch import load_file
from torch import Tensor, nn

from irra.utils.errors import UserError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; UserError when it is missing or damaged."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except FileNotFoundError:
        raise UserError(f"{path}: missing") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged weights ({error})") from None


def load_strictly(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Load `weights` into `model`; UserError names the missing, extra and misshapen ones."""
    check_fit(model.state_dict(), weights, source)
    model.load_state_dict(weights)


def check_fit(own: dict[str, Tensor], weights: dict[str, Tensor], source: Path) -> None:
    """UserError unless `weights` has the names and shapes of `own`."""
    problems = [f"missing {name}" for name in own.keys() - weights.keys()]
    problems += [f"unexpected {name}" for name in weights.keys() - own.keys()]
    problems += [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{source}: weights do not fit the model: {'; '.join(sorted(problems)[:5])}{more}")
