"""The section `train` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from irra.backbones import read_config, read_patch_size
from irra.config.messages import nearest
from irra.config.section import (
    ConfigSection,
    Count,
    CountOrZero,
    Device,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Seed,
    Share,
    param,
)

LOSSES = ("sdm", "mlm", "id", "itc", "cmpm", "tal", "trl", "nitc", "citc")
BY_PAIR = {"tal", "trl"}  # losses of single pairs, by which CCD can tell wrong captions
COMPARING = set(LOSSES) - {"id", "mlm"}  # losses of features, which train those of selected tokens too
WITH_TEMPERATURE = {"sdm", "itc", "nitc"}
SMALLEST_HALF = 2.0**-24  # the smallest float16 above 0
Depth = Annotated[int, Field(ge=1, le=100)]
Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
TrainPrecision = Literal["fp32", "tf32", "bf16", "fp16", "fp16-weights"]
WarmupFactor = Annotated[float, Field(gt=0.0, le=1.0)]


class TrainConfig(ConfigSection):
    """The model, its losses and its optimisation; keys are named after IRRA's released options where those exist."""

    backbone: str = param("ViT-B-16-quickgelu", "any ViT CLIP of open_clip, or irra-small, irra-tiny")
    pretrained: Name | None = param("openai", "a weight tag of open_clip, a local file, or null: from scratch")
    init_from: Name | None = param(None, "instead of pretrained: a model folder, or a released checkpoint")
    stride_size: Count = param(16, "below the patch size, patches overlap")
    cmt_depth: Depth = param(4, "transformer blocks of the cross-modal branch")
    mlm_vocabulary: Literal["all", "captions"] = param("all", "MLM predicts any token, or those of training captions")
    token_selection: Ratio | None = param(None, "RDE: also a feature of this share of the tokens; null: none")
    tse_norm: Literal["frozen", "batch"] = param("frozen", "RDE: batch norm of the selected tokens; frozen: affine")
    loss_names: str = param("sdm+mlm+id", f"any of {', '.join(LOSSES)} joined by +")
    temperature: Positive = param(0.02, "of SDM, ITC, N-ITC; the lower, the more the nearest rivals count")
    temperature_start: Positive | None = param(None, "in the first epoch, falling to temperature; null: constant")
    learn_temperature: bool = param(False, "trained from temperature on, never below 0.01")
    sdm_epsilon: Positive = param(1e-8, "SDM: added to its labels; 1e-2 bounds what a wrong caption can cost")
    soft_labels: bool = param(False, "SDM: another image of the person counts 0.3 instead of 1")
    mask_global_text: bool = param(True, "true: SDM and ID see the masked caption too, as in the released code")
    nitc_alpha: Fraction = param(0.5, "N-ITC: share of the model's own softmax in the labels, from 0 in epoch 1")
    tau: Positive = param(0.015, "TAL, TRL: the lower, the more the hardest negative counts")
    margin: NonNegative = param(0.1, "TAL, TRL: by which a match must be nearer than the negatives")
    sdm_loss_weight: NonNegative = param(1.0, "of SDM in the sum of the losses")
    citc_loss_weight: NonNegative = param(0.1, "of C-ITC in the sum of the losses")
    tal_loss_weight: NonNegative = param(1.0, "of TAL, a sum over pairs where others are means, in the sum of losses")
    id_loss_weight: NonNegative = param(1.0, "of ID in the sum of the losses")
    mlm_loss_weight: NonNegative = param(1.0, "of MLM in the sum of the losses")
    ccd: Literal["none", "plain", "augmented"] = param(
        "none", "drop captions that fit badly from TAL, by losses of such images"
    )
    ccd_start: Count = param(1, "CCD: the first epoch for which captions are dropped")
    ccd_fit: Literal["loose", "tight"] = param("loose", "CCD: of the mixtures; tight: more iterations, to the end")
    img_aug: bool = param(
        True, "change training images at random; false: not even the flip, unlike in the released code"
    )
    img_transforms: Literal["irra", "tbps-clip"] = param("irra", "irra: flip, crop, erase; tbps-clip: two of six")
    txt_aug: Literal["none", "rde", "eda"] = param("none", "rde: mask, replace, delete tokens; eda: delete words")
    sampler: Literal["random", "identity"] = param("random", "identity: num_instance samples of each person in a batch")
    batch_size: Count = param(64, "captions, each with its image")
    num_instance: Count = param(4, "identity sampler: samples of a person; batch_size / num_instance people")
    num_epoch: Count = param(60, "passes over the training captions")
    optimizer: Literal["Adam", "AdamW", "SGD"] = param("Adam", "Adam adds weight decay to the gradient, AdamW does not")
    lr: Positive = param(1e-5, "of the backbone, after the warm-up")
    lr_factor: Positive = param(5.0, "multiplies lr for the cross-modal branch and the heads")
    bias_lr_factor: Positive = param(2.0, "multiplies lr for biases, except those of the heads")
    weight_decay: NonNegative = param(4e-5, "of all but biases")
    decay_vectors: bool = param(True, "false: no weight decay of layer norms and other vectors")
    weight_decay_bias: NonNegative = param(0.0, "of biases")
    alpha: Share = param(0.9, "Adam's beta1")
    beta: Share = param(0.999, "Adam's beta2")
    eps: Positive = param(1e-3, "Adam's epsilon")
    momentum: Share = param(0.9, "of SGD")
    lrscheduler: Literal["cosine", "step", "exp", "poly", "linear"] = param("cosine", "after the warm-up")
    schedule_unit: Literal["epoch", "step"] = param("epoch", "when the learning rates change")
    warmup_method: Literal["linear", "constant"] = param("linear", "linear: rises to lr; constant: stays at its start")
    warmup_epochs: CountOrZero = param(5, "before the schedule")
    warmup_factor: WarmupFactor = param(0.1, "multiplies lr at the start of the warm-up")
    milestones: list[int] = param([20, 50], "step: epochs after which the rate falls")
    gamma: Positive = param(0.1, "step: multiplies the rate at each milestone")
    power: Positive = param(0.9, "exp, poly: the base of the power")
    target_lr: NonNegative = param(0.0, "cosine, poly: the final rate")
    freeze_patches: bool = param(False, "whether the patch embedding keeps its pretrained weights")
    text_dropout: Share = param(0.0, "of attention weights in the text encoder; each process draws its own")
    precision: TrainPrecision = param("fp16", "of the forward pass; weights are fp32, or fp16-weights as released")
    compile: Literal["auto", "on", "off"] = param("auto", "the encoders; auto: on a GPU, in trainings of many steps")
    micro_batch: Count | None = param(None, "samples encoded at once, so that any batch fits; null: the whole batch")
    recompute: bool = param(False, "compute each block twice instead of keeping what it computed: less memory")
    device: Device = param("auto", "auto: the first of the others that is available")
    select_on: Literal["val", "test"] = param("val", "the split that selects the best epoch; test: as in the paper")
    eval_period: Count = param(1, "epochs between two evaluations on that split")
    test_batch_size: Count = param(512, "images or captions encoded at once")
    log_period: Count = param(50, "steps between two logged losses")
    checkpoint_minutes: Positive = param(10.0, "between two saved states, from which stopped training resumes")
    seed: Seed = param(1, "of initial weights, batches and augmentation")

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses, in the order of `loss_names`."""
        return tuple(self.loss_names.split("+"))

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each loss: for loss `x` the parameter `x_loss_weight`, or 1 if there is none."""
        return {name: getattr(self, f"{name}_loss_weight", 1.0) for name in self.losses}

    @field_validator("loss_names")
    @classmethod
    def _losses_are_known(cls, value: str) -> str:
        names = value.split("+")
        for name in names:
            if name not in LOSSES:
                raise ValueError(f"unknown loss {name!r}{nearest(name, LOSSES)}; choose from {'+'.join(LOSSES)}")
        if len(set(names)) < len(names):
            raise ValueError(f"a loss is named twice in {value!r}")
        return value

    @field_validator("backbone")
    @classmethod
    def _backbone_is_known(cls, value: str) -> str:
        read_config(value)
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
        if self.ccd != "none" and BY_PAIR.isdisjoint(self.losses):
            raise ValueError(f"ccd {self.ccd} divides captions by tal or trl; name one of them in loss_names")
        if self.ccd != "none" and self.ccd_start > self.num_epoch:
            raise ValueError(f"ccd_start {self.ccd_start} is behind the last epoch, {self.num_epoch}")
        if self.token_selection is not None and COMPARING.isdisjoint(self.losses):
            raise ValueError(
                f"token_selection is trained by {', '.join(sorted(COMPARING))} alone, and {self.loss_names} has none "
                "of them"
            )
        if self.txt_aug != "none" and self.mask_global_text and "mlm" in self.losses:
            raise ValueError(
                f"txt_aug {self.txt_aug} has no effect while mask_global_text is true, by which every loss sees the "
                "masked caption; set train.mask_global_text: false"
            )
        if self.precision == "fp16-weights" and self.optimizer != "SGD" and self.eps < SMALLEST_HALF:
            raise ValueError(
                f"eps {self.eps} is less than any number of fp16-weights, and {self.optimizer} would divide by 0; "
                "1e-3 is the published one"
            )
        if self.learn_temperature and WITH_TEMPERATURE.isdisjoint(self.losses):
            raise ValueError("learn_temperature needs sdm, itc or nitc in loss_names; no other loss has a temperature")
        if self.learn_temperature and self.temperature_start is not None:
            raise ValueError("learn_temperature starts at temperature; leave temperature_start at null")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} must increase")
        patch = read_patch_size(self.backbone)
        if self.stride_size > patch:
            raise ValueError(f"stride_size {self.stride_size} exceeds the backbone's patch size {patch}")
        return self
