"""The model: a CLIP backbone, the cross-modal branch and the ID classifier."""

from irra.model.irra import IRRA, ModelSpec, Part, build_model

__all__ = ["IRRA", "ModelSpec", "Part", "build_model"]
