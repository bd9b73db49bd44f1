"""The stages as Kubeflow components: each function turns artifacts into paths and calls the stage's `run`.

kfp ships only the source of a function's body, so every function has its own imports. `pipeline.graph` sets the image.
"""

from kfp import dsl

IMAGE = "python:3.11"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(config: str, prepared: dsl.Output[dsl.Dataset], report: dsl.Output[dsl.HTML]) -> None:
    """Read a dataset, decode and resize its images once, and store them with their captions."""
    from pathlib import Path

    from components import prepare as stage
    from components.kubeflow import reporting_folder, running_stage
    from components.report import draw_dataset, write_chapter
    from irra.config import PrepareConfig, parse_section

    with running_stage(), reporting_folder() as folder:
        outputs = stage.Outputs(prepared=Path(prepared.path), downloads=folder / "downloads")
        stats = stage.run(stage.Inputs(), outputs, parse_section(PrepareConfig, config))
        write_chapter(Path(report.path), draw_dataset(outputs.prepared, folder))
    prepared.metadata.update({name: stats[name] for name in ("dataset_name", "fingerprint", "splits")})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tokenize(config: str, prepared: dsl.Input[dsl.Dataset], tokens: dsl.Output[dsl.Dataset]) -> None:
    """Turn captions into token ids, and draw the masking cache for MLM."""
    from pathlib import Path

    from components import tokenize as stage
    from components.kubeflow import running_stage
    from irra.config import TokenizeConfig, parse_section

    with running_stage():
        inputs, outputs = stage.Inputs(Path(prepared.path)), stage.Outputs(Path(tokens.path))
        info = stage.run(inputs, outputs, parse_section(TokenizeConfig, config))
    facts = ("captions", "longest_caption", "cut_captions", "mask_draws", "fingerprint", "data_fingerprint")
    tokens.metadata.update({name: info[name] for name in facts})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: str,
    checkpoints: str,
    kfp_run: str,
    prepared: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    index_config: str = "",
    registry_config: str = "",
) -> None:
    """Train IRRA, validate after every epoch and keep the best weights."""
    from pathlib import Path

    from components import train as stage
    from components.kubeflow import reporting_folder, running_stage
    from components.report import draw_dataset, draw_training, log, write_chapter
    from irra.checkpoint import read_model_metadata
    from irra.config import IndexConfig, RegistryConfig, TrainConfig, parse_section

    with running_stage(kfp_run), reporting_folder() as folder:
        inputs, section = stage.Inputs(Path(prepared.path), Path(tokens.path)), parse_section(TrainConfig, config)
        if index_config and registry_config:  # an ablation has neither
            later = parse_section(IndexConfig, index_config), parse_section(RegistryConfig, registry_config)
            stage.check_splits(inputs, section, *later)
        outputs = stage.Outputs(Path(model.path), folder, Path(model.path + ".checkpoints"), checkpoints)
        result = stage.run(inputs, outputs, section)
        training = draw_training(folder, read_model_metadata(outputs.model), folder)
        write_chapter(Path(report.path), training)
        log([draw_dataset(inputs.prepared, folder), training], result["model_fingerprint"])
    facts = {name: result[name] for name in ("model_fingerprint", "run_id")}
    model.metadata.update({name: fact for name, fact in facts.items() if fact is not None})  # KFP fails on null
    metrics.metadata.update(result["selected"])


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config: str,
    report_config: str,
    prepared: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    results: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Measure a model on val and test, both ways, and show what it retrieves."""
    from pathlib import Path

    from components import evaluate as stage
    from components.kubeflow import reporting_folder, running_stage
    from components.report import draw_evaluation, log, write_chapter
    from irra.config import EvaluateConfig, ReportConfig, parse_section
    from irra.utils.nested import flatten

    found = Path(results.path)
    with running_stage(), reporting_folder() as folder:
        inputs = stage.Inputs(Path(prepared.path), Path(tokens.path), Path(model.path))
        outputs = stage.Outputs(report=found, rankings=found / "rankings.parquet")
        shown = parse_section(ReportConfig, report_config)
        measured = stage.run(inputs, outputs, parse_section(EvaluateConfig, config))
        evaluation = draw_evaluation(found, outputs.rankings, inputs.prepared, shown, folder)
        write_chapter(Path(report.path), evaluation)
        log([evaluation], measured["model"]["fingerprint"])
    metrics.metadata.update(flatten(measured["metrics"], "/"))
    results.metadata.update({name: measured["model"][name] for name in ("fingerprint", "dataset", "data_fingerprint")})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def index(
    config: str,
    prepared: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    gallery: dsl.Output[dsl.Dataset],
) -> None:
    """Encode a gallery, so that it can be searched."""
    from pathlib import Path

    from components import index as stage
    from components.kubeflow import running_stage
    from irra.config import IndexConfig, parse_section

    with running_stage():
        inputs, outputs = stage.Inputs(Path(prepared.path), Path(model.path)), stage.Outputs(Path(gallery.path))
        facts = stage.run(inputs, outputs, parse_section(IndexConfig, config))
    gallery.metadata.update(facts)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(config: str, results: dsl.Input[dsl.Artifact], reason: dsl.Output[dsl.Markdown]) -> str:
    """Return `pass` if a model is good enough, and better than the champion on the same data."""
    from pathlib import Path

    from components import gate as stage
    from components.kubeflow import reporting_folder, running_stage
    from irra.config import RegistryConfig, parse_section

    with running_stage(), reporting_folder() as folder:
        inputs, outputs = stage.Inputs(Path(results.path)), stage.Outputs(folder / "decision.json")
        decision = stage.run(inputs, outputs, parse_section(RegistryConfig, config))
    Path(reason.path).write_text(decision["reason"] + "\n", encoding="utf-8")
    return str(decision["verdict"])


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    config: str,
    model: dsl.Input[dsl.Model],
    results: dsl.Input[dsl.Artifact],
    gallery: dsl.Input[dsl.Dataset],
    registration: dsl.Output[dsl.Artifact],
) -> None:
    """Put a model into MLflow's registry and make it the champion."""
    from pathlib import Path

    from components import register as stage
    from components.kubeflow import running_stage
    from irra.config import RegistryConfig, parse_section

    with running_stage():
        inputs = stage.Inputs(model=Path(model.path), index=Path(gallery.path), report=Path(results.path))
        done = stage.run(inputs, stage.Outputs(Path(registration.path)), parse_section(RegistryConfig, config))
    registration.metadata.update(done)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare(
    results: dsl.Input[list[dsl.Artifact]],
    kfp_run: str,
    table: dsl.Output[dsl.Markdown],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Collect the results of several trainings in one table and one plot."""
    from pathlib import Path

    from components import compare as ablation
    from components.kubeflow import reporting_folder, running_stage

    with running_stage(kfp_run), reporting_folder() as folder:
        ablation.run([Path(result.path) for result in results], folder)
        Path(table.path).write_text((folder / "ablation.md").read_text(encoding="utf-8"), encoding="utf-8")
        Path(report.path).write_text((folder / "ablation.html").read_text(encoding="utf-8"), encoding="utf-8")
