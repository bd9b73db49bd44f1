"""IRRA: a CLIP backbone with the heads that its losses need."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from irra.model.clip import create_clip, image_tokens, text_tokens
from irra.model.cross_modal import Interaction

CLASSIFIER_STD = 0.001


@dataclass(frozen=True)
class ModelSpec:
    """All sizes of a model, enough to build it again; its weights are kept elsewhere.

    architecture is an open_clip model configuration; image_size is (height, width) in pixels.
    num_classes and cmt_depth are None for a model without ID classifier or cross-modal branch. mlm_ids are the token
    ids that the latter predicts, ascending from padding 0; None for the whole vocabulary.
    """

    architecture: dict[str, Any]
    image_size: tuple[int, int]
    stride_size: int
    text_length: int
    temperature: float
    num_classes: int | None
    cmt_depth: int | None
    mlm_ids: list[int] | None = None

    @property
    def mlm_classes(self) -> int:
        """How many tokens MLM tells apart."""
        return self.architecture["text_cfg"]["vocab_size"] if self.mlm_ids is None else len(self.mlm_ids)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"image_size": list(self.image_size)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ModelSpec":
        """The inverse of as_dict."""
        return cls(**data | {"image_size": tuple(data["image_size"])})


class IRRA(nn.Module):
    """CLIP encoders with the cross-modal branch (for `mlm`) and the ID classifier (for `id`), where present."""

    mlm_class_of: Tensor | None

    def __init__(self, clip: open_clip.CLIP, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.logit_scale = 1.0 / spec.temperature
        self.clip = clip
        width = clip.text_projection.shape[1]
        self.interaction = None if spec.cmt_depth is None else Interaction(width, spec.cmt_depth, spec.mlm_classes)
        self.register_buffer("mlm_class_of", _mlm_class_of(spec), persistent=False)
        self.classifier = None if spec.num_classes is None else _classifier(width, spec.num_classes)

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


def end_features(tokens: Tensor, caption_ids: Tensor) -> Tensor:
    """(B, D) float32 features at each row's end token, which has the highest id of the row."""
    rows = torch.arange(len(tokens), device=tokens.device)
    return tokens[rows, caption_ids.argmax(dim=1)].float()


def build_model(spec: ModelSpec, clip_weights: Path | None = None) -> IRRA:
    """A model with random new parts and, where given, pretrained CLIP weights; seed torch before for equal weights."""
    clip = create_clip(spec.architecture, spec.image_size, spec.stride_size, spec.text_length, clip_weights)
    return IRRA(clip, spec)


def _mlm_class_of(spec: ModelSpec) -> Tensor | None:
    """The class of each token id (V,) for MLM, 0 for one that it never predicts; None where they are the same."""
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
