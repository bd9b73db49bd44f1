"""The device and precision in which a model computes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from irra.utils.errors import UserError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp16-weights": torch.float16}
HALF_MODULES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention)
HALF_MATRICES = ("proj", "text_projection")  # CLIP's, which belong to no module of their own


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
    """Context for bf16 or fp16 activations, over fp32 weights or those of `half_weights`. For others it does nothing.

    Layer norms are computed in fp32, from and to such activations.
    """
    return torch.autocast(device.type, DTYPES[precision]) if precision in DTYPES else nullcontext()


def half_weights(model: nn.Module) -> None:
    """Make the weights float16 that are so in the released codes of CLIP and IRRA, in place.

    They are weights and biases of linear and convolution layers and of attention, and both projections. All norms stay
    float32, and the embeddings of tokens, positions and classes.

    Raises:
        UserError: The model is on a device that cannot train with them.
    """
    kind = next(model.parameters()).device.type
    if kind not in ("cuda", "cpu"):
        raise UserError(
            f"train.precision: fp16-weights is for the devices cuda and cpu, not for {kind}; use fp16 or fp32"
        )
    for module in model.modules():
        if isinstance(module, HALF_MODULES):
            module.half()
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] in HALF_MATRICES:
            parameter.data = parameter.data.half()


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Context for the forward and the backward pass: with tf32, a GPU multiplies fp32 matrices in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
