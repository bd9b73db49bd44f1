"""The stages as Kubeflow components: each function turns artifacts into paths and calls the stage's `run`.

kfp ships only the source of a function's body, so every function has its own imports. `pipeline.graph` sets the image.
Outputs have names of their own across all tasks, because Kubeflow's page lists them without the task.
"""

from kfp import dsl

IMAGE = "python:3.11"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(config: dict, prepared: dsl.Output[dsl.Dataset], dataset_report: dsl.Output[dsl.HTML]) -> None:
    """Read a dataset, decode and resize its images once, and store them with their captions."""
    from pathlib import Path

    from components import prepare as stage
    from components.kubeflow import reporting_folder, running_stage, section
    from components.report import draw_dataset, write_chapter
    from irra.config import PrepareConfig

    with running_stage(), reporting_folder() as folder:
        outputs = stage.Outputs(prepared=Path(prepared.path), downloads=folder / "downloads")
        stats = stage.run(stage.Inputs(), outputs, section(PrepareConfig, config))
        write_chapter(Path(dataset_report.path), draw_dataset(outputs.prepared, folder))
    prepared.metadata.update({name: stats[name] for name in ("dataset_name", "fingerprint", "splits")})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def outdated(
    tokenize: dict,
    train: dict,
    registry: dict,
    prepared: dsl.Input[dsl.Dataset],
    champion_comparison: dsl.Output[dsl.Markdown],
) -> str:
    """Return `yes` unless the champion was trained on the same data with the same parameters."""
    from pathlib import Path

    from components import outdated as stage
    from components.kubeflow import running_stage, section
    from irra.config import RegistryConfig, TokenizeConfig, TrainConfig

    with running_stage():
        sections = section(TokenizeConfig, tokenize), section(TrainConfig, train), section(RegistryConfig, registry)
        found = stage.run(Path(prepared.path), *sections)
    Path(champion_comparison.path).write_text(found.reason + "\n", encoding="utf-8")
    return "yes" if found.yes else "no"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check(train: dict, index: dict, registry: dict, prepared: dsl.Input[dsl.Dataset]) -> None:
    """Fail if the data lack a split that a later task needs."""
    from pathlib import Path

    from components import check as stage
    from components.kubeflow import running_stage, section
    from irra.config import IndexConfig, RegistryConfig, TrainConfig

    with running_stage():
        sections = section(TrainConfig, train), section(IndexConfig, index), section(RegistryConfig, registry)
        stage.run(Path(prepared.path), *sections)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tokenize(config: dict, prepared: dsl.Input[dsl.Dataset], tokens: dsl.Output[dsl.Dataset]) -> None:
    """Turn captions into token ids, and draw the masking cache for MLM."""
    from pathlib import Path

    from components import tokenize as stage
    from components.kubeflow import running_stage, section
    from irra.config import TokenizeConfig

    with running_stage():
        inputs, outputs = stage.Inputs(Path(prepared.path)), stage.Outputs(Path(tokens.path))
        info = stage.run(inputs, outputs, section(TokenizeConfig, config))
    facts = ("captions", "longest_caption", "cut_captions", "mask_draws", "fingerprint", "data_fingerprint")
    tokens.metadata.update({name: info[name] for name in facts})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: dict,
    checkpoints: str,
    prepared: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    training_metrics: dsl.Output[dsl.Metrics],
    training_report: dsl.Output[dsl.HTML],
    loss_names: str = "",
    seed: str = "",
) -> None:
    """Train IRRA, validate after every epoch and keep the best weights."""
    from pathlib import Path

    from components import train as stage
    from components.kubeflow import reporting_folder, rounded, running_stage
    from components.training_task import publish, training_section

    with running_stage(own_run=True, ablation=loss_names != ""), reporting_folder() as folder:
        inputs = stage.Inputs(Path(prepared.path), Path(tokens.path))
        states = Path(model.path + ".checkpoints")
        outputs = stage.Outputs(Path(model.path), folder, states, checkpoints, folder / "model-run.json")
        result = stage.run(inputs, outputs, training_section(config, loss_names, seed))
        facts = publish(inputs, outputs, result, Path(training_report.path))
    model.metadata.update(facts)
    own = {name: facts[name] for name in ("loss_names", "seed")}
    training_metrics.metadata.update({**rounded(result["selected"]), **own})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config: dict,
    report: dict,
    prepared: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    results: dsl.Output[dsl.Artifact],
    retrieval_metrics: dsl.Output[dsl.Metrics],
    retrieval_report: dsl.Output[dsl.HTML],
) -> None:
    """Measure a model on val and test, both ways, and show what it retrieves."""
    from pathlib import Path

    from components import evaluate as stage
    from components.kubeflow import RUN_ID, noted, reporting_folder, rounded, running_stage, section
    from components.report import draw_evaluation, log, write_chapter
    from irra.config import EvaluateConfig, ReportConfig
    from irra.utils.nested import flatten

    found = Path(results.path)
    with running_stage(), reporting_folder() as folder:
        note = noted(model.metadata, folder)
        inputs = stage.Inputs(Path(prepared.path), Path(tokens.path), Path(model.path), note)
        outputs = stage.Outputs(report=found, rankings=found / "rankings.parquet", others=folder / "also")
        measured = stage.run(inputs, outputs, section(EvaluateConfig, config))
        drawn = section(ReportConfig, report)
        evaluation = draw_evaluation(found, outputs.rankings, inputs.prepared, drawn, folder)
        run_id = model.metadata.get(RUN_ID)
        write_chapter(Path(retrieval_report.path), evaluation, run_id)
        log([evaluation], measured["model"]["fingerprint"], run_id)
    training = {name: measured["model"]["train"][name] for name in ("loss_names", "seed")}
    retrieval_metrics.metadata.update({**rounded(flatten(measured["metrics"], "/")), **training})
    facts = {name: measured["model"][name] for name in ("fingerprint", "dataset", "data_fingerprint")}
    results.metadata.update({**facts, **training})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def index(
    config: dict,
    prepared: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    gallery: dsl.Output[dsl.Dataset],
) -> None:
    """Encode a gallery, so that it can be searched."""
    from pathlib import Path

    from components import index as stage
    from components.kubeflow import running_stage, section
    from irra.config import IndexConfig

    with running_stage():
        inputs, outputs = stage.Inputs(Path(prepared.path), Path(model.path)), stage.Outputs(Path(gallery.path))
        facts = stage.run(inputs, outputs, section(IndexConfig, config))
    gallery.metadata.update(facts)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def champion(
    evaluate: dict,
    registry: dict,
    prepared: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    champion_results: dsl.Output[dsl.Artifact],
) -> None:
    """Measure the champion on the data of today."""
    from pathlib import Path

    from components import champion as stage
    from components.kubeflow import running_stage, section
    from irra.config import EvaluateConfig, RegistryConfig

    with running_stage():
        inputs = stage.Inputs(Path(prepared.path), Path(tokens.path))
        outputs = stage.Outputs(Path(champion_results.path))
        print(stage.run(inputs, outputs, section(EvaluateConfig, evaluate), section(RegistryConfig, registry)))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    config: dict,
    results: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Markdown],
    champion_results: dsl.Input[dsl.Artifact] = None,
) -> str:
    """Return `pass` if a model is good enough, and better than the champion on the same data."""
    from pathlib import Path

    from components import gate as stage
    from components.kubeflow import reporting_folder, running_stage, section
    from irra.config import RegistryConfig

    with running_stage(), reporting_folder() as folder:
        rival = Path(champion_results.path) if champion_results else folder / "none"  # only a schedule has one
        inputs, outputs = stage.Inputs(Path(results.path), rival), stage.Outputs(folder / "decision.json")
        decided = stage.run(inputs, outputs, section(RegistryConfig, config))
    Path(decision.path).write_text(decided["reason"] + "\n", encoding="utf-8")
    return str(decided["verdict"])


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    config: dict,
    model: dsl.Input[dsl.Model],
    results: dsl.Input[dsl.Artifact],
    gallery: dsl.Input[dsl.Dataset],
    registration: dsl.Output[dsl.Artifact],
    champion_results: dsl.Input[dsl.Artifact] = None,
) -> None:
    """Put a model into MLflow's registry and make it the champion."""
    from pathlib import Path

    from components import register as stage
    from components.kubeflow import RUN_ID, noted, reporting_folder, running_stage, section
    from irra.config import RegistryConfig

    with running_stage(), reporting_folder() as folder:
        note = noted(model.metadata, folder)
        rival = Path(champion_results.path) if champion_results else folder / "none"  # only a schedule has one
        inputs = stage.Inputs(Path(model.path), Path(gallery.path), Path(results.path), rival, note)
        done = stage.run(inputs, stage.Outputs(Path(registration.path)), section(RegistryConfig, config))
    if "run_id" in done:  # a key that Kubeflow's page takes for its own
        done[RUN_ID] = done.pop("run_id")
    registration.metadata.update(done)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare(
    results: dsl.Input[list[dsl.Artifact]],
    comparison_table: dsl.Output[dsl.Markdown],
    comparison_report: dsl.Output[dsl.HTML],
) -> None:
    """Collect the results of several trainings in one table and one plot."""
    from pathlib import Path

    from components import compare as ablation
    from components.kubeflow import reporting_folder, running_stage

    with running_stage(own_run=True), reporting_folder() as folder:
        ablation.run([Path(result.path) for result in results], folder)
        for artifact, name in ((comparison_table, "ablation.md"), (comparison_report, "ablation.html")):
            Path(artifact.path).write_text((folder / name).read_text(encoding="utf-8"), encoding="utf-8")
