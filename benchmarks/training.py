"""Seconds per step and images per second of training the published model on this machine.

python -m benchmarks.training                # ViT-B/16 at 384x128, batch 64, sdm+mlm+id, random weights and data
python -m benchmarks.training --steps 3      # on a CPU, where a step takes most of a minute
"""

import argparse
import time

import torch

from benchmarks.machine import describe
from irra.backbones import read_config
from irra.config import TrainConfig
from irra.data.masking import END_ID, MASK_ID, START_ID
from irra.model import ModelSpec, build_model
from irra.objective import objective
from irra.utils.device import autocast, choose_device

BATCH, CLASSES, TEXT_LENGTH, WORDS = 64, 11_003, 77, 24
REFERENCE = 0.99  # seconds a step of the released code on one T4, from a public log


def main() -> None:
    """Time a step in every precision and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16", "fp16"])
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"machine: {describe()}; device: {name}; torch {torch.__version__}")
    print(f"released code on one T4: {REFERENCE} s a step")
    for precision in arguments.precision:
        seconds, gigabytes = _time_steps(device, precision, arguments.steps)
        memory = f", {gigabytes:.1f} GB at most" if device.type == "cuda" else ""
        print(f"{precision}: {seconds:.3f} s a step, {BATCH / seconds:.0f} images/s{memory}")


def _time_steps(device: torch.device, precision: str, steps: int) -> tuple[float, float]:
    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    spec = ModelSpec(read_config("ViT-B-16-quickgelu"), (384, 128), 16, TEXT_LENGTH, 0.02, CLASSES, 4)
    model = build_model(spec).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, eps=1e-3, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    batch, config = _batch(device), TrainConfig(loss_names="sdm+mlm+id")
    for step in range(steps + 1):
        if step == 1:  # the first step warms up
            _synchronise(device)
            start = time.perf_counter()
        with autocast(device, precision):
            total = objective(model, batch, config).losses["total"]
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
    _synchronise(device)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return (time.perf_counter() - start) / steps, peak


def _batch(device: torch.device) -> dict[str, torch.Tensor]:
    ids = torch.zeros(BATCH, TEXT_LENGTH, dtype=torch.long)
    ids[:, 0], ids[:, WORDS + 1] = START_ID, END_ID
    ids[:, 1 : WORDS + 1] = torch.randint(1, MASK_ID, (BATCH, WORDS))
    labels = torch.where(torch.rand(ids.shape) < 0.15, ids, 0) * ((ids > 0) & (ids < MASK_ID))
    batch = {
        "images": torch.randn(BATCH, 3, 384, 128),
        "caption_ids": ids[:, : WORDS + 2],
        "mlm_ids": torch.where(labels > 0, MASK_ID, ids),
        "mlm_labels": labels,
        "pids": torch.randint(0, CLASSES, (BATCH,)),
        "image_ids": torch.arange(BATCH),
    }
    return {name: value.to(device) for name, value in batch.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
