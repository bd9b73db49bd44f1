"""params.yaml as typed, frozen objects: the only place where its keys, types and rules are written down."""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from irra.backbones import read_backbone
from irra.utils.errors import UserError

LOSSES = ("sdm", "mlm", "id", "itc", "cmpm")
SYNTHETIC = "synthetic"

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # as numpy and torch both have them
Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["fp32", "bf16", "fp16"]


class Section(BaseModel):
    """A part of params.yaml: frozen, strict about types, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SyntheticConfig(Section):
    """How many people, pictures and captions the synthetic dataset has."""

    train_ids: Count
    val_ids: Count
    test_ids: Count
    images_per_id: Count
    captions_per_image: Count
    wrong_captions: Share  # of the training captions: they describe somebody else
    seed: Seed


class PrepareConfig(Section):
    """Which dataset is read, and the size at which its images are stored."""

    dataset_name: Annotated[str, Field(min_length=1)]
    root_dir: Annotated[str, Field(min_length=1)]
    image_size: Annotated[list[Count], Field(min_length=2, max_length=2)]  # height, width
    on_bad_image: Literal["error", "skip"]
    val_share: Share  # of the training identities, held out where a dataset has no val split
    synthetic: SyntheticConfig | None = None

    @model_validator(mode="after")
    def _synthetic_has_its_section(self) -> "PrepareConfig":
        if (self.dataset_name == SYNTHETIC) != (self.synthetic is not None):
            raise ValueError(f"the section `synthetic` belongs to dataset_name: {SYNTHETIC} and to no other")
        return self


class TokenizeConfig(Section):
    """Length of the token rows, and the masking cache for MLM."""

    text_length: Annotated[int, Field(ge=8, le=77)]
    variants: Annotated[int, Field(ge=0)]  # masking draws per caption; 0: no masking cache
    mask_probability: Annotated[float, Field(gt=0.0, lt=1.0)]
    masked_token_rate: Annotated[float, Field(ge=0.0, le=1.0)]
    masked_token_unchanged_rate: Annotated[float, Field(ge=0.0, le=1.0)]
    seed: Seed

    @model_validator(mode="after")
    def _rates_are_shares_of_one(self) -> "TokenizeConfig":
        if self.masked_token_rate + self.masked_token_unchanged_rate > 1.0:
            raise ValueError("masked_token_rate + masked_token_unchanged_rate must not exceed 1")
        return self


class TrainConfig(Section):
    """The model, its losses and its optimisation. Names follow IRRA's released options where those exist."""

    backbone: str
    pretrained: str | None  # an open_clip tag such as `openai`, a local weights file, or null: from scratch
    stride_size: Count
    cmt_depth: Count
    mlm_vocabulary: Literal["all", "captions"]  # what MLM predicts: any token, or those of the training captions alone
    loss_names: str
    temperature: Positive
    temperature_start: Positive | None  # of the first epoch, from which it falls to `temperature`; null: constant
    soft_labels: bool
    mask_global_text: bool
    id_loss_weight: NonNegative
    mlm_loss_weight: NonNegative
    img_aug: bool
    sampler: Literal["random", "identity"]
    batch_size: Count
    num_instance: Count
    num_epoch: Count
    optimizer: Literal["Adam", "AdamW", "SGD"]
    lr: Positive
    lr_factor: Positive
    bias_lr_factor: Positive
    weight_decay: NonNegative
    weight_decay_bias: NonNegative
    alpha: Annotated[float, Field(ge=0.0, lt=1.0)]
    beta: Annotated[float, Field(ge=0.0, lt=1.0)]
    eps: Positive
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)]
    lrscheduler: Literal["cosine", "step", "exp", "poly", "linear"]
    warmup_method: Literal["linear", "constant"]
    warmup_epochs: Annotated[int, Field(ge=0)]
    warmup_factor: Annotated[float, Field(gt=0.0, le=1.0)]
    milestones: list[int]
    gamma: Positive
    power: Positive
    target_lr: NonNegative
    precision: Precision
    device: Device
    select_on: Literal["val", "test"]
    eval_period: Count
    test_batch_size: Count
    log_period: Count
    checkpoint_minutes: Positive
    seed: Seed

    @property
    def losses(self) -> tuple[str, ...]:
        """The named losses, in the order in which they were written."""
        return tuple(self.loss_names.split("+"))

    @field_validator("loss_names")
    @classmethod
    def _losses_are_known(cls, value: str) -> str:
        names = value.split("+")
        for name in names:
            if name not in LOSSES:
                raise ValueError(f"unknown loss {name!r}{_nearest(name, LOSSES)}; choose from {'+'.join(LOSSES)}")
        if len(set(names)) < len(names):
            raise ValueError(f"a loss is named twice in {value!r}")
        return value

    @field_validator("backbone")
    @classmethod
    def _backbone_is_known(cls, value: str) -> str:
        read_backbone(value)
        return value

    @model_validator(mode="after")
    def _values_fit_together(self) -> "TrainConfig":
        if self.sampler == "identity" and self.batch_size % self.num_instance:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by num_instance {self.num_instance}, "
                "as the identity sampler needs"
            )
        if self.warmup_epochs >= self.num_epoch:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be below num_epoch {self.num_epoch}")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} must increase")
        patch = read_backbone(self.backbone).patch_size
        if self.stride_size > patch:
            raise ValueError(f"stride_size {self.stride_size} exceeds the backbone's patch size {patch}")
        return self


class EvaluateConfig(Section):
    """How the best model is measured."""

    test_batch_size: Count
    precision: Precision
    device: Device
    bootstrap_samples: Annotated[int, Field(ge=100)]
    top_k: Count
    seed: Seed


class ReportConfig(Section):
    """Which queries are shown with what they retrieve."""

    sheet_queries: Count  # on each sheet: the best, the worst, and random ones
    seed: Seed  # of the random ones


class IndexConfig(Section):
    """Which pictures are searched, and how their embeddings are kept."""

    split: Literal["train", "val", "test"]
    dtype: Literal["float32", "float16"]
    test_batch_size: Count
    precision: Precision
    device: Device


class RegistryConfig(Section):
    """When a model becomes the champion of MLflow's registry."""

    model_name: Annotated[str, Field(min_length=1)]
    metric: Annotated[str, Field(pattern=r"^(val|test)/(t2i|i2t)/(R1|R5|R10|mAP|mINP)$")]
    threshold: Annotated[float, Field(ge=0.0, le=100.0)]  # percent


class Params(Section):
    """The whole of params.yaml."""

    prepare: PrepareConfig
    tokenize: TokenizeConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    report: ReportConfig
    index: IndexConfig
    registry: RegistryConfig

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "Params":
        check_masking(self.train, self.tokenize)
        check_image_size(self.train.backbone, self.prepare.image_size)
        synthetic = self.prepare.synthetic
        identities = self.train.batch_size // self.train.num_instance
        if synthetic and self.train.sampler == "identity" and synthetic.train_ids < identities:
            raise ValueError(
                f"prepare.synthetic.train_ids {synthetic.train_ids} is fewer than the {identities} identities "
                "of a batch (train.batch_size / train.num_instance)"
            )
        return self


def check_masking(train: TrainConfig, tokenize: TokenizeConfig) -> None:
    """Raise ValueError where `mlm` is to be trained without a masking cache."""
    if "mlm" in train.losses and tokenize.variants == 0:
        raise ValueError("train.loss_names has mlm, which needs masked tokens: set tokenize.variants to 1 or more")


def check_image_size(backbone: str, image_size: Sequence[int]) -> None:
    """Raise ValueError where a side of `image_size` is not a multiple of the backbone's patch."""
    patch = read_backbone(backbone).patch_size
    if any(side % patch for side in image_size):
        raise ValueError(
            f"prepare.image_size {list(image_size)} is not divisible by the patch size {patch} of {backbone}"
        )


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where `1e-5` is a string; DVC and everybody else read a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


SectionT = TypeVar("SectionT", bound=Section)


def load_params(path: Path) -> Params:
    """Read and check a whole parameter file; UserError names the file, the key and what would be right."""
    return load_section(Params, path, hint="; `make preset NAME=synthetic` writes one")


def load_section(kind: type[SectionT], path: Path, hint: str = "") -> SectionT:
    """Read a YAML file as `kind`; UserError names the file, the key and what would be right.

    Where there is no such file, it ends in the name of one beside it that is nearly the same, or in `hint`.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (FileNotFoundError, IsADirectoryError):
        close = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.yaml")], n=1)
        raise UserError(
            f"{path}: no such file{f'; did you mean {path.with_name(close[0])}?' if close else hint}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    return _validate(kind, data, str(path))


def change(params: Params, assignments: Sequence[str]) -> Params:
    """`params` with `assignments` such as `train.lr=1e-4`; UserError for a key or a value that cannot be."""
    data = params.model_dump()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"{assignment}: expected key=value, such as train.lr=1e-4")
        *sections, name = key.split(".")
        target: Any = data
        for section in sections:
            target = target.get(section) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise UserError(f"{key}: unknown section{_nearest(sections[0], list(data))}")
        target[name] = yaml.load(text, Loader=_Loader)
    return _validate(Params, data, "parameters")


def parse_section(kind: type[SectionT], text: str) -> SectionT:
    """Read one section from a JSON string, the form in which sections travel between containers."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{kind.__name__}: not valid JSON: {error}") from None
    return _validate(kind, data, kind.__name__)


def _validate(kind: type[SectionT], data: Any, source: str) -> SectionT:
    if not isinstance(data, dict):
        raise UserError(f"{source}: expected keys and values, found {type(data).__name__}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_explain(kind, dict(problem)) for problem in error.errors()]
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from None


def _explain(kind: type[Section], problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key{_nearest(str(problem['loc'][-1]), _keys(kind, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, found {problem['input']!r}"


def _keys(kind: type[Section], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        annotation: Any = kind.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        kind = next(option for option in options if isinstance(option, type) and issubclass(option, Section))
    return list(kind.model_fields)


def _nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"
