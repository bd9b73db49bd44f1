"""Put a model that passes the gate into MLflow's registry, with its gallery, and make it the champion.

python -m components.register           # prints what came of it; a model that does not pass is no error: exit status 0

What is registered can be searched and served: see components/tracking/served_model.py.
"""

import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import irra
from components import tracking
from components.gate import Decision, consult, decide, read_candidate
from components.layout import EVALUATION, INDEX, MODEL, REGISTRATION
from components.stage import main
from components.tracking.registry import Candidate, Champion, Logged, Registry, explained
from irra.checkpoint import model_fingerprint
from irra.config import RegistryConfig
from irra.layout import WEIGHTS
from irra.search.format import verify_index
from irra.search.gallery import Gallery
from irra.utils.errors import UserError
from irra.utils.files import write_json

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

LOGGED_NAME = "search"  # beside `model`, the folder that training logs to the same run
SERVED_MODEL = Path(tracking.__file__).with_name("served_model.py")
# What serving needs, and torchvision, which open_clip needs to fit torch.
PACKAGES = (
    "faiss-cpu",
    "mlflow",
    "numpy",
    "open_clip_torch",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "torch",
    "torchvision",
    "tqdm",
)


@dataclass(frozen=True)
class Inputs:
    """A trained model, the gallery that it indexed, and the report of its evaluation."""

    model: Path = MODEL
    index: Path = INDEX
    report: Path = EVALUATION


@dataclass(frozen=True)
class Outputs:
    """What came of it as JSON: what `run` returns."""

    registration: Path = REGISTRATION


def run(inputs: Inputs, outputs: Outputs, config: RegistryConfig) -> dict[str, Any]:
    """Register a model where the gate lets it pass; returns `verdict`, `reason` and, for "pass", where it is.

    UserError when the inputs do not belong together, or MLflow fails; the champion is then what it was.
    """
    candidate = read_candidate(inputs.report, config.metric)
    check_inputs(inputs, candidate)
    registry = Registry(config.model_name)
    decision = consult(registry, candidate, config)
    place: dict[str, str] = {}
    if decision.passed:
        decision, place = register(inputs, config, registry, candidate)
    result = {"verdict": "pass" if decision.passed else "fail", "reason": decision.reason, **place}
    write_json(outputs.registration, result)
    outcome = f"registered: {place['model_uri']} is the champion" if decision.passed else "not registered"
    print(f"{outcome}: {decision.reason}")
    return result


def check_inputs(inputs: Inputs, candidate: Candidate) -> None:
    """UserError unless the report and the index were made with the model."""
    if not (inputs.model / WEIGHTS).is_file():
        raise UserError(f"{inputs.model / WEIGHTS}: missing; train a model first (dvc repro train)")
    fingerprint = model_fingerprint(inputs.model)
    if candidate.model_fingerprint != fingerprint:
        raise UserError(
            f"{inputs.report} is of model {candidate.model_fingerprint[:12]}, {inputs.model} is {fingerprint[:12]}; "
            "evaluate this model (dvc repro evaluate)"
        )
    Gallery.open(inputs.index).check_model(fingerprint)
    verify_index(inputs.index)


def register(
    inputs: Inputs, config: RegistryConfig, registry: Registry, candidate: Candidate
) -> tuple[Decision, dict[str, str]]:
    """Log the model, make a version of it and move the alias; nothing of it stays when that fails."""
    logged = registry.add_model(LOGGED_NAME, candidate.model_fingerprint)
    champion: Champion | None = None
    try:
        upload(inputs, registry, logged)
        version = registry.add_version(logged, candidate.as_tags())
        champion = registry.champion()  # again: the upload took its time
        decision = decide(candidate, champion, config)
        if decision.passed:
            registry.set_champion(version)
    except BaseException:
        take_back(registry, logged, champion)
        raise
    if not decision.passed:
        take_back(registry, logged, champion)
        return decision, {}
    uri = f"models:/{config.model_name}/{version}"
    place = {"model_name": config.model_name, "version": version, "model_uri": uri, "run_id": logged.run_id}
    return decision, place


def take_back(registry: Registry, logged: Logged, champion: Champion | None) -> None:
    """Remove a logged model and its version; where MLflow does not even do that, say what is left."""
    try:
        registry.remove(logged, champion)
    except UserError as error:
        left = f"a version of {registry.model_name} may be left; delete it before registering this model again"
        print(f"warning: {error}; {left}", file=sys.stderr)


def upload(inputs: Inputs, registry: Registry, logged: Logged) -> None:
    """Pack the model, see that it answers, and send it."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder, "model")
        explained("packing the model", lambda: pack(inputs, packed, logged))
        registry.upload(logged, packed)


def pack(inputs: Inputs, folder: Path, logged: Logged) -> None:
    """Write model, gallery and the code that searches them as an MLflow model, and try it with its example."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model

    example = pd.DataFrame({"text": ["a woman with long hair in a red coat"], "top_k": [3]})
    pyfunc.save_model(
        folder,
        mlflow_model=Model(run_id=logged.run_id, model_id=logged.model_id),
        python_model=str(SERVED_MODEL),
        artifacts={"model": str(inputs.model.absolute()), "index": str(inputs.index.absolute())},
        code_paths=[str(Path(irra.__file__).parent)],
        pip_requirements=requirements(),
        signature=signature(),
        input_example=example,
    )
    pyfunc.load_model(str(folder)).predict(example)


def requirements() -> list[str]:
    """What serving needs, pinned to what is installed here; the public version where a build has a local one."""
    return [f"{name}=={version(name).split('+')[0]}" for name in PACKAGES]


def signature() -> "ModelSignature":
    """The columns of components/tracking/served_model.py."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, Object, Property, Schema

    hit = [
        Property("rank", "long"),
        Property("score", "double"),
        Property("path", "string"),
        Property("pid", "long", required=False),
    ]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "text"), ColSpec("long", "top_k", required=False)]),
        outputs=Schema([ColSpec(Array(Object(hit)), "hits")]),
    )


if __name__ == "__main__":
    raise SystemExit(main("register", run, Inputs, Outputs, section="registry"))
