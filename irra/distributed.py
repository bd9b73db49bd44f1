"""The processes that train or evaluate together, as `torchrun` starts them: who they are, and what they exchange."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from irra.utils.errors import UserError

T = TypeVar("T")
# What the exchange says when another process has gone; all of them are plain RuntimeErrors of torch.
LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "recv_timeout")


class ProcessLost(UserError):
    """Another of the processes that train together has ended."""


@dataclass(frozen=True)
class World:
    """One process among `size` that share the work; `local_rank` counts those of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

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

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
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
        shapes = self.share(
            {i: {key: (x.shape, x.dtype) for key, x in values.items()} for i, values in state["state"].items()}
        )
        if not self.first:
            state["state"] = {i: {key: torch.empty(*x) for key, x in values.items()} for i, values in shapes.items()}
            optimizer.load_state_dict(state)  # puts them where the weights are
        for values in optimizer.state_dict()["state"].values():
            for value in values.values():
                dist.broadcast(value, src=0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are averaged over the processes, and with the weights of the first."""
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that `torchrun` has started, as its environment variables say; without them, be alone.

    Raises:
        ProcessLost: Another process has ended.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    with noticing_losses():
        if torch.cuda.is_available():
            torch.cuda.set_device(_local_gpu())
            dist.init_process_group("cpu:gloo,cuda:nccl")
        else:
            dist.init_process_group("gloo")
        yield World(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    dist.destroy_process_group()  # after a failure, this would wait for the others


@contextmanager
def noticing_losses() -> Iterator[None]:
    """Tell the end of another process from failures of this one.

    Raises:
        ProcessLost: Another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(sign in str(error) for sign in LOST):
            raise ProcessLost("another process of this training has ended") from error
        raise


def _local_gpu() -> int:
    number, present = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= present:
        raise UserError(f"{number + 1} processes or more on a machine with {present} GPUs; start one for each GPU")
    return number


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
