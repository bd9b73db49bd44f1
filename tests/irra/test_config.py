"""params.yaml: presets load, and each mistake gets a message that names key and cure."""

import os
import re
import shutil
import warnings
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import parse_yaml

from irra.backbones import read_patch_size
from irra.config import Params, TokenizeConfig, change, load_params, parse_section
from irra.config.presets import header_of, render
from irra.config.values import read_yaml, write_yaml
from irra.utils.errors import UserError
from tests.imports import ROOT
from tests.presets import PRESETS, preset_text

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 10))


def changed(tmp_path: Path, changes: dict[str, Any], preset: str = "synthetic") -> Path:
    """A whole file of a preset with dotted keys set, or removed where the value says so."""
    data = yaml.safe_load(preset_text(preset))
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


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_short_and_says_only_what_differs(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40
    data = yaml.safe_load(path.read_text())
    base = data.pop("base")
    below = Params() if base == "published" else load_params(path.with_name(f"{base}.yaml"))
    same = set(flat(data).items()) & set(flat(below.model_dump()).items())
    assert not same


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted keys, as text."""
    flattened: dict[str, Any] = {}
    for name, value in data.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": repr(value)}
    return flattened


def test_params_yaml_is_what_make_preset_writes_by_default() -> None:
    is_so = (ROOT / "params.yaml").read_bytes() == preset_text("synthetic").encode()
    assert is_so, "write it again by `make preset NAME=synthetic`"


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_what_is_written_of_a_preset_is_read_back(tmp_path: Path, path: Path) -> None:
    (tmp_path / "params.yaml").write_text(preset_text(path.stem))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_params(tmp_path / "params.yaml") == load_params(path)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_key_is_written(path: Path) -> None:
    params = load_params(path)
    absent = {"synthetic"} if params.prepare.synthetic is None else set()  # a section of that dataset alone
    assert flat(yaml.safe_load(preset_text(path.stem))) == flat(params.model_dump(exclude={"prepare": absent}))


def test_the_defaults_are_the_published_recipe() -> None:
    params = load_params(ROOT / "presets" / "cuhk-pedes.yaml")
    assert params.train == Params().train
    assert params.prepare.image_size == [384, 128]
    assert params.tokenize == TokenizeConfig(
        text_length=77,
        mask_draws=60,
        mask_probability=0.15,
        masked_token_rate=0.8,
        masked_token_unchanged_rate=0.1,
        seed=0,
    )
    recipe = {
        "backbone": "ViT-B-16-quickgelu",
        "pretrained": "openai",
        "stride_size": 16,
        "cmt_depth": 4,
        "loss_names": "sdm+mlm+id",
        "temperature": 0.02,
        "mask_global_text": True,
        "img_aug": True,
        "sampler": "random",
        "batch_size": 64,
        "num_epoch": 60,
        "optimizer": "Adam",
        "lr": 1e-5,
        "lr_factor": 5.0,
        "bias_lr_factor": 2.0,
        "weight_decay": 4e-5,
        "weight_decay_bias": 0.0,
        "alpha": 0.9,
        "beta": 0.999,
        "eps": 1e-3,
        "lrscheduler": "cosine",
        "warmup_epochs": 5,
        "warmup_factor": 0.1,
        "seed": 1,
    }
    assert params.train.model_dump(include=set(recipe)) == recipe


def test_a_comment_has_the_choices_what_the_key_does_and_the_default_where_the_value_differs(params: Params) -> None:
    text = render(change(params, ["index.split=val"]), "# mine\n")
    assert text.startswith("# mine\n")
    assert "  split: val # train, val or test; the gallery that is searched (default: test)\n" in text
    assert "  dtype: float16 # float32 or float16; float32: twice the size, for the last digits of a score\n" in text


def test_a_header_ends_where_the_text_of_the_program_begins(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(preset_text("tiny"))
    assert header_of(tmp_path / "params.yaml") == header_of(ROOT / "presets" / "tiny.yaml")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1.0e-5"),
        (8e-4, "8.0e-4"),
        (2.5e-5, "2.5e-5"),
        (0.07, "0.07"),
        (0.0, "0.0"),
        (10.0, "10.0"),
        (1e30, "1.0e+30"),
        (None, "null"),
        (True, "true"),
        ([20, 50], "[20, 50]"),
        ("data/raw", "data/raw"),
        ("1e-5", "'1e-5'"),
        ("null", "'null'"),
        ("on", "'on'"),
        ("a # b: [c", "'a # b: [c'"),
    ],
)
def test_values_are_written_as_people_write_them_and_read_back(value: Any, text: str) -> None:
    assert write_yaml(value) == text
    assert repr(read_yaml(text)) == repr(value)
    assert repr(yaml.safe_load(text)) == repr(value)  # as others read it


def preset(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_preset_builds_on_others(tmp_path: Path) -> None:
    preset(tmp_path, "low", "base: published\ntrain: {lr: 0.5, milestones: [1]}\n")
    preset(tmp_path, "middle", "base: low\ntrain: {lr: 0.25}\nindex: {split: val}\n")
    params = load_params(preset(tmp_path, "high", "base: middle\nindex: {dtype: float32}\n"))
    assert (params.train.lr, params.train.milestones) == (0.25, [1])
    assert (params.index.split, params.index.dtype) == ("val", "float32")
    assert params.prepare == Params().prepare


def test_a_preset_can_take_a_section_away(tmp_path: Path) -> None:
    preset(tmp_path, "low", "base: published\nprepare: {dataset_name: synthetic, synthetic: {train_ids: 9}}\n")
    high = preset(tmp_path, "high", "base: low\nprepare: {dataset_name: mine, synthetic: null}\n")
    assert load_params(high).prepare.synthetic is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: high", "high.yaml: base: 'high' is itself based on this file"),
        ("base: lwo", "high.yaml: base: no preset 'lwo'; did you mean 'low'?"),
        ("base: ../low", "high.yaml: base: no preset '../low'"),
        ("base: low", "low.yaml: base: 'high' is itself based on this file"),
        ("base: published\ntrain: {lrr: 1.0}", "high.yaml: train.lrr: unknown key; did you mean 'lr'?"),
    ],
)
def test_a_preset_on_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    preset(tmp_path, "low", "base: high")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/{message}")):
        load_params(preset(tmp_path, "high", text))


def test_keys_that_a_whole_file_lacks_have_their_defaults_and_are_named(tmp_path: Path) -> None:
    path = changed(tmp_path, {"train.lr": "(removed)", "prepare.synthetic.seed": "(removed)", "report": "(removed)"})
    with pytest.warns(UserWarning, match="lacks keys") as caught:
        params = load_params(path)
    assert (params.train.lr, params.report.sheet_queries) == (1e-5, 5)
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(f"{path}: lacks keys, which get their defaults: prepare.synthetic.seed: 0, ")
    assert "train.lr: 1.0e-5, report.sheet_queries: 5, report.seed: 0; `make params`" in message


def test_old_names_are_taken_over_with_one_warning(tmp_path: Path) -> None:
    changes = {"tokenize.mask_draws": "(removed)", "tokenize.variants": 7, "evaluate.sheet_queries": 3}
    path = changed(tmp_path, {**changes, "report.sheet_queries": "(removed)"})
    with pytest.warns(UserWarning, match="is now") as caught:
        params = load_params(path)
    assert (params.tokenize.mask_draws, params.report.sheet_queries) == (7, 3)
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(f"{path}: tokenize.variants is now tokenize.mask_draws, evaluate.sheet_queries is now ")


def test_a_file_from_before_the_section_report_loads(tmp_path: Path) -> None:
    path = changed(tmp_path, {"evaluate.sheet_queries": 3, "report": "(removed)"})
    with pytest.warns(UserWarning, match=r"is now|report\.seed: 0"):
        assert load_params(path).report.sheet_queries == 3


def test_an_old_name_can_be_assigned(params: Params) -> None:
    with pytest.warns(UserWarning, match=r"tokenize\.variants is now tokenize\.mask_draws"):
        assert change(params, ["tokenize.variants=9"]).tokenize.mask_draws == 9


def test_an_old_and_a_new_name_at_once_are_refused(tmp_path: Path) -> None:
    path = changed(tmp_path, {"tokenize.variants": 7})
    with pytest.raises(UserError, match=r"tokenize\.variants is now tokenize\.mask_draws, but both are set"):
        load_params(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.learning_rate": 1e-4}, r"train\.learning_rate: unknown key"),
        ({"train.lr_facto": 2.0}, r"train\.lr_facto: unknown key; did you mean 'lr_factor'\?"),
        ({"prepare.synthetic.train_id": 2}, r"prepare\.synthetic\.train_id: unknown key; did you mean 'train_ids'\?"),
        ({"evaluation": {}}, r"evaluation: unknown key; did you mean 'evaluate'\?"),
        ({"train.lr": "fast"}, r"train\.lr: input should be a valid number, found 'fast'"),
        ({"train.batch_size": "64"}, r"train\.batch_size: input should be a valid integer, found '64'"),
        ({"train.batch_size": 64.5}, r"train\.batch_size: .*integer"),
        ({"train.ccd": "plain"}, r"train: ccd plain divides captions by tal or trl; name one of them in loss_names"),
        ({"train.learn_temperature": True}, r"train: learn_temperature starts at temperature; leave temperature_start"),
        ({"train.token_selection": 0.0}, r"train\.token_selection: .*greater than 0"),
        ({"train.img_aug": 1}, r"train\.img_aug: input should be a valid boolean"),
        ({"train.batch_size": 10**12}, r"train\.batch_size: .*less than or equal to 1000000"),
        ({"prepare.synthetic.train_ids": 10**12}, r"train_ids: .*less than or equal to 1000000"),
        ({"prepare.image_size": [96_000_000, 64]}, r"image_size\.0: .*less than or equal to 4096"),
        ({"train.pretrained": ["x"] * 1000}, r"pretrained: .*found \['x', .{80,100}\.\.\.$"),
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
        (
            {"train.loss_names": "id+mlm", "train.token_selection": 0.3},
            r"train: token_selection is trained by citc, .* alone, and id\+mlm has none of them",
        ),
        (
            {"train.loss_names": "tal+id", "train.learn_temperature": True, "train.temperature_start": None},
            r"train: learn_temperature needs sdm, itc or nitc in loss_names",
        ),
        (
            {"train.loss_names": "tal", "train.ccd": "plain", "train.ccd_start": 6},
            r"train: ccd_start 6 is behind the last epoch, 5",
        ),
        (
            {"train.precision": "fp16-weights", "train.eps": 1e-8},
            r"train: eps 1e-08 is less than any number of fp16-weights, and AdamW would divide by 0",
        ),
        ({"train.stride_size": 17}, r"train: stride_size 17 exceeds the backbone's patch size 16"),
        ({"prepare.image_size": [190, 64]}, r"prepare\.image_size \[190, 64\] is not divisible by the patch size 16"),
        ({"prepare.image_size": [192]}, r"prepare\.image_size: .*at least 2"),
        ({"tokenize.mask_draws": 0}, r"train\.loss_names has mlm, .* set tokenize\.mask_draws to 1 or more"),
        ({"tokenize.text_length": 249}, r"tokenize\.text_length: .*less than or equal to 248"),
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
        ("train: {lr: 2001-99-99}", "found '2001-99-99', which is no usable timestamp"),
        ("train: {seed: !!int abc}", "found 'abc', which is no usable int"),
        (f"train: {{seed: {'9' * 4301}}}", f"found '{'9' * 40}', which is no usable int"),
        (f"train: {{seed: 0x{'f' * 5000}}}", "which is no usable int"),
        ("train: " + "[" * 1200, "nested too deeply"),
        ("train: &a [*a]", "found an alias inside of what it stands for"),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 10)),
            "more than 10000",
        ),
        ("train: {lr: 1.0, seed: 1, lr: 2.0}", "found the key 'lr' twice"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_params(path)


def test_a_merged_anchor_is_no_duplicate() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, x: 3}\n"
    assert read_yaml(text) == {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 3, "y": 2}}


def test_a_pipe_is_no_parameter_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "params.yaml")
    with pytest.raises(UserError, match="not a regular file"):
        load_params(tmp_path / "params.yaml")


def test_an_assignment_that_is_no_yaml_is_named(params: Params) -> None:
    with pytest.raises(UserError, match=r"train\.lr: not valid YAML"):
        change(params, ["train.lr=[1"])


def test_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make preset NAME=synthetic"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("2E3", 2000.0), ("1.0e-5", 1e-5), ("1", 1.0)])
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    path = tmp_path / "params.yaml"
    lines = preset_text("synthetic").splitlines()
    path.write_text("\n".join(f"  lr: {text}" if line.startswith("  lr: ") else line for line in lines))
    assert load_params(path).train.lr == value


def test_words_are_words_as_dvc_writes_and_reads_them() -> None:
    text = "[on, off, Yes, no, y, true, False]"
    assert read_yaml(text) == parse_yaml(text, "params.yaml") == ["on", "off", "Yes", "no", "y", True, False]


def test_sections_survive_the_way_through_json(params: Params) -> None:
    assert parse_section(TokenizeConfig, params.tokenize.model_dump_json()) == params.tokenize


def test_a_section_s_mistakes_are_named_too() -> None:
    with pytest.raises(UserError, match=r"TokenizeConfig: text_length: .*integer"):
        parse_section(TokenizeConfig, '{"text_length": "long"}')
    with pytest.warns(UserWarning, match=r"TokenizeConfig: lacks keys, .*: mask_draws: 60"):
        assert parse_section(TokenizeConfig, '{"text_length": 40}').text_length == 40


def test_sections_are_frozen(params: Params) -> None:
    with pytest.raises(ValueError, match="frozen"):
        params.train.lr = 1.0


def test_patch_size_of_a_named_backbone() -> None:
    assert read_patch_size("ViT-L-14-quickgelu") == 14


def test_a_preset_of_another_dataset_does_not_inherit_what_is_rendered(tmp_path: Path) -> None:
    for name in ("tiny", "synthetic"):
        shutil.copy(ROOT / "presets" / f"{name}.yaml", tmp_path)
    (tmp_path / "mine.yaml").write_text("base: tiny\nprepare: {dataset_name: mine}\n")
    prepare = load_params(tmp_path / "mine.yaml").prepare
    assert (prepare.source, prepare.image_size) == ("data/raw/mine", [96, 32])
