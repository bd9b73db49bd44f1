"""params.yaml: presets load, and each mistake gets a message that names key and cure."""

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

from irra.backbones import read_backbone
from irra.config import Params, TokenizeConfig, load_params, parse_section
from irra.utils.errors import UserError
from tests.conftest import ROOT

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


def changed(tmp_path: Path, changes: dict[str, Any], preset: str = "synthetic") -> Path:
    """A copy of a preset with dotted keys set, or removed where the value is None in quotes."""
    data = yaml.safe_load((ROOT / "presets" / f"{preset}.yaml").read_text())
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = data
        for section in sections:
            target = target[section]
        if value == "(removed)":
            del target[last]
        else:
            target[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_loads(path: Path) -> None:
    assert isinstance(load_params(path), Params)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_starts_by_saying_what_it_takes_and_gives(path: Path) -> None:
    header = list(takewhile(lambda line: line.startswith("#"), path.read_text().splitlines()))
    for word in ("Data", "Expected", "Hardware"):
        assert any(line.startswith((f"# {word}:", f"# {word}set:", f"# {word} on ")) for line in header), word


def test_params_yaml_is_the_default_preset() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets" / "synthetic.yaml").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.learning_rate": 1e-4}, r"train\.learning_rate: unknown key"),
        ({"train.lr_facto": 2.0}, r"train\.lr_facto: unknown key; did you mean 'lr_factor'\?"),
        ({"prepare.synthetic.train_id": 2}, r"prepare\.synthetic\.train_id: unknown key; did you mean 'train_ids'\?"),
        ({"evaluation": {}}, r"evaluation: unknown key; did you mean 'evaluate'\?"),
        ({"train.lr": "(removed)"}, r"train\.lr: missing"),
        ({"tokenize": "(removed)"}, r"tokenize: missing"),
        ({"train.lr": "fast"}, r"train\.lr: input should be a valid number, found 'fast'"),
        ({"train.batch_size": "64"}, r"train\.batch_size: input should be a valid integer, found '64'"),
        ({"train.batch_size": 64.5}, r"train\.batch_size: .*integer"),
        ({"train.img_aug": 1}, r"train\.img_aug: input should be a valid boolean"),
        ({"train.batch_size": 0}, r"train\.batch_size: .*greater than or equal to 1"),
        ({"train.seed": -1}, r"train\.seed: .*greater than or equal to 0, found -1"),
        ({"train.seed": 2**63}, r"train\.seed: .*less than 9223372036854775808"),
        ({"prepare.synthetic.seed": -1}, r"prepare\.synthetic\.seed: .*greater than or equal to 0"),
        ({"train.temperature": 0.0}, r"train\.temperature: .*greater than 0"),
        ({"train.lr": float("nan")}, r"train\.lr: .*finite number"),
        ({"train.optimizer": "Adamw"}, r"train\.optimizer: input should be 'Adam', 'AdamW' or 'SGD', found 'Adamw'"),
        ({"train.sampler": "idtentity"}, r"train\.sampler: input should be 'random' or 'identity'"),
        ({"train.loss_names": "sdm+mml"}, r"train\.loss_names: unknown loss 'mml'; did you mean 'mlm'\?"),
        ({"train.loss_names": "sdm+sdm"}, r"train\.loss_names: a loss is named twice"),
        ({"train.loss_names": ""}, r"train\.loss_names: unknown loss ''"),
        ({"train.backbone": "ViT-B/16"}, r"train\.backbone: unknown backbone 'ViT-B/16'; did you mean"),
        ({"train.backbone": "RN50"}, r"train\.backbone: backbone 'RN50' is not a ViT CLIP"),
        (
            {"train.sampler": "identity", "train.num_instance": 5},
            r"train: batch_size 32 is not divisible by num_instance 5",
        ),
        ({"train.warmup_epochs": 16}, r"train: warmup_epochs 16 must be below num_epoch"),
        ({"train.milestones": [20, 10]}, r"train: milestones \[20, 10\] must increase"),
        ({"train.stride_size": 17}, r"train: stride_size 17 exceeds the backbone's patch size 16"),
        ({"prepare.image_size": [190, 64]}, r"prepare\.image_size \[190, 64\] is not divisible by the patch size 16"),
        ({"prepare.image_size": [192]}, r"prepare\.image_size: .*at least 2"),
        ({"tokenize.variants": 0}, r"train\.loss_names has mlm, .* set tokenize\.variants to 1 or more"),
        ({"tokenize.text_length": 78}, r"tokenize\.text_length: .*less than or equal to 77"),
        ({"tokenize.masked_token_rate": 0.95}, r"tokenize: masked_token_rate \+ masked_token_unchanged_rate"),
        (
            {"train.sampler": "identity", "prepare.synthetic.train_ids": 5},
            r"prepare\.synthetic\.train_ids 5 is fewer than the 8 identities of a batch",
        ),
        (
            {"prepare.dataset_name": "CUHK-PEDES"},
            r"prepare: the section `synthetic` belongs to dataset_name: synthetic",
        ),
    ],
)
def test_each_mistake_is_named_with_file_and_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = changed(tmp_path, changes)
    with pytest.raises(UserError, match=message) as caught:
        load_params(path)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    path = changed(tmp_path, {"train.lr": "fast", "tokenize.seeds": 1, "prepare.root_dir": 3})
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("", "expected keys and values, found NoneType"),
        ("- 1", "expected keys and values, found list"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_params(path)


def test_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make preset NAME=synthetic"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("2E3", 2000.0), ("1.0e-5", 1e-5), ("1", 1.0)])
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    path = tmp_path / "params.yaml"
    lines = (ROOT / "presets" / "synthetic.yaml").read_text().splitlines()
    path.write_text("\n".join(f"  lr: {text}" if line.startswith("  lr: ") else line for line in lines))
    assert load_params(path).train.lr == value


def test_sections_survive_the_way_through_json(params: Params) -> None:
    assert parse_section(TokenizeConfig, params.tokenize.model_dump_json()) == params.tokenize


def test_a_section_s_mistakes_are_named_too() -> None:
    with pytest.raises(UserError, match=r"TokenizeConfig: text_length: missing"):
        parse_section(TokenizeConfig, "{}")


def test_sections_are_frozen(params: Params) -> None:
    with pytest.raises(ValueError, match="frozen"):
        params.train.lr = 1.0


def test_geometry_of_a_named_backbone() -> None:
    backbone = read_backbone("ViT-L-14-quickgelu")
    assert (backbone.patch_size, backbone.embed_dim) == (14, 768)
