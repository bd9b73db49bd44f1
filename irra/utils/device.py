"""Where and in which precision a model computes."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from irra.utils.errors import UserError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The torch device for a params.yaml value; `auto` takes CUDA, then Apple's, then the CPU."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, present in available.items() if present))
    if not available[name]:
        present = ", ".join(kind for kind, there in available.items() if there)
        raise UserError(f"device: {name} is not available here (available: {present}); `auto` takes what there is")
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision over fp32 master weights: bf16 or fp16; nothing for fp32."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, DTYPES[precision])
