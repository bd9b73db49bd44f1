"""Model folders, training states and released checkpoints."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from irra.checkpoint import (
    StateFolder,
    TrainState,
    import_official,
    load_model,
    model_fingerprint,
    save_model,
    save_weights,
)
from irra.config import TrainConfig
from irra.model import IRRA
from irra.optim import build_optimizer
from irra.utils.errors import UserError
from irra.utils.files import hash_file
from irra.utils.records import write_record
from tests.models import architecture, small_model


def write_model(folder: Path, model: IRRA) -> Path:
    weights = folder / "best.safetensors"
    save_weights(model, weights)
    save_model(folder / "model", weights, model.spec, {"dataset": "toy"})
    return folder / "model"


def test_a_model_folder_gives_the_same_model_back(tmp_path: Path) -> None:
    model = small_model(stride_size=8)
    loaded = load_model(write_model(tmp_path, model))
    assert loaded.spec == model.spec
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(loaded.encode_image(images), model.encode_image(images))


def test_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        folder.mkdir()
        write_model(folder, small_model(seed))
    first, same, other = (model_fingerprint(folder / "model") for folder in folders)
    assert first == same != other


def test_weights_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_model(tmp_path, small_model())
    metadata = json.loads((folder / "config.json").read_text())
    metadata["model"]["num_classes"] = 13
    write_record(folder / "config.json", metadata)
    with pytest.raises(UserError, match=r"classifier\.weight is \(12, 16\) instead of \(13, 16\)"):
        load_model(folder)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    weights = write_model(tmp_path, small_model()) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged"):
        load_model(weights.parent)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model folder"):
        load_model(tmp_path)


@pytest.fixture
def scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=False)


def stepped(config: TrainConfig, seed: int = 0) -> tuple[IRRA, torch.optim.Optimizer]:
    """A model after one optimizer step, so that there are moments to save."""
    model = small_model(seed)
    optimizer = build_optimizer(model, config)
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    return model, optimizer


def test_a_state_restores_weights_moments_and_progress(
    tmp_path: Path, train_config: TrainConfig, scaler: torch.amp.GradScaler
) -> None:
    model, optimizer = stepped(train_config)
    (tmp_path / "best-0002.safetensors").write_text("best")
    best = {"best_epoch": 2, "best_sha256": hash_file(tmp_path / "best-0002.safetensors")}
    history = [{"epoch": 1, "loss/total": 1 / 3}]
    at = TrainState(epoch=3, step=7, history=history, window={"steps": 2.0}, **best)
    StateFolder(tmp_path, {"train.lr": 1e-5}).save(at, model, optimizer, {})
    other, empty = small_model(1), None
    empty = build_optimizer(other, train_config)
    restored = StateFolder(tmp_path, {"train.lr": 1e-5}).load(other, empty, scaler)
    assert restored == at
    assert repr(restored) == repr(at)  # an epoch stays an integer
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    ours, theirs = optimizer.state_dict()["state"], empty.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[i][key], theirs[i][key]) for i in ours for key in ours[i])


def test_without_a_state_training_starts_anew(
    tmp_path: Path, train_config: TrainConfig, scaler: torch.amp.GradScaler
) -> None:
    model = small_model()
    assert StateFolder(tmp_path, {}).load(model, build_optimizer(model, train_config), scaler) is None


def test_a_state_of_another_configuration_is_refused_saying_what_differs(
    tmp_path: Path, train_config: TrainConfig, scaler: torch.amp.GradScaler
) -> None:
    model, optimizer = stepped(train_config)
    StateFolder(tmp_path, {"train.lr": 1e-5, "data": "aa"}).save(TrainState(), model, optimizer, {})
    with pytest.raises(UserError, match=r"train\.lr: 1e-05 there, 2e-05 here") as caught:
        StateFolder(tmp_path, {"train.lr": 2e-5, "data": "aa"}).load(model, optimizer, scaler)
    assert "data" not in str(caught.value).split("(")[1].split(")")[0]


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_state_is_refused(
    tmp_path: Path, train_config: TrainConfig, scaler: torch.amp.GradScaler, content: bytes
) -> None:
    (tmp_path / "state.safetensors").write_bytes(content)
    model = small_model()
    with pytest.raises(UserError, match="not a training state"):
        StateFolder(tmp_path, {}).load(model, build_optimizer(model, train_config), scaler)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, Path.touch, lambda path: flip(path, -1)], ids=["gone", "none", "bit"])
def test_a_state_whose_best_weights_are_not_those_saved_is_refused(
    tmp_path: Path, train_config: TrainConfig, scaler: torch.amp.GradScaler, damage
) -> None:
    model, optimizer = stepped(train_config)
    states = StateFolder(tmp_path, {})
    best = states.best_weights(1)
    save_weights(model, best)
    states.save(TrainState(best_epoch=1, best_sha256=hash_file(best)), model, optimizer, {})
    if damage is Path.touch:
        best.write_bytes(b"")
    else:
        damage(best)
    with pytest.raises(UserError, match=r"best-0001\.safetensors: .*; move .* away to start over"):
        states.load(model, optimizer, scaler)


def test_a_flipped_bit_of_a_state_is_noticed(
    tmp_path: Path, train_config: TrainConfig, scaler: torch.amp.GradScaler
) -> None:
    model, optimizer = stepped(train_config)
    StateFolder(tmp_path, {}).save(TrainState(), model, optimizer, {})
    flip(tmp_path / "state.safetensors", -100)
    with pytest.raises(UserError, match="its tensors are not those that were saved"):
        StateFolder(tmp_path, {}).load(model, optimizer, scaler)


def test_weights_other_than_those_of_the_state_are_not_published(tmp_path: Path) -> None:
    model = small_model()
    save_weights(model, tmp_path / "best.safetensors")
    with pytest.raises(UserError, match="not the weights that were saved"):
        save_model(tmp_path / "model", tmp_path / "best.safetensors", model.spec, {}, "0" * 64)
    assert not (tmp_path / "model").exists()


def test_a_flipped_bit_of_a_model_is_noticed(tmp_path: Path) -> None:
    folder = write_model(tmp_path, small_model())
    flip(folder / "weights.safetensors", -1)
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged"):
        load_model(folder)


def test_a_model_folder_of_an_earlier_version_loads(tmp_path: Path) -> None:
    config = write_model(tmp_path, small_model()) / "config.json"
    metadata = json.loads(config.read_text())
    del metadata["weights_sha256"], metadata["checksum"]
    config.write_text(json.dumps(metadata))
    assert load_model(config.parent).spec.num_classes == 12


def test_a_damaged_model_configuration_gives_a_message_wherever_the_damage_is(tmp_path: Path) -> None:
    config = write_model(tmp_path, small_model()) / "config.json"
    whole = config.read_bytes()
    for position in range(len(whole)):
        config.write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        with pytest.raises(UserError, match=r"config\.json: damaged"):
            load_model(config.parent)
    config.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config\.json: damaged"):
        load_model(config.parent)


def test_a_failed_write_leaves_the_previous_state(
    tmp_path: Path, train_config: TrainConfig, scaler: torch.amp.GradScaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = stepped(train_config)
    state = StateFolder(tmp_path, {})
    state.save(TrainState(epoch=2), model, optimizer, {})

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            state.save(TrainState(epoch=3), model, optimizer, {})
    restored = state.load(model, optimizer, scaler)
    assert restored is not None
    assert restored.epoch == 2
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_only_the_best_weights_that_the_state_names_are_kept(tmp_path: Path, train_config: TrainConfig) -> None:
    model, optimizer = stepped(train_config)
    state = StateFolder(tmp_path, {})
    for epoch in (1, 2):
        save_weights(model, state.best_weights(epoch))
    state.save(TrainState(best_epoch=2), model, optimizer, {})
    assert sorted(path.name for path in tmp_path.glob("best-*")) == ["best-0002.safetensors"]


def test_clearing_a_state_leaves_files_that_are_not_its_own(tmp_path: Path, train_config: TrainConfig) -> None:
    model, optimizer = stepped(train_config)
    state = StateFolder(tmp_path, {})
    save_weights(model, state.best_weights(1))
    state.save(TrainState(best_epoch=1), model, optimizer, {})
    (tmp_path / "notes.txt").write_text("precious")
    state.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_clearing_removes_the_state_before_the_weights_that_it_names(
    tmp_path: Path, train_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = stepped(train_config)
    state = StateFolder(tmp_path, {})
    save_weights(model, state.best_weights(1))
    state.save(TrainState(best_epoch=1), model, optimizer, {})
    removed: list[str] = []
    unlink = Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    state.clear()
    assert removed == ["state.safetensors", "best-0001.safetensors"]
    assert not tmp_path.exists()


def test_loading_removes_what_killed_saves_left(
    tmp_path: Path, train_config: TrainConfig, scaler: torch.amp.GradScaler
) -> None:
    for name in ("state.safetensors.tmp", "best-0003.safetensors.tmp", ".tmpA1b2C3", "other.tmp"):
        (tmp_path / name).write_bytes(b"half")
    model = small_model()
    StateFolder(tmp_path, {}).load(model, build_optimizer(model, train_config), scaler)
    assert [path.name for path in tmp_path.iterdir()] == ["other.tmp"]


def official_weights(model: IRRA) -> dict[str, Tensor]:
    """The weights under the names and precisions of the released checkpoints."""
    weights = {}
    for name, value in model.state_dict().items():
        name = (
            name.replace("clip.", "base_model.", 1) if name.startswith("clip.") else name.removeprefix("interaction.")
        )
        weights[name] = value if ".ln_" in name or "embedding" in name else value.half()
    return weights


@pytest.fixture
def official(tmp_path: Path) -> tuple[Path, IRRA]:
    model = small_model(
        architecture=official_architecture(), image_size=(96, 32), stride_size=8, text_length=77, temperature=0.02
    )
    torch.save({"model": official_weights(model), "epoch": 45}, tmp_path / "best.pth")
    return tmp_path / "best.pth", model


def official_architecture() -> dict[str, object]:
    """Heads 64 wide, as in every CLIP."""
    config = architecture(width=128, vocabulary=1000, image_size=(96, 32))
    config["vision_cfg"]["head_width"] = 64
    return config


def test_released_checkpoint_loads_with_sizes_from_its_weights(official: tuple[Path, IRRA]) -> None:
    path, model = official
    imported = import_official(path, image_size=(96, 32))
    assert imported.spec.stride_size == 8
    assert (imported.spec.num_classes, imported.spec.cmt_depth, imported.spec.text_length) == (12, 1, 77)
    images = torch.randn(2, 3, 96, 32)
    expected = {name: value.half().float() for name, value in model.state_dict().items()}
    for name, value in imported.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(imported.encode_image(images), model.encode_image(images), rtol=0.05, atol=0.05)


def test_a_checkpoint_of_a_training_on_several_gpus_loads(official: tuple[Path, IRRA]) -> None:
    path, model = official
    torch.save({"model": {f"module.{name}": value for name, value in official_weights(model).items()}}, path)
    assert import_official(path, image_size=(96, 32)).spec.num_classes == 12


def test_released_checkpoint_without_heads_loads(tmp_path: Path) -> None:
    model = small_model(
        architecture=official_architecture(), image_size=(96, 32), text_length=77, num_classes=None, cmt_depth=None
    )
    torch.save({"model": official_weights(model)}, tmp_path / "best.pth")
    imported = import_official(tmp_path / "best.pth", image_size=(96, 32))
    assert imported.interaction is None
    assert imported.classifier is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.pop("ln_post.weight"), r"missing ln_post\.weight"),
        (lambda w: w.pop("base_model.visual.conv1.weight"), r"missing base_model\.visual\.conv1\.weight"),
        (lambda w: w.update({"base_model.extra": torch.zeros(1)}), r"unexpected base_model\.extra"),
        (lambda w: w.update({"classifier.bias": torch.zeros(3)}), r"classifier\.bias is \(3,\) instead of \(12,\)"),
    ],
    ids=["missing", "missing-size", "extra", "misshapen"],
)
def test_a_weight_that_does_not_fit_is_named(official: tuple[Path, IRRA], spoil, message: str) -> None:
    path, model = official
    weights = official_weights(model)
    spoil(weights)
    torch.save({"model": weights}, path)
    with pytest.raises(UserError, match=message):
        import_official(path, image_size=(96, 32))


def test_another_image_size_than_the_checkpoint_s_is_refused(official: tuple[Path, IRRA]) -> None:
    with pytest.raises(UserError, match=r"no stride gives \d+ image positions"):
        import_official(official[0], image_size=(40, 16))


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "best.pth").write_bytes(content)
    with pytest.raises(UserError, match="not a PyTorch checkpoint"):
        import_official(tmp_path / "best.pth")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"model": Evil()}, tmp_path / "best.pth")
    with pytest.raises(UserError, match="not a PyTorch checkpoint of plain weights"):
        import_official(tmp_path / "best.pth")
    assert not (tmp_path / "ran").exists()
