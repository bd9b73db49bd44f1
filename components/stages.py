"""All stages in one table: what each reads and writes, and who runs it.

A new stage is its module with `run(inputs, outputs, config)`, its section of the configuration, a row here, its entry
in dvc.yaml and its wrapper in pipeline/tasks.py. The graph of tasks, its caching and the tests read the rows.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage, whose code is `components.<name>`.

    `reads` and `writes` are the files and folders by default, without what only the stage itself finds again.
    """

    name: str
    section: str | None  # of params.yaml
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_dvc: bool = True  # run by `dvc repro`
    on_kubeflow: bool = True  # a task there
    cached: bool = True  # there, equal inputs bring earlier outputs back

    @property
    def module(self) -> str:
        """The dotted name of its module."""
        return f"components.{self.name}"


PREPARED, TOKENS, MODEL, INDEX = "data/prepared", "data/tokens", "model", "data/index"
RANKINGS, CURVES, MEASURED = "data/rankings.parquet", "reports/train", "reports/evaluate"

ROWS = (
    Stage("prepare", "prepare", (), (PREPARED,)),  # reads what the parameters name
    Stage("tokenize", "tokenize", (PREPARED,), (TOKENS,)),
    # never cached: a training asked for again is wanted again, and its MLflow run with it
    Stage("train", "train", (PREPARED, TOKENS), (MODEL, CURVES), cached=False),
    Stage("evaluate", "evaluate", (PREPARED, TOKENS, MODEL), (MEASURED, RANKINGS)),
    # no task: on Kubeflow, each task draws its own report
    Stage("report", "report", (PREPARED, CURVES, MEASURED, RANKINGS), ("reports/report",), on_kubeflow=False),
    Stage("index", "index", (PREPARED, MODEL), (INDEX,)),
    # never cached: the champion may be another by now
    Stage("gate", "registry", (MEASURED,), ("reports/gate/decision.json",), in_dvc=False, cached=False),
    Stage(
        "register",
        "registry",
        (MODEL, INDEX, MEASURED),
        ("reports/register/registration.json",),
        in_dvc=False,
        cached=False,
    ),
    Stage("compare", None, (MEASURED,), ("reports/ablation",), in_dvc=False),  # of many trainings
)
STAGES = {stage.name: stage for stage in ROWS}
SECTIONS = tuple(dict.fromkeys(stage.section for stage in ROWS if stage.section))
