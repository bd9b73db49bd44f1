"""Files that people may have in the place of weights: damaged, of something else, or made to run code."""

import io
import os
import pickle
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save
from torch import Tensor, nn

from app.check import check
from app.cli.import_official import import_official
from irra.backbones import read_config
from irra.config import load_params
from irra.model.clip import create_clip
from irra.start import find_start
from tests.hostile.case import Case, content, place
from tests.irra.test_checkpoint import official_weights
from tests.irra.test_weights import Executing, Scripted, save_scripted
from tests.models import architecture, small_model

OUT = Path("model")


class Shell:
    """A pickle that runs a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


class Reading:
    """A pickle that opens a file for writing."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, ("executed", "w")


class Evaluated:
    """A pickle that evaluates an expression."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("open('executed', 'w')",)


def cases(rng: random.Random) -> Iterator[Case]:
    """Every bad file as released checkpoint and as pretrained weights."""
    files = {**_executing(), **_wrong(rng)}
    for name, data in files.items():
        for reader, path, read in READERS:
            yield Case(f"a bad model for {reader}", name, content(path, data), read, [path.name])
    for path, name, data in _right():
        read = partial(official if path.suffix == ".pth" else pretrained, path)
        yield Case("a right model", name, content(path, data), read, valid=True)
    for reader, path, read in READERS:
        for name, put in place(path).items():
            yield Case(f"a bad model for {reader}", name, put, read, [path.name])


def clip_of(backbone: str) -> dict[str, Tensor]:
    """Random weights of a backbone."""
    clip = open_clip.CLIP(**read_config(backbone))
    return {name: value.clone() for name, value in clip.state_dict().items()}


def official(path: Path) -> str:
    """What `irra import-official` does."""
    return str(import_official(path, OUT, (64, 32))["fingerprint"])


def pretrained(path: Path, key: str = "pretrained") -> str:
    """What `make repro` and `train` do if this file is train.pretrained, or another key."""
    text = Path("params.yaml").read_text().replace(f"{key}: null", f"{key}: {path}")
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder, "params.yaml")
        params.write_text(text)
        check(params)
        train = load_params(params).train
    weights = find_start(train.backbone, train.pretrained, train.init_from)
    create_clip(read_config(train.backbone), (96, 32), 16, 40, weights)
    return "accepted"


READERS: tuple[tuple[str, Path, Callable[[], str]], ...] = (
    ("import-official", Path("best.pth"), partial(official, Path("best.pth"))),
    ("pretrained", Path("weights.pt"), partial(pretrained, Path("weights.pt"))),
    ("pretrained", Path("weights.safetensors"), partial(pretrained, Path("weights.safetensors"))),
    ("init_from", Path("start.pth"), partial(pretrained, Path("start.pth"), "init_from")),
)


def _right() -> Iterator[tuple[Path, str, bytes]]:
    """Files with weights that fit; in released checkpoints, heads are 64 wide."""
    sizes = architecture(width=64, vocabulary=1000)
    sizes["vision_cfg"]["head_width"] = 64
    weights, clip = official_weights(small_model(architecture=sizes)), clip_of("irra-tiny")
    yield Path("best.pth"), "a state dict", saved(weights)
    yield Path("best.pth"), "with its progress", saved({"model": weights, "epoch": 3})
    yield Path("weights.pt"), "of a backbone", saved(clip)
    yield Path("weights.safetensors"), "of a backbone, safetensors", save(clip)


def _executing() -> dict[str, bytes]:
    """Files that would leave `executed` behind if anything in them ran."""
    found = {}
    for bad in (Shell(), Reading(), Evaluated()):
        name = type(bad).__name__
        for protocol in (0, 2, 4):
            found[f"a pickle of {name}, protocol {protocol}"] = pickle.dumps(bad, protocol)
        found[f"a checkpoint with {name}"] = saved({"a": torch.ones(2), "b": bad})
        found[f"an old checkpoint with {name}"] = saved({"a": bad}, _use_new_zipfile_serialization=False)
        found[f"an archive with {name}"] = archive({"a/data.pkl": pickle.dumps(bad), "a/constants.pkl": b""})
        found[f"an archive with {name} in constants"] = archive({"a/constants.pkl": pickle.dumps(bad)})
    found["a module"] = saved(Scripted())
    found["an executing archive"] = scripted(Executing())
    return found


def _wrong(rng: random.Random) -> dict[str, bytes]:
    right = official_weights(small_model())
    names = rng.sample(list(right), 4)
    whole, safe = saved({"model": right}), save(dict(list(right.items())[:5]))
    header = b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
    return {
        "empty": b"",
        "a web page": b"\n<!DOCTYPE html><title>Sign in</title>",
        "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "binary": rng.randbytes(10_000),
        "zeros": bytes(10_000),
        "an empty archive": archive({}),
        "an archive of 10 GB": _bomb(),
        "a list": saved([torch.ones(2)]),
        "a tensor": saved(torch.ones(2)),
        "nothing": saved({}),
        "texts": saved({"a": "b"}),
        "numbers as names": saved({1: torch.ones(2)}),
        "4 TB": saved({"a": torch.ones(1).expand(10**12)}),
        "a sparse tensor": saved({"a": torch.eye(3).to_sparse()}),
        "a tensor without values": saved({"a": torch.empty(10**12, device="meta")}),
        "deep nesting": saved(_nested(200)),
        "a pickle of deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "a pickle of many copies": b"\x80\x02](" + b"lp0\n" + b"(g0\ng0\nlp0\n" * 30 + b".",
        "a pickle that claims 4 GB": b"\x80\x02X\xff\xff\xff\xff" + b"a" * 100,
        "a pickle that claims 2 EB": b"\x80\x04\x8d" + struct.pack("<Q", 2**61) + b"a",
        "a header of 1 EB": struct.pack("<Q", 2**60) + b"{}",
        "a header of 4 TB values": struct.pack("<Q", len(header)) + header,
        "a header that is no JSON": struct.pack("<Q", 10) + b"[" * 10,
        "a deep header": struct.pack("<Q", 50_000) + b"[" * 50_000,
        "other weights": saved({"model": {"a": torch.ones(2)}}),
        "one weight less": saved({"model": dict(list(right.items())[1:])}),
        "one weight more": saved({"model": {**right, "extra": torch.ones(2)}}),
        **{f"{name} of another shape": saved({"model": {**right, name: torch.ones(2, 3)}}) for name in names},
        **{f"cut at {at}": whole[:at] for at in [10, *(rng.randrange(len(whole)) for _ in range(6)), len(whole) - 1]},
        **{f"safetensors cut at {at}": safe[:at] for at in [4, 9, len(safe) // 2, len(safe) - 1]},
    }


def saved(data: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(data, buffer, **options)
    return buffer.getvalue()


def scripted(module: nn.Module) -> bytes:
    """A TorchScript archive."""
    path = Path("scripted.pt").absolute()
    save_scripted(module, path)
    data = path.read_bytes()
    path.unlink()
    return data


def archive(files: dict[str, bytes]) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name, data in files.items():
            written.writestr(name, data)
    return buffer.getvalue()


def _bomb() -> bytes:
    """An archive of a hundred kilobytes that unpacks to a hundred megabytes, and claims ten gigabytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("a/data.pkl", bytes(100_000_000))
        written.writestr("a/constants.pkl", b"")
    return buffer.getvalue().replace(struct.pack("<I", 100_000_000), struct.pack("<I", 4_000_000_000))


def _nested(depth: int) -> dict[str, Any] | Tensor:
    return torch.ones(1) if depth == 0 else {"a": _nested(depth - 1)}
