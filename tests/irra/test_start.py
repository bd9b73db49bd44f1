"""Trainings that start from a model folder or a released checkpoint: what is loaded, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irra import start as starts
from irra.backbones import VOCABULARY, read_config
from irra.checkpoint import StateFolder, save_model, save_weights
from irra.config import TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.layout import CONFIG, WEIGHTS
from irra.model import IRRA
from irra.model.clip import resize_positions
from irra.start import find_start, load_start
from irra.training import build_trainer, fingerprint
from irra.utils.errors import UserError
from tests.irra.test_checkpoint import official_architecture, official_weights
from tests.irra.test_official import rde_model, rde_weights, save
from tests.models import small_model


def official_model(**changes: Any) -> IRRA:
    """A model of the sizes that a released checkpoint can have."""
    sizes: dict[str, Any] = {"architecture": official_architecture(), "image_size": (96, 32), "text_length": 77}
    return small_model(**(sizes | changes))


def tiny(vocabulary: int = 300) -> dict[str, Any]:
    """The sizes of irra-tiny, by default with fewer tokens, which is faster."""
    config = read_config("irra-tiny")
    return config | {"text_cfg": config["text_cfg"] | {"vocab_size": vocabulary}}


def tiny_model(seed: int = 5, **changes: Any) -> IRRA:
    return small_model(seed, **({"architecture": tiny(), "num_classes": 7} | changes))


def write_folder(model: IRRA, folder: Path) -> Path:
    save_weights(model, folder.with_name("best.safetensors"))
    save_model(folder, folder.with_name("best.safetensors"), model.spec, {})
    return folder


def are_equal(model: IRRA, weights: dict[str, Tensor], *starting: str) -> bool:
    own = model.state_dict()
    names = [name for name in own if name.startswith(starting)]
    assert names
    return all(torch.equal(own[name], weights[name].to(own[name].dtype)) for name in names)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_other_people_gives_all_but_the_classifier(tmp_path: Path, prefix: str) -> None:
    theirs, model = official_model(seed=1, num_classes=9), official_model()
    file = save(official_weights(theirs), tmp_path / "best.pth", prefix)  # linear layers in half precision
    before = model.state_dict()["classifier.weight"].clone()
    assert load_start(model, file) == (
        f"init_from {file}: backbone of {len(model.clip.state_dict())} tensors loaded; MLM head loaded; "
        "cross-modal branch loaded; ID classifier of 9 people not loaded (the data have 12)"
    )
    halves = {name: value.half() if value.is_floating_point() else value for name, value in theirs.state_dict().items()}
    own = model.state_dict()
    exact = [name for name in own if name.startswith("clip.") and (".ln_" in name or "embedding" in name)]
    assert are_equal(model, theirs.state_dict(), *exact)
    assert are_equal(model, halves, "clip.visual.conv1.", "clip.text_projection", "interaction.cross_attn.")
    assert torch.equal(own["classifier.weight"], before)


def test_token_selection_is_loaded_where_the_model_has_it(tmp_path: Path) -> None:
    theirs = rde_model()
    file = save(rde_weights(theirs), tmp_path / "best.pth")
    with_it, without = official_model(token_selection=0.5, cmt_depth=None), official_model(cmt_depth=None)
    said = load_start(with_it, file)
    assert "ID classifier starts anew; token selection loaded; 12 other weights not loaded (" in said
    assert are_equal(with_it, theirs.state_dict(), "clip.", "token_selection.")
    assert "token selection not loaded (not used here)" in load_start(without, file)
    assert are_equal(without, theirs.state_dict(), "clip.")


def test_a_trained_temperature_is_not_loaded(tmp_path: Path) -> None:
    folder = write_folder(tiny_model(temperature=0.1, learn_temperature=True), tmp_path / "model")
    model = tiny_model(temperature=0.05, learn_temperature=True)
    assert load_start(model, folder / WEIGHTS).endswith("; trained temperature not loaded (train.temperature counts)")
    assert model.state_dict()["log_scale"].exp().item() == pytest.approx(20.0)


def test_weights_with_clip_s_names_for_squares_are_resized(tmp_path: Path) -> None:
    theirs = official_model(image_size=(64, 64), num_classes=None, cmt_depth=None)
    weights = {name.removeprefix("clip."): value for name, value in theirs.state_dict().items()}
    file = tmp_path / "clip.pt"
    torch.save(weights | {"logit_scale": torch.tensor(4.6), "memory.queue": torch.ones(2)}, file)
    model = official_model(text_length=20, num_classes=None, cmt_depth=None)
    said = load_start(model, file)
    assert "; image positions resized from 4x4 to 6x2; text positions cut from 77 to 20; 1 other weights" in said
    expected = resize_positions(weights["visual.positional_embedding"], (4, 4), (6, 2))
    assert torch.equal(model.clip.visual.positional_embedding, expected)
    assert torch.equal(model.clip.positional_embedding, weights["positional_embedding"][:20])


def test_a_model_folder_knows_how_its_patches_lie(tmp_path: Path) -> None:
    theirs = tiny_model(stride_size=8)  # 7 x 3, which no file would tell
    model = tiny_model()
    folder = write_folder(theirs, tmp_path / "model")
    assert "resized from 7x3 to 4x2" in load_start(model, folder / WEIGHTS)
    expected = resize_positions(theirs.clip.visual.positional_embedding.detach(), (7, 3), (4, 2))
    assert torch.equal(model.clip.visual.positional_embedding, expected)


def test_patches_that_lie_in_an_unknown_way_are_refused(tmp_path: Path) -> None:
    file = save(official_weights(official_model(image_size=(80, 48))), tmp_path / "best.pth")
    with pytest.raises(UserError, match=r"image size are its 15 patches\? Convert it with `irra import-official"):
        load_start(official_model(), file)


def test_texts_that_the_weights_positions_cannot_be_extended_to_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tiny_model(text_length=12), tmp_path / "model")
    with pytest.raises(UserError, match=r"tokenize\.text_length: 16 tokens are more than the 12"):
        load_start(tiny_model(), folder / WEIGHTS)


def test_an_mlm_head_of_other_tokens_starts_anew(tmp_path: Path) -> None:
    folder = write_folder(tiny_model(mlm_ids=[0, 5, 9]), tmp_path / "model")
    model = tiny_model(seed=6, mlm_ids=[0, 5, 8])
    before = model.state_dict()["interaction.mlm_head.fc.weight"].clone()
    assert "MLM head not loaded (it predicts other tokens); cross-modal branch loaded" in load_start(
        model, folder / WEIGHTS
    )
    assert torch.equal(model.state_dict()["interaction.mlm_head.fc.weight"], before)


def test_a_branch_of_another_depth_starts_anew(tmp_path: Path) -> None:
    folder = write_folder(tiny_model(cmt_depth=2), tmp_path / "model")
    said = load_start(tiny_model(), folder / WEIGHTS)
    assert "cross-modal branch not loaded (it has other weights, such as interaction.cross_modal_tr" in said


def test_a_model_folder_is_found(tmp_path: Path) -> None:
    folder = write_folder(tiny_model(architecture=tiny(VOCABULARY)), tmp_path / "model")
    assert find_start("irra-tiny", "not looked at", str(folder)) == folder / WEIGHTS


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("irra-small", r"train\.backbone is irra-small, but .*/model: weights do not fit"),
        ("quick", r"was trained without QuickGELU, unlike quick; set train\.backbone: quick"),
        ("heads", r"train\.backbone is heads, but .*/model divides attention into other heads"),
    ],
)
def test_a_model_folder_of_another_backbone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, message: str
) -> None:
    sizes = tiny()
    named = {
        "irra-small": read_config("irra-small"),
        "quick": sizes | {"quick_gelu": True},
        "heads": sizes | {"text_cfg": sizes["text_cfg"] | {"heads": 4}},
    }
    monkeypatch.setattr(starts, "read_config", named.get)
    with pytest.raises(UserError, match=rf"^train\.init_from: .*{message}"):
        find_start(backbone, None, str(write_folder(tiny_model(), tmp_path / "model")))


def test_a_released_checkpoint_needs_a_backbone_with_quickgelu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = official_architecture()
    named = {"ViT": sizes | {"quick_gelu": False}, "ViT-quickgelu": sizes}
    monkeypatch.setattr(starts, "read_config", named.get)
    file = save(official_weights(official_model()), tmp_path / "best.pth")
    with pytest.raises(UserError, match=r"with QuickGELU, as all .*, unlike ViT; set train\.backbone: ViT-quickgelu"):
        find_start("ViT", None, str(file))
    assert find_start("ViT-quickgelu", None, str(file)) == file


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "name", "message"),
    [
        (lambda folder: (folder / CONFIG).unlink(), "model", r"model is no model folder, which has a config\.json"),
        (lambda folder: (folder / CONFIG).unlink(), f"model/{WEIGHTS}", r"of a model folder; name the folder"),
        (lambda folder: (folder / WEIGHTS).unlink(), "model", r"weights\.safetensors: missing"),
        (cut, "model", r"weights\.safetensors: damaged"),
        (lambda folder: None, "nowhere.pth", r"nowhere\.pth: no such file"),
        (lambda folder: None, "openai", r"openai: no such file"),
    ],
    ids=["no config", "weights alone", "no weights", "damaged", "nothing", "a tag"],
)
def test_what_is_no_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(write_folder(tiny_model(), Path("model")))
    with pytest.raises(UserError, match=rf"^train\.init_from: .*{message}"):
        find_start("irra-tiny", None, name)


@pytest.mark.parametrize("missing", ["base_model.ln_final.bias", "base_model.visual.positional_embedding"])
def test_a_backbone_is_loaded_as_a_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(starts, "read_config", lambda name: official_architecture())
    weights = official_weights(official_model())
    del weights[missing]
    with pytest.raises(UserError, match=f"missing clip{missing.removeprefix('base_model')}"):
        find_start("ViT", None, str(save(weights, tmp_path / "best.pth")))


@pytest.mark.parametrize("ratio", [None, 0.3])
def test_a_training_starts_with_the_weights_of_a_model_folder(
    store: PreparedStore,
    tokens: TokenStore,
    train_config: TrainConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ratio: float | None,
) -> None:
    theirs = tiny_model(architecture=tiny(VOCABULARY), token_selection=ratio)
    folder = write_folder(theirs, tmp_path / "model")
    config = train_config.model_copy(update={"init_from": str(folder), "token_selection": 0.3, "loss_names": "sdm+id"})
    weights = find_start(config.backbone, config.pretrained, config.init_from)
    states = StateFolder(tmp_path / "states", fingerprint(config, store, tokens, weights))
    trainer = build_trainer(store, tokens, config, weights, states)
    assert "ID classifier of 7 people not loaded (the data have 12)" in capsys.readouterr().out
    assert are_equal(trainer.model, theirs.state_dict(), "clip.", *(["token_selection."] if ratio else []))
    states.save(trainer.state, trainer.model, trainer.optimizer, trainer.scaler.state_dict())
    (folder / WEIGHTS).unlink()  # is not needed any more
    build_trainer(store, tokens, config, weights, states)
    assert "init_from" not in capsys.readouterr().out


def test_a_training_does_not_resume_from_other_weights(
    store: PreparedStore, tokens: TokenStore, train_config: TrainConfig, tmp_path: Path
) -> None:
    config = train_config.model_copy(update={"init_from": str(tmp_path / "model")})
    prints = []
    for seed in (1, 2):
        folder = write_folder(tiny_model(seed), tmp_path / "model")
        prints.append(fingerprint(config, store, tokens, folder / WEIGHTS))
    assert prints[0]["weights"] != prints[1]["weights"]
