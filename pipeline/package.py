"""A compiled pipeline before it is submitted: read back, its arguments typed, its image checked."""

import difflib
import json
import re
from collections.abc import Mapping
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
EXACT = 2**53  # KFP carries every number as a double
IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


def check_image(image: str) -> None:
    """UserError unless `image` has a digest or a tag other than `latest`.

    KFP's cache keys hold the image's name, so under a name that moves, results of other code would be taken.
    """
    match = IMAGE.fullmatch(image)
    if not match:
        raise UserError(f"image {image!r} is not a reference such as registry/name:tag")
    if not match["digest"] and match["tag"] in (None, "latest"):
        raise UserError(
            f"image {image!r} has {'the moving tag latest' if match['tag'] else 'no tag'}, and cached results of other "
            "code would be taken for its own; tag it by commit, such as name:1a2b3c4"
        )


def check_committed(image: str) -> None:
    """UserError when `image` is tagged as made of uncommitted code, of which the next one would have the same name."""
    if image.endswith("-dirty"):
        raise UserError(
            f"image {image!r} is made of code that is not committed, and cached results of other code would be taken "
            "for its own; commit and build it again, or submit with --no-cache"
        )


def has_registry(image: str) -> bool:
    """Whether a reference begins with a host; without one it is Docker Hub's."""
    host, slash, _ = image.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")


def read_package(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline spec and the platform spec (empty when there is none) of a compiled pipeline.

    UserError when the file is missing, no YAML, or something else than a compiled pipeline.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there: compile the pipeline first")
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
        if len(documents) not in (1, 2) or not all(isinstance(document, dict) for document in documents):
            raise ValueError("one or two documents of keys and values are needed")
        spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        platform = json_format.ParseDict(dict(*documents[1:]), pipeline_spec_pb2.PlatformSpec())
        if not spec.pipeline_info.name or not spec.root.dag.tasks:
            raise ValueError("it has no name or no tasks")
    except (yaml.YAMLError, json_format.ParseError, ValueError) as error:
        raise UserError(f"{path} is not a compiled pipeline: {' '.join(str(error).split())}") from error
    return json_format.MessageToDict(spec), json_format.MessageToDict(platform)


def typed_arguments(package: Path, spec: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` with the types that the pipeline defines; UserError for an unknown, a wrong or a missing one."""
    defined = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in arguments:
        if name not in defined:
            close = difflib.get_close_matches(name, defined, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(defined)) or 'none'}"
            raise UserError(f"{package} has no parameter {name!r}; {hint}")
    for name, definition in defined.items():
        if name not in arguments and "defaultValue" not in definition and not definition.get("isOptional"):
            raise UserError(f"{package}: parameter {name!r} has no default, so it needs a value")
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
    if isinstance(value, int) and abs(value) > EXACT:
        raise UserError(f"{package}: parameter {name!r} is {value}, and KFP keeps integers only up to {EXACT}")
    return value
