"""Checkpoints in the form of RDE's release. Those of IRRA are in test_checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irra.checkpoint import import_official
from irra.model import IRRA
from irra.model.official import OFFICIAL, official_name, own_name
from irra.utils.errors import UserError
from tests.irra.test_checkpoint import official_architecture, official_weights
from tests.irra.test_token_selection import RELEASED
from tests.models import small_model

WIDTH, OUTPUTS = 128, 256  # of tokens, and of the feature of the selected ones
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# All weights of the released token selection, by layer.
LAYERS = {
    "visul_emb_layer.linear": (OUTPUTS, WIDTH),
    "visul_emb_layer.fc": (OUTPUTS, WIDTH),
    "visul_emb_layer.mlp.layers.0": (OUTPUTS // 2, WIDTH),
    "visul_emb_layer.mlp.layers.1": (OUTPUTS, OUTPUTS // 2),
    "visul_emb_layer.mlp.bns.0": (OUTPUTS // 2,),
    "visul_emb_layer.mlp.bns.1": (OUTPUTS,),
    "texual_emb_layer.linear": (OUTPUTS, WIDTH),
    "texual_emb_layer.mlp.layers.0": (OUTPUTS // 2, WIDTH),
    "texual_emb_layer.mlp.layers.1": (OUTPUTS, OUTPUTS // 2),
    "texual_emb_layer.mlp.bns.0": (OUTPUTS // 2,),
    "texual_emb_layer.mlp.bns.1": (OUTPUTS,),
}
UNUSED = ("visul_emb_layer.linear", "visul_emb_layer.mlp.bns.1", "texual_emb_layer.mlp.bns.1")


def rde_model(**changes: Any) -> IRRA:
    """A model with token selection, whose weights are those of half precision."""
    sizes: dict[str, Any] = {"architecture": official_architecture(), "image_size": (96, 32), "text_length": 77}
    selection = {"temperature": 0.02, "token_selection": 0.3, "num_classes": None, "cmt_depth": None}
    model = small_model(**(sizes | selection | changes))
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    model.load_state_dict({name: value.half().to(value.dtype) for name, value in model.state_dict().items()})
    return model.eval()


def rde_weights(model: IRRA) -> dict[str, Tensor]:
    """The weights under the names and precisions of RDE's release."""
    weights = official_weights(model)
    for own, released in RELEASED.items():
        for name in [name for name in weights if name.startswith(f"{own}.")]:
            weights[name.replace(own, released)] = weights.pop(name)
    for layer in UNUSED:
        kinds = NORM if len(LAYERS[layer]) == 1 else ("weight", "bias")
        for kind in kinds:
            shape = () if kind == "num_batches_tracked" else LAYERS[layer] if kind == "weight" else LAYERS[layer][:1]
            weights[f"{layer}.{kind}"] = torch.ones(shape, dtype=torch.long if shape == () else torch.float16)
    return weights


def save(weights: dict[str, Tensor], path: Path, prefix: str = "") -> Path:
    torch.save({"model": {f"{prefix}{name}": value for name, value in weights.items()}, "epoch": 60}, path)
    return path


def test_the_file_of_these_tests_has_the_released_names_and_shapes() -> None:
    found = {name: tuple(value.shape) for name, value in rde_weights(rde_model()).items() if "_emb_layer." in name}
    expected = {f"{layer}.weight": shape for layer, shape in LAYERS.items()}
    expected |= {f"{layer}.bias": shape[:1] for layer, shape in LAYERS.items()}
    norms = [layer for layer, shape in LAYERS.items() if len(shape) == 1]
    expected |= {f"{layer}.running_{kind}": LAYERS[layer] for layer in norms for kind in ("mean", "var")}
    expected |= {f"{layer}.num_batches_tracked": () for layer in norms}
    assert found == expected


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
def test_a_released_rde_checkpoint_gives_the_same_embeddings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    model = rde_model()
    imported = import_official(save(rde_weights(model), tmp_path / "best.pth", prefix), (96, 32)).eval()
    assert (imported.spec.token_selection, imported.spec.temperature) == (0.3, 0.02)
    assert (imported.interaction, imported.classifier) == (None, None)
    images, captions = torch.randn(2, 3, 96, 32), torch.randint(1, 900, (3, 77))
    assert torch.equal(imported.encode_image(images), model.encode_image(images))
    assert torch.equal(imported.encode_text(captions), model.encode_text(captions))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(
        "12 weights that RDE never uses are left out "
        "(visul_emb_layer.linear.*, visul_emb_layer.mlp.bns.1.*, texual_emb_layer.mlp.bns.1.*)"
    )


def test_heads_of_other_losses_are_kept(tmp_path: Path) -> None:
    model = rde_model(num_classes=5, cmt_depth=1)
    spec = import_official(save(rde_weights(model), tmp_path / "best.pth"), (96, 32)).spec
    assert (spec.num_classes, spec.cmt_depth, spec.token_selection) == (5, 1, 0.3)


def test_token_selection_of_another_width_is_refused(tmp_path: Path) -> None:
    weights = rde_weights(rde_model()) | {"visul_emb_layer.fc.weight": torch.ones(1024, WIDTH)}
    with pytest.raises(UserError, match=r"gives 1024 values for tokens of 128; here it gives 256"):
        import_official(save(weights, tmp_path / "best.pth"), (96, 32))


@pytest.mark.parametrize("name", ["visul_emb_layer.fc.weight", "texual_emb_layer.mlp.bns.0.running_var"])
def test_a_missing_weight_of_token_selection_is_named(tmp_path: Path, name: str) -> None:
    weights = rde_weights(rde_model())
    del weights[name]
    with pytest.raises(UserError, match=f"missing {name}"):
        import_official(save(weights, tmp_path / "best.pth"), (96, 32))


def test_names_translate_both_ways() -> None:
    for name in rde_model(num_classes=5, cmt_depth=1).state_dict():
        assert own_name(official_name(name)) == name
    assert len(set(OFFICIAL.values())) == len(OFFICIAL)
