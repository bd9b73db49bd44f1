"""The base class of all sections of a parameter file, and the value types that they share."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f]*$")]  # no control characters
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # accepted by both numpy and torch
Split = Literal["train", "val", "test"]
Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class ConfigSection(BaseModel):
    """A section of a parameter file: frozen, strict about types, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


def param(default: Any, comment: str) -> Any:
    """A key of params.yaml: its default, and the comment written next to it, after the values that it may have."""
    return Field(default, description=comment)


def section_of(annotation: Any) -> type[ConfigSection] | None:
    """The section class in an annotation, alone or in a union; None if the annotation is that of a plain value."""
    options = (annotation, *getattr(annotation, "__args__", ()))
    return next((kind for kind in options if isinstance(kind, type) and issubclass(kind, ConfigSection)), None)
