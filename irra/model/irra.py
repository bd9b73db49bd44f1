"""IRRA: a CLIP backbone with the heads that its losses need."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from irra.backbones import read_config
from irra.config import TrainConfig
from irra.model.clip import Encoded, create_clip, encode_image, encode_text, image_tokens, text_tokens
from irra.model.cross_modal import CrossModalEncoder
from irra.model.modules import CLIP
from irra.model.token_selection import EXPANSION, TokenSelection, joint

CLASSIFIER_STD = 0.001
LOWEST_TEMPERATURE = 0.01

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
        token_selection: Share of the tokens from which a second feature is made; None if there is none.
        tse_norm: Its batch norm in training, "frozen" or "batch".
        learn_temperature: Whether the temperature is trained.
    """

    architecture: dict[str, Any]
    image_size: tuple[int, int]
    stride_size: int
    text_length: int
    temperature: float
    num_classes: int | None
    cmt_depth: int | None
    mlm_ids: list[int] | None = None
    token_selection: float | None = None
    tse_norm: str = "frozen"
    learn_temperature: bool = False

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
            token_selection=config.token_selection,
            tse_norm=config.tse_norm,
            learn_temperature=config.learn_temperature,
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


class Features(NamedTuple):
    """What the encoders give for a batch of pairs, before heads act on it.

    Attributes:
        images, texts: (B, D) global features.
        fused: (B, M, D) of the cross-modal branch at masked words, where there are any.
        patches, words: (B, k, D) of selected tokens, where the model selects any.
        kept: (B, k) bool, which of the words are words.
    """

    images: Tensor
    texts: Tensor
    fused: Tensor | None = None
    patches: Tensor | None = None
    words: Tensor | None = None
    kept: Tensor | None = None


class IRRA(nn.Module):
    """CLIP encoders with the cross-modal branch (for `mlm`) and the ID classifier (for `id`), where present.

    With `token_selection`, an embedding has two parts of unit length, divided by the square root of 2: the global
    feature, and that of the selected tokens (RDE). Its cosine similarities are the means of those of the parts.

    Attributes:
        logit_scale: The inverse temperature, unless `log_scale`, its logarithm, is trained.
        micro_batch: Samples that `forward` encodes at once, so that memory does not grow with the batch (GradCache, Gao
            et al., 2021: features without graph, then each part once more with it); None for all.
        recompute: Whether the backward pass computes each residual block again instead of keeping its activations.
    """

    mlm_class_of: Tensor | None

    def __init__(self, clip: CLIP, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.logit_scale = 1.0 / spec.temperature
        self.micro_batch: int | None = None
        self.recompute = False
        self._is_compiled = False
        self.clip = clip
        width = clip.text_projection.shape[1]
        # saved weights use this attribute name
        self.interaction = (
            None if spec.cmt_depth is None else CrossModalEncoder(width, spec.cmt_depth, spec.mlm_classes)
        )
        self.register_buffer("mlm_class_of", _mlm_class_of(spec), persistent=False)
        self.classifier = None if spec.num_classes is None else _classifier(width, spec.num_classes)
        self.token_selection = (
            None if spec.token_selection is None else TokenSelection(width, by_batch=spec.tse_norm == "batch")
        )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(spec.temperature))) if spec.learn_temperature else None

    @property
    def embedding_width(self) -> int:
        """Dimensions of an embedding, of an image or a text."""
        return sum(self.embedding_parts)

    @property
    def embedding_parts(self) -> tuple[int, ...]:
        """Dimensions of the parts of an embedding: the global feature, and that of the selected tokens if there is."""
        width: int = self.clip.text_projection.shape[1]
        return (width,) if self.token_selection is None else (width, EXPANSION * width)

    def forward(self, batch: dict[str, Tensor]) -> "Outputs":
        """Compute the outputs that the losses use.

        Args:
            batch: `images` (B, 3, H, W) and `caption_ids` (B, L); for masked language modelling also `mlm_ids` and
                `mlm_labels` (B, L), rows of full length, with `mlm_positions` and `mlm_slots` as `place_chosen` finds
                them. Without `caption_ids`, one pass of the text encoder over `mlm_ids` serves both branches. `real`
                (B,) bool says which samples are none that only fill a batch; without it, all are.
        """
        size = self.micro_batch or len(batch["images"])
        names = [name for name in ("images", "caption_ids", "mlm_ids", "mlm_positions") if name in batch]
        parts = zip(*(torch.split(batch[name], size) for name in names), strict=True)
        encode: Callable[..., Features] = self._features
        if size < len(batch["images"]):  # the backward pass encodes each part again, and holds one at a time
            encode = partial(checkpoint, self._features, use_reentrant=False)
        encoded = [encode(dict(zip(names, part, strict=True))) for part in parts]
        features = Features(*(_joined(values) for values in zip(*encoded, strict=True)))  # type: ignore[arg-type]
        return Outputs(self, features, self._select(features, batch.get("real")), batch)

    def _select(self, features: Features, real: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """The features (B, E) of the selected tokens of images and texts; of the whole batch, for its statistics."""
        if self.token_selection is None:
            return None
        assert features.patches is not None
        assert features.words is not None
        assert features.kept is not None
        patches, words = features.patches.new_ones(features.patches.shape[:2], dtype=torch.bool), features.kept
        if real is not None:
            patches, words = patches & real[:, None], words & real[:, None]
        images = self.token_selection.image(features.patches, patches)
        return _wide(images), _wide(self.token_selection.text(features.words, words))

    def compile_encoders(self, backend: str = "inductor") -> None:
        """Compile what `forward` runs but the heads, as one graph; encoders called on their own stay as they are."""
        self._features = torch.compile(self._features, fullgraph=True, backend=backend)  # type: ignore[method-assign]
        self._is_compiled = True

    def uncompiled(self) -> AbstractContextManager[Any]:
        """Context in which `forward` runs as if the encoders had not been compiled."""
        return torch.compiler.set_stance("force_eager") if self._is_compiled else nullcontext()

    def _features(self, batch: dict[str, Tensor]) -> Features:
        images, caption_ids, mlm_ids = (batch.get(name) for name in ("images", "caption_ids", "mlm_ids"))
        assert images is not None
        image = self._image(images, all_tokens=mlm_ids is not None)
        masked = None if mlm_ids is None else self._text(mlm_ids, all_tokens=True)
        text = masked if caption_ids is None else self._text(caption_ids)
        assert text is not None
        fused = None
        if masked is not None:
            assert self.interaction is not None, "the model has no cross-modal branch"
            assert masked.tokens is not None
            assert image.tokens is not None
            fused = self.interaction(masked.tokens, image.tokens, batch["mlm_positions"], self.recompute)
        return Features(_wide(image.feature), _wide(text.feature), fused, image.selected, text.selected, text.kept)

    def _image(self, images: Tensor, all_tokens: bool = False) -> Encoded:
        return encode_image(self.clip.visual, images, all_tokens, self.spec.token_selection, self.recompute)

    def _text(self, caption_ids: Tensor, all_tokens: bool = False) -> Encoded:
        return encode_text(self.clip, caption_ids, all_tokens, self.spec.token_selection, self.recompute)

    def part_of_parameters(self) -> dict[str, Part]:
        """The part of the model that each parameter belongs to, by parameter name."""
        owner = {
            id(parameter): part
            for part, modules in self._parts().items()
            for module in modules
            for parameter in module.parameters()
        }
        if self.log_scale is not None:
            owner[id(self.log_scale)] = "backbone"  # as in CLIP
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
        parts["head"] += [head for head in (self.classifier, self.token_selection) if head is not None]
        return parts

    def image_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to (B, P, D); token 0 is the global feature."""
        return image_tokens(self.clip.visual, images, self.recompute)

    def text_tokens(self, caption_ids: Tensor) -> Tensor:
        """(B, L) token ids to (B, L, D)."""
        return text_tokens(self.clip, caption_ids, self.recompute)

    def encode_image(self, images: Tensor) -> Tensor:
        """Embeddings (B, `embedding_width`) of (B, 3, H, W) normalised images: float32, of any norm."""
        return self._embedding(self._image(images), self.token_selection and self.token_selection.image)

    def encode_text(self, caption_ids: Tensor) -> Tensor:
        """Embeddings (B, `embedding_width`) of (B, L) token ids, read at the end token: float32, of any norm."""
        return self._embedding(self._text(caption_ids), self.token_selection and self.token_selection.text)

    @staticmethod
    def _embedding(encoded: Encoded, head: nn.Module | None) -> Tensor:
        feature = _wide(encoded.feature)
        return feature if head is None else joint(feature, _wide(head(encoded.selected, encoded.kept)))

    @property
    def inverse_temperature(self) -> "Tensor | float":
        """What similarities are multiplied by before a softmax: a tensor if it is trained."""
        return self.logit_scale if self.log_scale is None else self.log_scale.exp()

    @torch.no_grad()
    def limit_temperature(self) -> None:
        """Keep a trained temperature at 0.01 or above, as in CLIP."""
        if self.log_scale is not None:
            self.log_scale.clamp_(max=-math.log(LOWEST_TEMPERATURE))


class Outputs:
    """Model outputs for the losses; attribute names are the parameter names of the loss functions.

    A head runs when its output is first read, so losses that are not used cost nothing.

    Attributes:
        image_features, text_features: (B, D) global features, un-normalised, float32.
        selected: Those of the selected tokens, both (B, E), if the model selects any.
        logit_scale: The inverse temperature.
    """

    def __init__(
        self, model: IRRA, features: Features, selected: tuple[Tensor, Tensor] | None, batch: dict[str, Tensor]
    ) -> None:
        self.image_features = features.images
        self.text_features = features.texts
        self.selected = selected
        self.logit_scale = model.inverse_temperature
        self._model = model
        self._fused = features.fused
        self._batch = batch

    def first(self, rows: int) -> "Outputs":
        """The outputs for the first `rows` samples; what follows them is padding, which has no masked words."""
        return self.with_features(lambda features: features[:rows])

    def with_features(self, change: Callable[[Tensor], Tensor]) -> "Outputs":
        """The outputs with all features changed, for losses yet to be computed."""
        features = Features(change(self.image_features), change(self.text_features), self._fused)
        selected = self.selected and (change(self.selected[0]), change(self.selected[1]))
        return Outputs(self._model, features, selected, self._batch)

    def views(self) -> list["Outputs"]:
        """The outputs as a loss that compares pairs sees them: with global features, and with those of tokens."""
        others = [] if self.selected is None else [Outputs(self._model, Features(*self.selected), None, self._batch)]
        return [self, *others]

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
        assert self._fused is not None, "the batch has no masked words"
        return _wide(cross.mlm_head(self._fused.flatten(0, 1)[self._batch["mlm_slots"]]))

    @cached_property
    def token_labels(self) -> Tensor:
        """(N,) labels of the chosen positions, as indices into the tokens that MLM predicts."""
        assert self._fused is not None, "the batch has no masked words"
        at_positions = self._batch["mlm_labels"].gather(1, self._batch["mlm_positions"])
        labels, class_of = at_positions.flatten()[self._batch["mlm_slots"]], self._model.mlm_class_of
        return labels if class_of is None else class_of[labels]

    def _classify(self, features: Tensor) -> Tensor:
        assert self._model.classifier is not None, "the model has no ID classifier"
        return _wide(self._model.classifier(features))


def _wide(x: Tensor) -> Tensor:
    """`x` in float32, unless it has more bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The parts as one tensor; None if there are none."""
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) > 1 else next(iter(present), None)


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
