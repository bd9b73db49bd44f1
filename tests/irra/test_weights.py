"""Weights from others: every form that is read gives the same tensors, and nothing in a file is ever executed."""

import os
import pickle
import socket
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from irra.model.clip import create_clip, extend_positions, find_weights
from irra.model.official import import_official
from irra.model.weights import read_foreign
from irra.utils.errors import UserError
from tests.models import architecture

EXTRA = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}


class Scripted(nn.Module):
    """A module that torch can script, whatever is put into it."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Executing(nn.Module):
    """Its archive holds code that runs while it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight = torch.from_file("executed", True, 2)
        self.training = state[1]


def clip_weights(image_size: tuple[int, int] = (64, 32)) -> dict[str, Tensor]:
    torch.manual_seed(0)
    clip = open_clip.CLIP(**architecture(image_size=image_size))
    return {name: value.clone() for name, value in clip.state_dict().items()}


def save_scripted(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; OpenAI's archives remain
        torch.jit.script(module).save(str(path))  # type: ignore[no-untyped-call]


def save_archive(weights: dict[str, Tensor], path: Path) -> None:
    """In the form of OpenAI's: a scripted module with parameters in half precision and three buffers."""
    root = Scripted()
    for key, value in weights.items():
        *parents, name = key.split(".")
        module: nn.Module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, Scripted())
            module = getattr(module, parent)
        module.register_parameter(name, nn.Parameter(value.half(), requires_grad=False))
    for key, number in EXTRA.items():
        root.register_buffer(key, torch.tensor(number))
    save_scripted(root, path)


FORMS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "archive": save_archive,
    "plain": torch.save,
    "openai's keys": lambda w, path: torch.save({**w, **{key: torch.tensor(EXTRA[key]) for key in EXTRA}}, path),
    "checkpoint": lambda w, path: torch.save({"epoch": 3, "state_dict": w}, path),
    "distributed": lambda w, path: torch.save({"state_dict": {f"module.{key}": w[key] for key in w}}, path),
    "half": lambda w, path: torch.save({key: w[key].half() for key in w}, path),
    "safetensors": save_file,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_weights(form: str, tmp_path: Path) -> None:
    weights = {key: value.half().float() for key, value in clip_weights().items()}
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pt")
    FORMS[form](weights, path)
    found, openai = read_foreign(path)
    assert found.keys() == weights.keys()
    assert all(found[key].dtype == torch.float32 and torch.equal(found[key], weights[key]) for key in weights)
    assert openai == (form in ("archive", "openai's keys"))


def test_an_archive_gives_what_torch_gives(tmp_path: Path) -> None:
    save_archive(clip_weights(), tmp_path / "a.pt")
    expected = torch.jit.load(str(tmp_path / "a.pt")).state_dict()  # type: ignore[no-untyped-call]
    found, _ = read_foreign(tmp_path / "a.pt")
    assert all(torch.equal(found[key], expected[key].float()) for key in expected.keys() - EXTRA.keys())


def test_weights_of_half_precision_for_another_image_size_are_resized(tmp_path: Path) -> None:
    weights = clip_weights((64, 64))
    torch.save({key: value.half() for key, value in weights.items()}, tmp_path / "half.pt")
    torch.save({key: value.half().float() for key, value in weights.items()}, tmp_path / "single.pt")
    larger = architecture(image_size=(96, 96))
    half, single = (create_clip(larger, (96, 96), 16, 16, tmp_path / name) for name in ("half.pt", "single.pt"))
    assert torch.equal(half.visual.positional_embedding, single.visual.positional_embedding)


def test_weights_of_77_positions_are_loaded_as_they_are_and_then_extended(tmp_path: Path) -> None:
    weights = clip_weights()
    torch.save(weights, tmp_path / "weights.pt")
    clip = create_clip(architecture(), (64, 32), 16, 248, tmp_path / "weights.pt")
    assert torch.equal(clip.positional_embedding, extend_positions(weights["positional_embedding"], 248))
    assert torch.equal(clip.token_embedding.weight, weights["token_embedding.weight"])


@pytest.mark.parametrize("form", ["archive", "openai's keys"])
def test_openai_s_weights_in_a_file_need_a_backbone_with_quickgelu(form: str, tmp_path: Path) -> None:
    FORMS[form](clip_weights(), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"with QuickGELU, unlike ViT-B-16; set train\.backbone: ViT-B-16-quickgelu"):
        find_weights("ViT-B-16", str(tmp_path / "a.pt"))
    assert find_weights("ViT-B-16-quickgelu", str(tmp_path / "a.pt")) == tmp_path / "a.pt"


def test_code_of_an_archive_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_scripted(Executing(), tmp_path / "a.pt")
    with pytest.raises(UserError, match="unpacked by code of its own"):
        read_foreign(tmp_path / "a.pt")
    assert not Path("executed").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load("a.pt")  # type: ignore[no-untyped-call]
    assert Path("executed").exists()  # so the archive does what it should not


class Shell:
    """A pickle that runs a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


def archive_with(description: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", description)
        archive.writestr("a/constants.pkl", b"")


def test_a_pickle_in_an_archive_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    archive_with(pickle.dumps(Shell()), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"names posix\.system, which no weights need"):
        read_foreign(tmp_path / "a.pt")
    assert not Path("executed").exists()


def test_a_module_in_itself_is_refused(tmp_path: Path) -> None:
    itself = b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
    archive_with(itself, tmp_path / "a.pt")
    with pytest.raises(UserError, match="is there twice"):
        read_foreign(tmp_path / "a.pt")


def save_listener(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"\n<!DOCTYPE html><title>Sign in</title>"), "a web page"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "`git lfs pull`"),
        (lambda path: path.write_bytes(b"what is this?"), "not a PyTorch checkpoint of plain weights"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + b"0" * 100), "not a PyTorch checkpoint of plain weights"),
        (lambda path: torch.save(Scripted(), path), "it holds Python objects such as tests"),
        (lambda path: torch.save([torch.ones(2)], path), "it holds a list"),
        (lambda path: torch.save({}, path), "holds no weights"),
        (lambda path: torch.save({"a": torch.ones(1).expand(10**12)}, path), r"a has the shape \(1000000000000,\)"),
        (lambda path: torch.save({"a": torch.ones(2), "name": "x"}, path), "name is no tensor but of type str"),
        (lambda path: torch.save(dict.fromkeys("abcdefgh", torch.ones(10_000)), path), "repeat the same values"),
        (os.mkfifo, "not a regular file"),
        (save_listener, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "not a regular file"),
    ],
    ids=[
        *("empty", "page", "lfs", "text", "broken zip", "module", "list", "nothing", "4 TB", "string", "repeated"),
        *("pipe", "socket", "device", "loop"),
    ],
)
def test_a_file_without_weights_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a.pt"))
    with pytest.raises(UserError, match=f"train.pretrained: a.pt: .*{message}"):
        find_weights("ViT-B-16", "a.pt")


def test_a_checkpoint_that_claims_other_sizes_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    names = ("visual.positional_embedding", "positional_embedding", "text_projection", "token_embedding.weight")
    weights = {f"base_model.{name}": torch.ones(193, 2) for name in names}
    weights |= {f"base_model.{part}transformer.resblocks.0.x": torch.ones(1) for part in ("", "visual.")}
    wide = torch.ones(1_000_000, 1, 16, 1)  # a width of a million: attention would need 12 TB
    torch.save({"model": {**weights, "base_model.visual.conv1.weight": wide}}, tmp_path / "best.pth")
    with pytest.raises(UserError, match="weights do not fit the model"):
        import_official(tmp_path / "best.pth")
