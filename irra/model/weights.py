"""Named tensors: read from safetensors files, and loaded strictly into a model."""

from pathlib import Path

import safetensors
from safetensors.torch import load_file
from torch import Tensor, nn

from irra.utils.errors import UserError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except FileNotFoundError:
        raise UserError(f"{path}: missing") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged weights ({error})") from None


def load_strictly(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Load `weights` from `source` into `model`.

    Raises:
        UserError: Names or shapes differ from those of the model, as in `check_fit`.
    """
    check_fit(model.state_dict(), weights, source)
    model.load_state_dict(weights)


def check_fit(own: dict[str, Tensor], weights: dict[str, Tensor], source: Path) -> None:
    """Check that `weights` from `source` have the names and shapes of the model's `own`.

    Raises:
        UserError: Weights are missing, unexpected or of the wrong shape; the message names the first of them.
    """
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
