"""All stages in one table: what each reads and writes, and who runs it.

A new stage is its module with `run(inputs, outputs, config)`, its section of the configuration, its path in
components/layout.py, a row here, its entry in dvc.yaml and its wrapper in pipeline/tasks.py. The graph of tasks, its
caching and the tests read the rows.
"""

from dataclasses import dataclass
from pathlib import Path

from components.layout import (
    ABLATION,
    CURVES,
    DECISION,
    EVALUATION,
    INDEX,
    MODEL,
    PICTURES,
    PREPARED,
    RANKINGS,
    REGISTRATION,
    TOKENS,
)


@dataclass(frozen=True)
class Stage:
    """One stage, whose code is `components.<name>`.

    `reads` and `writes` are the files and folders by default, without what only the stage itself finds again.
    """

    name: str
    section: str | None  # of params.yaml
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]
    in_dvc: bool = True  # run by `dvc repro`
    on_kubeflow: bool = True  # a task there
    cached: bool = True  # there, equal inputs bring earlier outputs back

    @property
    def module(self) -> str:
        """The dotted name of its module."""
        return f"components.{self.name}"


ROWS = (
    Stage("prepare", "prepare", (), (PREPARED,)),  # reads what the parameters name
    Stage("tokenize", "tokenize", (PREPARED,), (TOKENS,)),
    # never cached: a training asked for again is wanted again, and its MLflow run with it
    Stage("train", "train", (PREPARED, TOKENS), (MODEL, CURVES), cached=False),
    Stage("evaluate", "evaluate", (PREPARED, TOKENS, MODEL), (EVALUATION, RANKINGS)),
    # no task: on Kubeflow, each task draws its own report
    Stage("report", "report", (PREPARED, CURVES, EVALUATION, RANKINGS), (PICTURES,), on_kubeflow=False),
    Stage("index", "index", (PREPARED, MODEL), (INDEX,)),
    # never cached: the champion may be another by now
    Stage("gate", "registry", (EVALUATION,), (DECISION,), in_dvc=False, cached=False),
    Stage("register", "registry", (MODEL, INDEX, EVALUATION), (REGISTRATION,), in_dvc=False, cached=False),
    Stage("compare", None, (EVALUATION,), (ABLATION,), in_dvc=False),  # of many trainings
)
STAGES = {stage.name: stage for stage in ROWS}
SECTIONS = tuple(dict.fromkeys(stage.section for stage in ROWS if stage.section))
