"""Register a model that passes the gate in MLflow, together with its gallery, and make it the champion.

python -m components.register           # prints the outcome; exits with 0 even if the model does not pass

A registered model can be searched and served: see components/tracking/served_model.py.
"""

import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import irra
from components import tracking
from components.gate import (
    Decision,
    check_registry,
    decide,
    on_same_data,
    read_candidate,
    read_evaluated_champion,
)
from components.layout import CHAMPION, EVALUATION, INDEX, MODEL, MODEL_RUN, REGISTRATION
from components.stage import main
from components.tracking.logged_models import FILES
from components.tracking.notes import noted_run
from components.tracking.registry import Candidate, Champion, Logged, Registry, explain_failure
from irra.checkpoint import model_fingerprint
from irra.config import RegistryConfig
from irra.layout import WEIGHTS
from irra.search.folder import FolderGallery
from irra.search.format import verify_index
from irra.search.gallery import check_model
from irra.utils.errors import UserError
from irra.utils.files import write_json

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

SERVED_MODEL = Path(tracking.__file__).with_name("served_model.py")
# Needed for serving; torchvision is pinned because open_clip needs the version that matches torch.
PACKAGES = (
    "faiss-cpu",
    "ftfy",
    "mlflow",
    "numpy",
    "open_clip_torch",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "regex",
    "safetensors",
    "sqlglot",
    "torch",
    "torchvision",
    "tqdm",
)
WHERE_INSTALLED = ("lancedb",)  # an extra, for a gallery that is named when the model is loaded


@dataclass(frozen=True)
class Inputs:
    """A trained model, its index and its evaluation, perhaps the champion's, and a note of the model's MLflow run."""

    model: Path = MODEL
    index: Path = INDEX
    report: Path = EVALUATION
    champion: Path = CHAMPION
    model_run: Path = MODEL_RUN


@dataclass(frozen=True)
class Outputs:
    """The return value of `run` as JSON."""

    registration: Path = REGISTRATION


def run(inputs: Inputs, outputs: Outputs, config: RegistryConfig) -> dict[str, Any]:
    """Register a model if it passes the gate.

    Returns:
        `verdict`, `reason` and, for "pass", `model_name`, `version`, `model_uri` and `run_id`.

    Raises:
        UserError: The inputs do not belong together, or MLflow failed; the champion is unchanged.
    """
    candidate = read_candidate(inputs.report, config.metric)
    check_inputs(inputs, candidate)
    registry = Registry(config.model_name)
    again = read_evaluated_champion(inputs.champion)
    decision = check_registry(registry, candidate, config, again)
    location: dict[str, str] = {}
    if decision.passed:
        decision, location = register(inputs, config, registry, candidate, again)
    result = {"verdict": "pass" if decision.passed else "fail", "reason": decision.reason, **location}
    write_json(outputs.registration, result)
    outcome = f"registered: {location['model_uri']} is the champion" if decision.passed else "not registered"
    print(f"{outcome}: {decision.reason}")
    return result


def check_inputs(inputs: Inputs, candidate: Candidate) -> None:
    """Check that the report and the index were made with the model.

    Raises:
        UserError: They were not, or there is no model.
    """
    if not (inputs.model / WEIGHTS).is_file():
        raise UserError(f"{inputs.model / WEIGHTS}: missing; train a model first (dvc repro train)")
    fingerprint = model_fingerprint(inputs.model)
    if candidate.model_fingerprint != fingerprint:
        raise UserError(
            f"{inputs.report} is of model {candidate.model_fingerprint[:12]}, but {inputs.model} is {fingerprint[:12]}"
            "; evaluate this model (dvc repro evaluate)"
        )
    check_model(FolderGallery.open(inputs.index), fingerprint)
    verify_index(inputs.index)


def register(
    inputs: Inputs, config: RegistryConfig, registry: Registry, candidate: Candidate, again: Candidate | None
) -> tuple[Decision, dict[str, str]]:
    """Package the logged model, create a version of it and move the alias; undo this if any step fails.

    If there is a version already, because a process was killed before it could move the alias, only this is done.
    """
    if version := registry.find_version(candidate.model_fingerprint):
        return finish(config, registry, candidate, version)
    logged = registry.add_model(candidate, noted_run(inputs.model_run, candidate.model_fingerprint))
    champion: Champion | None = None
    try:
        upload(inputs, registry, logged)
        version = registry.add_version(logged, candidate.as_tags())
        champion = registry.champion()  # asked again, since the upload may have taken long
        decision = decide(candidate, on_same_data(champion, again, candidate), config)
        if decision.passed:
            registry.set_champion(version)
    except BaseException:
        undo(registry, logged, champion)
        raise
    if not decision.passed:
        undo(registry, logged, champion)
        return decision, {}
    return decision, locate(config, version, logged)


def finish(
    config: RegistryConfig, registry: Registry, candidate: Candidate, version: str
) -> tuple[Decision, dict[str, str]]:
    """Make the champion of a version that is there but passed the gate without getting the alias."""
    logged = registry.complete_version(version, candidate.as_tags())
    registry.set_champion(version)
    reason = f"version {version} of {config.model_name} holds this model, but was not the champion yet"
    return Decision(True, reason), locate(config, version, logged)


def locate(config: RegistryConfig, version: str, logged: Logged) -> dict[str, str]:
    """Where the registered model is, for the stage's result."""
    uri = f"models:/{config.model_name}/{version}"
    return {"model_name": config.model_name, "version": version, "model_uri": uri, "run_id": logged.run_id}


def undo(registry: Registry, logged: Logged, champion: Champion | None) -> None:
    """Remove the version, and the logged model if it is new; if MLflow fails at this too, warn of what may remain."""
    try:
        registry.remove(logged, champion)
    except UserError as error:
        remedy = f"a version of {registry.model_name} may be left; delete it before registering this model again"
        print(f"warning: {error}; {remedy}", file=sys.stderr)


def upload(inputs: Inputs, registry: Registry, logged: Logged) -> None:
    """Package the model, check that it answers a query, and upload it."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "package")
        explain_failure("packaging the model", lambda: write_package(inputs, package, logged))
        registry.upload(logged, package)


def write_package(inputs: Inputs, folder: Path, logged: Logged) -> None:
    """Write the model, its index and the search code as an MLflow model, and run its example query."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model

    example = pd.DataFrame({"text": ["a woman with long hair in a red coat"], "top_k": [3]})
    pyfunc.save_model(
        folder,
        mlflow_model=Model(run_id=logged.run_id, model_id=logged.model_id),
        python_model=str(SERVED_MODEL),
        artifacts={
            "model": str(named(inputs.model, Path(FILES).name, folder.parent)),
            "index": str(named(inputs.index, "index", folder.parent)),
        },
        code_paths=[str(Path(irra.__file__).parent)],
        pip_requirements=requirements(),
        signature=signature(),
        input_example=example,
        model_config={"index": None},  # what may be given when the model is loaded
    )
    pyfunc.load_model(str(folder)).predict(example)


def named(folder: Path, name: str, scratch: Path) -> Path:
    """The folder, or a copy in `scratch`, under the name that it shall have in the package: MLflow keeps names."""
    return folder.absolute() if folder.name == name else Path(shutil.copytree(folder, scratch / name))


def requirements() -> list[str]:
    """Packages needed for serving, pinned to the installed versions without local parts such as `+cpu`."""
    names = [*PACKAGES, *(name for name in WHERE_INSTALLED if find_spec(name))]
    return [f"{name}=={version(name).split('+')[0]}" for name in names]


def signature() -> "ModelSignature":
    """The input and output columns of components/tracking/served_model.py."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, Object, Property, Schema

    hit = [
        Property("rank", "long"),
        Property("score", "double"),
        Property("path", "string"),
        Property("pid", "long", required=False),
        Property("metadata", AnyType(), required=False),
        Property("span", AnyType(), required=False),
    ]
    # A column of type long must have a number in each row, and one of lists a list.
    optional = [ColSpec(AnyType(), name, required=False) for name in ("top_k", "also_says", "where")]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "text"), *optional]),
        outputs=Schema([ColSpec(Array(Object(hit)), "hits"), ColSpec("string", "note", required=False)]),
    )


if __name__ == "__main__":
    raise SystemExit(main("register", run, Inputs, Outputs, section="registry"))
