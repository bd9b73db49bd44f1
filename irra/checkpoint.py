"""Weights on disk: the model that training hands on, the state from which it resumes, and released checkpoints."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from irra.layout import CONFIG, WEIGHTS
from irra.model import IRRA, ModelSpec, build_model
from irra.utils.errors import UserError
from irra.utils.files import hash_file, replace_file, replace_folder, write_json

STATE = "state.safetensors"
BEST_WEIGHTS = "best-*.safetensors"
OFFICIAL_TEMPERATURE = 0.02


def save_model(folder: Path, weights: Path, spec: ModelSpec, facts: dict[str, Any]) -> None:
    """Write a model folder: the weights file, and its sizes and origin as config.json."""
    with replace_folder(folder) as target:
        shutil.copyfile(weights, target / WEIGHTS)
        write_json(target / CONFIG, {"model": spec.as_dict(), **facts})


def load_model(folder: Path) -> IRRA:
    """Read a model folder; UserError names what is missing or does not fit."""
    spec = ModelSpec.from_dict(read_model_facts(folder)["model"])
    model = build_model(spec)
    load_strictly(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return model


def read_model_facts(folder: Path) -> dict[str, Any]:
    """What a model folder says of its sizes, configuration, data and selection."""
    try:
        facts: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder / CONFIG}: missing; {folder} is no model folder of the train stage") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{folder / CONFIG}: not valid JSON ({error})") from None
    return facts


def model_fingerprint(folder: Path) -> str:
    """sha256 of a model folder's weights."""
    return hash_file(folder / WEIGHTS)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all weights of `model` as one safetensors file, at once or not at all."""
    with replace_file(path) as temporary:
        save_file(_contiguous(model.state_dict()), temporary)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; UserError when it is missing or damaged."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except FileNotFoundError:
        raise UserError(f"{path}: missing") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged weights ({error})") from None


def load_strictly(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Load `weights` into `model`; UserError names the missing, extra and misshapen ones."""
    _check_fit(model.state_dict(), weights, source)
    model.load_state_dict(weights)


def _check_fit(own: dict[str, Tensor], weights: dict[str, Tensor], source: Path) -> None:
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


@dataclass
class Progress:
    """Where training stands, beside its weights: all that is needed to go on as if it had never stopped."""

    epoch: int = 1
    step: int = 0  # next step of the epoch, from 0
    losses: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)  # sums since the last row of `losses`
    best_epoch: int = 0
    run_id: str | None = None


class StateFolder:
    """A folder with the state of one training: resumable state, and the best weights so far."""

    def __init__(self, folder: Path, fingerprint: dict[str, Any]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

    def best_weights(self, epoch: int) -> Path:
        """Where the weights of a best `epoch` are kept."""
        return self.folder / f"best-{epoch:04d}.safetensors"

    def save(self, progress: Progress, model: nn.Module, optimizer: Optimizer, scaler: dict[str, Any]) -> None:
        """Write the state at once or not at all, then drop best weights that it no longer names."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items() if value is not None}
        facts = {"fingerprint": self.fingerprint, "progress": asdict(progress), "scaler": scaler}
        self.folder.mkdir(parents=True, exist_ok=True)
        with replace_file(self.folder / STATE) as temporary:
            save_file(_contiguous(tensors), temporary, metadata={"irra": json.dumps(facts)})
        for path in self.folder.glob(BEST_WEIGHTS):
            if path != self.best_weights(progress.best_epoch):
                path.unlink()

    def load(self, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> Progress | None:
        """Restore a saved state into model, optimizer and scaler, or None where there is none.

        UserError when the state is damaged, or was made with another configuration or other data.
        """
        for unfinished in self._unfinished():
            unfinished.unlink()
        path = self.folder / STATE
        if not path.exists():
            return None
        facts = self._read_facts(path)
        self._refuse_another(facts["fingerprint"])
        tensors = read_tensors(path)
        weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        load_strictly(model, weights, path)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        scaler.load_state_dict(facts["scaler"])
        return Progress(**facts["progress"])

    def clear(self) -> None:
        """Remove the state of a finished training, and the folder if nothing else is in it.

        The state goes first: weights alone mean nothing, but a state must find the weights that it names.
        """
        (self.folder / STATE).unlink(missing_ok=True)
        for path in [*self.folder.glob(BEST_WEIGHTS), *self._unfinished()]:
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _unfinished(self) -> list[Path]:
        """What saves that were killed have left behind."""
        return [path for name in (STATE, BEST_WEIGHTS) for path in self.folder.glob(f"{name}.tmp")]

    def _read_facts(self, path: Path) -> dict[str, Any]:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                facts: dict[str, Any] = json.loads(file.metadata()["irra"])
                return facts
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(f"{path}: not a training state ({error}); move {self.folder} away to start anew") from None

    def _refuse_another(self, saved: dict[str, Any]) -> None:
        keys = sorted(saved.keys() | self.fingerprint.keys())
        changed = [
            f"{key}: {saved.get(key)} there, {self.fingerprint.get(key)} here"
            for key in keys
            if saved.get(key) != self.fingerprint.get(key)
        ]
        if changed:
            raise UserError(
                f"{self.folder} holds an unfinished training of another configuration or other data "
                f"({'; '.join(changed)}). Restore those values to go on with it, or delete {self.folder} to start anew"
            )


def import_official(path: Path, image_size: tuple[int, int] = (384, 128)) -> IRRA:
    """Read a checkpoint that IRRA's authors released (`best.pth`); all sizes are inferred from its weights.

    Heads of the encoders are 64 wide, as in every CLIP; the temperature is the constant 0.02.

    Raises:
        UserError: no such checkpoint, or a weight that is missing, extra or misshapen, by name.
    """
    weights = _read_official(path)
    try:
        spec = _official_spec(weights, image_size)
    except KeyError as error:
        raise UserError(f"{path}: missing {error.args[0]}; is it an IRRA checkpoint?") from None
    model = build_model(spec)
    _check_fit({_official_name(name): value for name, value in model.state_dict().items()}, weights, path)
    model.load_state_dict({_own_name(name): value.float() for name, value in weights.items()})
    return model


def _read_official(path: Path) -> dict[str, Tensor]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # unpickling raises whatever it likes
        raise UserError(f"{path}: not a PyTorch checkpoint of plain weights ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise UserError(f"{path}: expected a checkpoint with the weights under the key 'model'")
    weights: dict[str, Tensor] = data["model"]
    return weights


def _own_name(official: str) -> str:
    if official.startswith("base_model."):
        return "clip." + official.removeprefix("base_model.")
    return official if official.startswith("classifier.") else "interaction." + official


def _official_name(own: str) -> str:
    if own.startswith("clip."):
        return "base_model." + own.removeprefix("clip.")
    return own.removeprefix("interaction.")


def _official_spec(weights: dict[str, Tensor], image_size: tuple[int, int]) -> ModelSpec:
    conv = weights["base_model.visual.conv1.weight"]
    tokens = len(weights["base_model.visual.positional_embedding"])
    text_length, text_width = weights["base_model.positional_embedding"].shape
    architecture = {
        "embed_dim": weights["base_model.text_projection"].shape[1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": list(image_size),
            "layers": _count_blocks(weights, "base_model.visual.transformer"),
            "width": conv.shape[0],
            "patch_size": conv.shape[2],
        },
        "text_cfg": {
            "context_length": text_length,
            "vocab_size": len(weights["base_model.token_embedding.weight"]),
            "width": text_width,
            "heads": max(1, text_width // 64),
            "layers": _count_blocks(weights, "base_model.transformer"),
        },
    }
    stride = _infer_stride(tokens - 1, image_size, conv.shape[2])
    classes = len(weights["classifier.weight"]) if "classifier.weight" in weights else None
    depth = _count_blocks(weights, "cross_modal_transformer") if "cross_attn.in_proj_weight" in weights else None
    return ModelSpec(architecture, image_size, stride, text_length, OFFICIAL_TEMPERATURE, classes, depth)


def _count_blocks(weights: dict[str, Tensor], prefix: str) -> int:
    start = f"{prefix}.resblocks."
    return len({name.removeprefix(start).split(".")[0] for name in weights if name.startswith(start)})


def _infer_stride(patches: int, image_size: tuple[int, int], patch: int) -> int:
    height, width = image_size
    for stride in range(patch, 0, -1):
        if ((height - patch) // stride + 1) * ((width - patch) // stride + 1) == patches:
            return stride
    raise UserError(f"{patches} image positions fit no stride at image size {height}x{width} and patch {patch}")


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in tensors.items()}
