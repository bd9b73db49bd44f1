"""Before a compiled pipeline is submitted: read it back, type its arguments, check its image."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from irra.utils.errors import UserError

TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
EXACT = 2**53  # KFP stores every number as a double
IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


def check_image(image: str) -> None:
    """Check that `image` names one fixed image: by digest, or by a tag other than `latest`.

    KFP's cache keys contain the image's name. If the name moves, the cache returns results of other code.

    Raises:
        UserError: `image` is not a valid reference, or its name can move.
    """
    match = IMAGE.fullmatch(image)
    if not match:
        raise UserError(f"image {image!r} is not a reference such as registry/name:tag")
    if not match["digest"] and match["tag"] in (None, "latest"):
        raise UserError(
            f"image {image!r} has {'the moving tag latest' if match['tag'] else 'no tag'}, so the cache could return "
            "results of other code; tag it by commit, such as name:1a2b3c4"
        )


def check_committed(image: str) -> None:
    """Check that `image` was built from committed code; the next uncommitted build would have the same name.

    Raises:
        UserError: The tag ends with `-dirty`.
    """
    if image.endswith("-dirty"):
        raise UserError(
            f"image {image!r} was built from code that is not committed, so the cache could return results of other "
            "code; commit and build it again, or submit with --no-cache"
        )


def has_registry(image: str) -> bool:
    """Whether an image reference begins with a host; without one it refers to Docker Hub."""
    host, slash, _ = image.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")


def read_package(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the pipeline spec and the platform spec (empty if there is none) of a compiled pipeline.

    Raises:
        UserError: The file is missing or is not a compiled pipeline.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there: compile the pipeline first")
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
        if len(documents) not in (1, 2) or not all(isinstance(document, dict) for document in documents):
            raise ValueError("it needs one or two documents of keys and values")
        spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        platform = json_format.ParseDict(dict(*documents[1:]), pipeline_spec_pb2.PlatformSpec())
        if not spec.pipeline_info.name or not spec.root.dag.tasks:
            raise ValueError("it has no name or no tasks")
    except (yaml.YAMLError, json_format.ParseError, ValueError) as error:
        raise UserError(f"{path} is not a compiled pipeline: {' '.join(str(error).split())}") from error
    return json_format.MessageToDict(spec), json_format.MessageToDict(platform)


def typed_arguments(package: Path, spec: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Convert `arguments` to the types that the pipeline defines.

    Raises:
        UserError: An argument is unknown, missing or of the wrong type.
    """
    defined = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in arguments:
        if name not in defined:
            close = difflib.get_close_matches(name, defined, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(defined)) or 'none'}"
            raise UserError(f"{package} has no parameter {name!r}; {hint}")
    for name, definition in defined.items():
        if name not in arguments and "defaultValue" not in definition and not definition.get("isOptional"):
            raise UserError(f"{package}: parameter {name!r} has no default and needs a value")
    return {name: _typed(package, name, value, defined[name]["parameterType"]) for name, value in arguments.items()}


def _typed(package: Path, name: str, value: Any, kind: str) -> Any:
    wrong = UserError(f"{package}: parameter {name!r} is {kind}, found {value!r}")
    try:
        if isinstance(value, str) and kind != "STRING":
            value = json.loads(value.lower() if kind == "BOOLEAN" else value)
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if not isinstance(value, TYPES.get(kind, object)) or (isinstance(value, bool) and kind != "BOOLEAN"):
        raise wrong
    if inexact := [number for number in _integers(value) if abs(number) > EXACT]:
        held = f"is {value}" if value == inexact[0] else f"holds {inexact[0]}"
        raise UserError(f"{package}: parameter {name!r} {held}, but KFP keeps integers exactly only up to {EXACT}")
    return value


def _integers(value: Any) -> Iterator[int]:
    """Yield all integers in a value, also those in lists and dictionaries."""
    match value:
        case dict() | list():
            for item in value.values() if isinstance(value, dict) else value:
                yield from _integers(item)
        case int():
            yield value
