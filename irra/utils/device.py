"""The device and precision in which a model computes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from irra.utils.errors import UserError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The torch device for a params.yaml value; `auto` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        UserError: The device is not available here.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, present in available.items() if present))
    if not available[name]:
        names = ", ".join(kind for kind, present in available.items() if present)
        raise UserError(f"device: {name} is not available here (available: {names}); `auto` picks the first available")
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Context for mixed precision over fp32 weights: bf16 or fp16. For fp32 and tf32 it does nothing."""
    return torch.autocast(device.type, DTYPES[precision]) if precision in DTYPES else nullcontext()


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Context for the forward and the backward pass: with tf32, a GPU multiplies fp32 matrices in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
