"""Named tensors: read from files of our own and from others' files, and loaded strictly into a model."""

import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from irra.model.archive import is_archive, read_archive
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file

CONTAINERS = ("state_dict", "model")  # where trainings keep the weights, beside their progress
DISTRIBUTED = "module."  # the prefix of weights saved from a training on several GPUs
OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")  # what OpenAI's archives hold beside the weights
OTHER_FILES = {b"version https://git-lfs": "a pointer of git-lfs; `git lfs pull` fetches the file itself"}
WEB_PAGE = "a web page; download the file itself, not the page about it"
MAX_SHARING = 2  # bytes of all tensors per byte of the file; some may share their values
MAX_REASON = 200  # characters of what torch says of a file


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        UserError: The file is missing or damaged.
    """
    check_regular_file(path)
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


def read_foreign(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Read others' weights: safetensors, a checkpoint of plain tensors, or OpenAI's TorchScript archive.

    Nothing in the file is executed. The weights are float32, without the prefix of a training on several GPUs.

    Returns:
        The weights, and whether they are in OpenAI's form.

    Raises:
        UserError: The file holds no weights that can be read; the message says what it is.
    """
    _check_kind(path)
    archived = is_archive(path)
    weights = _plain_tensors(read_archive_of(path) if archived else _read_checkpoint(path), path)
    openai = archived or all(key in weights for key in OPENAI_KEYS)
    return {name: value for name, value in weights.items() if name not in OPENAI_KEYS}, openai


def read_archive_of(path: Path) -> dict[str, Tensor]:
    """Read a TorchScript archive.

    Raises:
        UserError: It is damaged, or describes more than tensors.
    """
    try:
        return read_archive(path)
    except Exception as error:  # unpickling raises all kinds of exceptions
        raise UserError(f"{path}: not an archive of plain weights ({_reason(error)})") from None


def _check_kind(path: Path) -> None:
    """Refuse what people have by mistake where weights belong.

    Raises:
        UserError: The file is missing, empty, no regular file, a web page or a pointer of git-lfs.
    """
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(1000).lstrip()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise UserError(f"{path}: an empty file; not a PyTorch checkpoint")
    if start[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: {WEB_PAGE}")
    for beginning, what in OTHER_FILES.items():
        if start.startswith(beginning):
            raise UserError(f"{path}: {what}")


def _read_checkpoint(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        _check_unpacked_size(path)
        data = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # unpickling raises all kinds of exceptions
        raise UserError(f"{path}: not a PyTorch checkpoint of plain weights ({_reason(error)})") from None
    data = next((data[key] for key in CONTAINERS if isinstance(data, dict) and isinstance(data.get(key), dict)), data)
    if not isinstance(data, dict):
        raise UserError(f"{path}: not a PyTorch checkpoint of plain weights (it holds a {type(data).__name__})")
    return data


def _check_unpacked_size(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:  # torch.save does not compress
            raise UserError(f"{path}: claims {unpacked} bytes, more than the file has")


def _plain_tensors(data: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors as float32, each of which lies in the memory that was read, so that a copy costs no more than it.

    Raises:
        UserError: Something else is among them, or there are none.
    """
    if not data:
        raise UserError(f"{path}: holds no weights")
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: {str(name)[:60]} is no tensor but of type {type(value).__name__}")
        if not _is_in_memory(value):
            raise UserError(f"{path}: {name} has the shape {tuple(value.shape)}, for which the file has no values")
    if sum(value.nbytes for value in data.values()) > MAX_SHARING * path.stat().st_size:
        raise UserError(f"{path}: its tensors repeat the same values, to far more bytes than the file has")
    while all(name.startswith(DISTRIBUTED) for name in data):  # once for each wrapper
        data = {name.removeprefix(DISTRIBUTED): value for name, value in data.items()}
    return {name: value.float() for name, value in data.items()}


def _is_in_memory(value: Tensor) -> bool:
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    return 0 < value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _reason(error: Exception) -> str:
    """What torch says in short: its advice to load the file with its code executed would be bad advice."""
    text = " ".join((str(error) or type(error).__name__).split())
    if "Unsupported global" in text or "weights_only" in text.lower() or "WeightsUnpickler" in text:
        found = text.partition("GLOBAL ")[2].split(" ")[0]
        return f"it holds Python objects{f' such as {found}' if found else ''}; save the model's state dict alone"
    return text[:MAX_REASON]
