"""The processes that train or evaluate together, as `torchrun` starts them: who they are, and what they exchange."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from irra.utils.errors import Interrupted, SharedError, UserError

T = TypeVar("T")
# What the exchange says when another process has gone; all of them are plain RuntimeErrors of torch.
LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "recv_timeout")


class ProcessLost(SharedError):
    """Another of the processes that work together has ended."""


@dataclass(frozen=True)
class World:
    """One process among `size` that share the work."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def width(self, total: int) -> int:
        """How many of `total` samples each process takes, of which the last ones may be short."""
        return -(-total // self.size)

    def rows(self, total: int) -> slice:
        """The part of `total` samples that is the process's own; it may be empty."""
        width = self.width(total)
        return slice(min(self.rank * width, total), min((self.rank + 1) * width, total))

    def gather(self, features: Tensor, total: int) -> Tensor:
        """The (total, D) features of all processes, for this one's rows of them.

        A loss that every process computes from all of them has a gradient here that is `size` times too large, as the
        mean over the processes needs.
        """
        if self.size == 1:
            return features
        gathered: Tensor = _Gather.apply(features, self, total)
        return gathered

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, with a gradient that is the sum of those of all of them."""
        if self.size == 1:
            return values
        summed: Tensor = _Total.apply(values)
        return summed

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Which of the flags are true in any process; exchanged between CPUs, so that no GPU is waited for."""
        if self.size == 1:
            return list(flags)
        agreed = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return [bool(flag) for flag in agreed.tolist()]

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let the first process do something, and then the others, which need not tell its mistakes again."""
        if not self.first:
            self.share(None)
        yield
        if self.first:
            self.share(None)

    def share(self, value: T) -> T:
        """The first process's `value`, in all of them; it is pickled."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0)
        shared: T = values[0]
        return shared

    def share_optimizer(self, optimizer: Optimizer) -> None:
        """Give the optimizer of all processes the state of the first one's."""
        if self.size == 1:
            return
        state = optimizer.state_dict()
        kinds = {i: {key: (x.shape, x.dtype) for key, x in values.items()} for i, values in state["state"].items()}
        kinds = self.share(kinds)
        if not self.first:
            empty = {i: {key: torch.empty(x[0], dtype=x[1]) for key, x in v.items()} for i, v in kinds.items()}
            optimizer.load_state_dict(state | {"state": empty})  # puts them where the weights are
        for values in optimizer.state_dict()["state"].values():
            for value in values.values():
                dist.broadcast(value, src=0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are averaged over the processes, and with the weights of the first."""
        if self.size == 1:
            return model
        with warnings.catch_warnings():  # newer versions of torch have another name for it, older ones only this
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
            return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that `torchrun` has started, as its environment variables say; without them, be alone.

    All but the first are silent, except about an error of their own.

    Raises:
        ProcessLost: Another process has ended.
    """
    size, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    if size == 1:
        yield ALONE
        return
    try:
        with noticing_lost_processes(), ExitStack() as silence:
            if rank > 0:
                nowhere = silence.enter_context(open(os.devnull, "w"))
                silence.enter_context(redirect_stdout(nowhere))
                silence.enter_context(redirect_stderr(nowhere))
            _start_exchange()
            yield World(rank, size)
    except (SharedError, Interrupted) as error:
        if rank > 0:
            raise SystemExit(error.code if isinstance(error, Interrupted) else 1) from None
        raise
    dist.destroy_process_group()  # after a failure, this would wait for the others


def _start_exchange() -> None:
    """Meet the others.

    Raises:
        UserError: There are more processes than GPUs on a machine that has any.
    """
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return
    number, present = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= present:
        raise UserError(f"more than {present} processes on a machine with {present} GPUs; start one for each GPU")
    torch.cuda.set_device(number)
    dist.init_process_group("cpu:gloo,cuda:nccl")


@contextmanager
def noticing_lost_processes() -> Iterator[None]:
    """Tell the end of another process from failures of this one.

    Raises:
        ProcessLost: Another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(sign in str(error) for sign in LOST):
            raise ProcessLost("another of the processes that work together has ended") from error
        raise


class _Gather(torch.autograd.Function):
    """Gathers rows; the gradient goes to the own ones alone, since every process computes the same loss."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, world: World, total: int) -> Tensor:
        ctx.rows, ctx.size = world.rows(total), world.size
        padded = features.new_zeros(world.width(total), features.shape[1])
        padded[: len(features)] = features
        parts = [torch.empty_like(padded) for _ in range(world.size)]
        dist.all_gather(parts, padded)
        return torch.cat(parts)[:total]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.size * gradient[ctx.rows], None, None


class _Total(torch.autograd.Function):
    """Sums over the processes, forward and backward: each one's value counts in the loss of all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed
