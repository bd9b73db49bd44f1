"""Tensors of a TorchScript archive, the form of OpenAI's released CLIP weights, read without running anything in it.

`torch.jit.load` runs the archive's own code while it loads. Here only the description of tensors is read: data.pkl, a
pickle that may name tensors, their storages, containers and modules of the archive, and the bytes of each storage.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_DESCRIPTION_BYTES = 50_000_000  # OpenAI's have 100 kB
DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_archive(path: Path) -> bool:
    """Whether the file is a TorchScript archive; a checkpoint of `torch.save` is a zip file without constants.pkl."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def read_archive(path: Path) -> dict[str, Tensor]:
    """All tensors of the archive, named as in the state dict of its module.

    Raises:
        pickle.UnpicklingError: It describes something else than modules, containers and tensors.
        Exception: It is damaged; unpickling raises nearly anything then.
    """
    with zipfile.ZipFile(path) as archive:
        description = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
        if description.file_size > MAX_DESCRIPTION_BYTES:
            raise pickle.UnpicklingError(f"{description.filename} has {description.file_size} bytes")
        root = _Unpickler(archive, description.filename.removesuffix("data.pkl"), archive.read(description)).load()
    if not isinstance(root, _Module):
        raise pickle.UnpicklingError("it holds no module")
    return dict(_tensors(root, "", set()))


class _Module:
    """A module of the archive: its attributes, and nothing of its code."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):  # written by a __getstate__ of the archive, whose other half would have to run
            raise pickle.UnpicklingError("its weights are unpacked by code of its own")
        self.attributes = state


class _Unpickler(pickle.Unpickler):
    """Makes tensors, containers and `_Module`, and refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, description: bytes) -> None:
        super().__init__(BytesIO(description))
        self._archive, self._prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return _values
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no weights need")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        entry = self._archive.getinfo(f"{self._prefix}data/{key}")
        if kind != "storage" or entry.compress_type != zipfile.ZIP_STORED or entry.file_size != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has not the size that it claims")
        return torch.frombuffer(bytearray(self._archive.read(entry)), dtype=dtype) if count else torch.empty(0)


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _values(values: Any, *_: Any) -> Any:
    return values


def _tensors(module: _Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if id(module) in seen:  # else a few bytes could name a tensor any number of times
        raise pickle.UnpicklingError(f"its module {prefix} is there twice")
    seen.add(id(module))
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", seen)
