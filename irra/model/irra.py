"""IRRA: a CLIP backbone with the heads that its losses need."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from irra.backbones import read_config
from irra.config import TrainConfig
from irra.model.clip import create_clip, image_tokens, text_tokens
from irra.model.cross_modal import CrossModalEncoder
from irra.model.modules import CLIP

CLASSIFIER_STD = 0.001

# Parts that train at different rates: the pretrained backbone, the new cross-modal branch, the new heads.
Part = Literal["backbone", "branch", "head"]


@dataclass(frozen=True)
class ModelSpec:
    """All sizes of a model, enough to rebuild it; the weights are stored separately.

    Attributes:
        architecture: An open_clip model configuration.
        image_size: Height and width in pixels.
        stride_size: Step between patches in pixels.
        text_length: Tokens of a text, including start and end.
        temperature: Temperature of the similarities.
        num_classes: Classes of the ID classifier; None if there is none.
        cmt_depth: Transformer blocks of the cross-modal branch; None if there is none.
        mlm_ids: Token ids that the branch predicts, ascending from padding 0; None for the whole vocabulary.
    """

    architecture: dict[str, Any]
    image_size: tuple[int, int]
    stride_size: int
    text_length: int
    temperature: float
    num_classes: int | None
    cmt_depth: int | None
    mlm_ids: list[int] | None = None

    @classmethod
    def for_training(
        cls, config: TrainConfig, image_size: tuple[int, int], text_length: int, people: int, used_ids: list[int]
    ) -> "ModelSpec":
        """The sizes of the model that the losses of `config` need, for data of these sizes.

        Args:
            people: Number of identities in the training split.
            used_ids: Token ids that occur in its captions, ascending from padding 0.
        """
        mlm = "mlm" in config.losses
        return cls(
            architecture=read_config(config.backbone),
            image_size=image_size,
            stride_size=config.stride_size,
            text_length=text_length,
            temperature=config.temperature,
            num_classes=people if "id" in config.losses else None,
            cmt_depth=config.cmt_depth if mlm else None,
            mlm_ids=used_ids if mlm and config.mlm_vocabulary == "captions" else None,
        )

    @property
    def mlm_classes(self) -> int:
        """Number of tokens that MLM can predict."""
        return self.architecture["text_cfg"]["vocab_size"] if self.mlm_ids is None else len(self.mlm_ids)

    def as_dict(self) -> dict[str, Any]:
        """A dictionary that can be written as JSON."""
        return asdict(self) | {"image_size": list(self.image_size)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ModelSpec":
        """The inverse of `as_dict`."""
        return cls(**data | {"image_size": tuple(data["image_size"])})


class IRRA(nn.Module):
    """CLIP encoders with the cross-modal branch (for `mlm`) and the ID classifier (for `id`), where present."""

    mlm_class_of: Tensor | None

    def __init__(self, clip: CLIP, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.logit_scale = 1.0 / spec.temperature
        self.clip = clip
        width = clip.text_projection.shape[1]
        # saved weights use this attribute name
        self.interaction = (
            None if spec.cmt_depth is None else CrossModalEncoder(width, spec.cmt_depth, spec.mlm_classes)
        )
        self.register_buffer("mlm_class_of", _mlm_class_of(spec), persistent=False)
        self.classifier = None if spec.num_classes is None else _classifier(width, spec.num_classes)

    def forward(self, batch: dict[str, Tensor]) -> "Outputs":
        """Compute the outputs that the losses use.

        Args:
            batch: `images` (B, 3, H, W) and `caption_ids` (B, L); for masked language modelling also `mlm_ids` and
                `mlm_labels` (B, L), rows of full length. If `caption_ids` and `mlm_ids` are the same tensor object, one
                pass of the text encoder serves both.
        """
        image_tokens = self.image_tokens(batch["images"])
        mlm_tokens = self.text_tokens(batch["mlm_ids"]) if "mlm_ids" in batch else None
        if mlm_tokens is not None and batch["caption_ids"] is batch["mlm_ids"]:
            text_features = end_features(mlm_tokens, batch["mlm_ids"])
        else:
            text_features = self.encode_text(batch["caption_ids"])
        return Outputs(self, image_tokens, text_features, mlm_tokens, batch.get("mlm_labels"))

    def part_of_parameters(self) -> dict[str, Part]:
        """The part of the model that each parameter belongs to, by parameter name."""
        owner = {
            id(parameter): part
            for part, modules in self._parts().items()
            for module in modules
            for parameter in module.parameters()
        }
        unknown = [name for name, parameter in self.named_parameters() if id(parameter) not in owner]
        assert not unknown, f"IRRA._parts must say how to train {', '.join(unknown)}"
        return {name: owner[id(parameter)] for name, parameter in self.named_parameters()}

    def _parts(self) -> dict[Part, list[nn.Module]]:
        """All modules with weights, by part; a new module must be added to one of them."""
        parts: dict[Part, list[nn.Module]] = {"backbone": [self.clip], "branch": [], "head": []}
        if self.interaction is not None:
            cross = self.interaction
            parts["backbone"] += [
                cross.ln_pre_t,
                cross.ln_pre_i,
                cross.ln_post,
            ]  # at the backbone's rate, as in the released code
            parts["branch"] += [cross.cross_attn, cross.cross_modal_transformer]
            parts["head"].append(cross.mlm_head)
        if self.classifier is not None:
            parts["head"].append(self.classifier)
        return parts

    def image_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to (B, P, D); token 0 is the global feature."""
        return image_tokens(self.clip.visual, images)

    def text_tokens(self, caption_ids: Tensor) -> Tensor:
        """(B, L) token ids to (B, L, D)."""
        return text_tokens(self.clip, caption_ids)

    def encode_image(self, images: Tensor) -> Tensor:
        """Global image features (B, D) of (B, 3, H, W) normalised images: un-normalised, float32."""
        return self.image_tokens(images)[:, 0].float()

    def encode_text(self, caption_ids: Tensor) -> Tensor:
        """Global text features (B, D) of (B, L) token ids, read at the end token: un-normalised, float32."""
        return end_features(self.text_tokens(caption_ids), caption_ids)


class Outputs:
    """Model outputs for the losses; attribute names are the parameter names of the loss functions.

    A head runs when its output is first read, so losses that are not used cost nothing.

    Attributes:
        image_features, text_features: (B, D) global features, un-normalised, float32.
        logit_scale: The inverse temperature.
    """

    def __init__(
        self,
        model: IRRA,
        image_tokens: Tensor,
        text_features: Tensor,
        mlm_tokens: Tensor | None,
        mlm_labels: Tensor | None,
    ) -> None:
        self.image_features = image_tokens[:, 0].float()
        self.text_features = text_features
        self.logit_scale = model.logit_scale
        self._model = model
        self._image_tokens = image_tokens
        self._mlm_tokens = mlm_tokens
        self._mlm_labels = mlm_labels

    @cached_property
    def image_logits(self) -> Tensor:
        """(B, classes) logits of the ID classifier for the images, float32."""
        return self._classify(self.image_features)

    @cached_property
    def text_logits(self) -> Tensor:
        """(B, classes) logits of the same classifier for the texts, float32."""
        return self._classify(self.text_features)

    @cached_property
    def token_logits(self) -> Tensor:
        """(N, tokens) logits of the cross-modal branch at the N chosen positions only, float32."""
        cross = self._model.interaction
        assert cross is not None, "the model has no cross-modal branch"
        assert self._mlm_tokens is not None, "the batch has no masked words"
        fused = cross(self._mlm_tokens, self._image_tokens, self._chosen)
        logits: Tensor = cross.mlm_head(fused).float()
        return logits

    @cached_property
    def token_labels(self) -> Tensor:
        """(N,) labels of the chosen positions, as indices into the tokens that MLM predicts."""
        assert self._mlm_labels is not None, "the batch has no masked words"
        labels, class_of = self._mlm_labels[self._chosen], self._model.mlm_class_of
        return labels if class_of is None else class_of[labels]

    @cached_property
    def _chosen(self) -> Tensor:
        assert self._mlm_labels is not None, "the batch has no masked words"
        return self._mlm_labels != 0

    def _classify(self, features: Tensor) -> Tensor:
        assert self._model.classifier is not None, "the model has no ID classifier"
        logits: Tensor = self._model.classifier(features).float()
        return logits


def end_features(tokens: Tensor, caption_ids: Tensor) -> Tensor:
    """(B, D) float32 features at each row's end token, which has the highest id in the row."""
    rows = torch.arange(len(tokens), device=tokens.device)
    return tokens[rows, caption_ids.argmax(dim=1)].float()


def build_model(spec: ModelSpec, clip_weights: Path | None = None) -> IRRA:
    """Build a model with pretrained CLIP weights if given, and random new parts.

    Seed torch beforehand to get the same weights again.

    Raises:
        UserError: The CLIP weights do not fit the architecture.
    """
    clip = create_clip(spec.architecture, spec.image_size, spec.stride_size, spec.text_length, clip_weights)
    return IRRA(clip, spec)


def _mlm_class_of(spec: ModelSpec) -> Tensor | None:
    """The MLM class (V,) of each token id, 0 for ids that are never predicted; None if classes are the token ids."""
    if spec.mlm_ids is None:
        return None
    class_of = torch.zeros(spec.architecture["text_cfg"]["vocab_size"], dtype=torch.long)
    class_of[spec.mlm_ids] = torch.arange(len(spec.mlm_ids))
    return class_of


def _classifier(width: int, classes: int) -> nn.Linear:
    classifier = nn.Linear(width, classes)
    nn.init.normal_(classifier.weight, std=CLASSIFIER_STD)
    nn.init.zeros_(classifier.bias)
    return classifier
