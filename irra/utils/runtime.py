"""Device, precision and signals: what a training process asks of its machine."""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch

from irra.utils.errors import Interrupted, UserError

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


class StopRequest:
    """The signal that asked this process to stop, if any did."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._message = ""

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Note the signal; the form is that of a signal handler."""
        if self.signum is not None:
            raise KeyboardInterrupt  # asked twice: stop without waiting for the step to end
        self.signum = signum
        if self._message:
            raise Interrupted(signum, self._message)

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Within, a signal (also an earlier one) stops the work wherever it is, since all that counts was saved."""
        if self.signum is not None:
            raise Interrupted(self.signum, message)
        self._message = message
        try:
            yield
        finally:
            self._message = ""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGINT instead of dying of them, so that training can save its state first."""
    request = StopRequest()
    previous = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
