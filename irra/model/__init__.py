"""The model: a CLIP backbone, the cross-modal branch and the ID classifier."""

from irra.model.irra import IRRA, ModelSpec, build_model

__all__ = ["IRRA", "ModelSpec", "build_model"]
