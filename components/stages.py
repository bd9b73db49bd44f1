"""All stages in one table: what each of them reads and writes, and where it runs.

A new stage needs a module with `run(inputs, outputs, config)`, a section of the configuration, a path in
components/layout.py, a row here, an entry in dvc.yaml and a wrapper in pipeline/tasks.py. The Kubeflow graph, its
caching and the tests read the rows.
"""

from dataclasses import dataclass
from pathlib import Path

from components.layout import (
    ABLATION,
    CHAMPION,
    CURVES,
    DATASET_RECORD,
    DECISION,
    EVALUATION,
    INDEX,
    MODEL,
    OTHERS_RECORD,
    PICTURES,
    PREPARED,
    RANKINGS,
    REGISTRATION,
    TOKENS,
    WEIGHTS_RECORD,
)


@dataclass(frozen=True)
class Stage:
    """One stage, whose code is `components.<name>`.

    `reads` and `writes` are the default files and folders, except those that only the stage itself uses, such as
    checkpoints and downloads.
    """

    name: str
    section: str | None  # of params.yaml
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]
    in_dvc: bool = True  # `dvc repro` runs it
    on_kubeflow: bool = True  # it is a task
    cached: bool = True  # on Kubeflow, equal inputs reuse earlier outputs

    @property
    def module(self) -> str:
        """The dotted name of its module."""
        return f"components.{self.name}"


ROWS = (
    # for DVC, which runs it each time
    Stage("inputs", None, (), (DATASET_RECORD, WEIGHTS_RECORD, OTHERS_RECORD), on_kubeflow=False),
    Stage("prepare", "prepare", (), (PREPARED,)),  # reads the dataset that the parameters name
    # not for DVC, whose stage train does the same; never cached, since it takes seconds
    Stage("check", None, (PREPARED,), (), in_dvc=False, cached=False),
    # for schedules; never cached: the champion may have changed
    Stage("outdated", None, (PREPARED,), (), in_dvc=False, cached=False),
    Stage("tokenize", "tokenize", (PREPARED,), (TOKENS,)),
    Stage("train", "train", (PREPARED, TOKENS), (MODEL, CURVES)),
    Stage("evaluate", "evaluate", (PREPARED, TOKENS, MODEL), (EVALUATION, RANKINGS)),
    # not a task: on Kubeflow, each task draws its own report
    Stage("report", "report", (PREPARED, CURVES, EVALUATION, RANKINGS), (PICTURES,), on_kubeflow=False),
    Stage("index", "index", (PREPARED, MODEL), (INDEX,)),
    # never cached: the champion may have changed
    Stage("champion", None, (PREPARED, TOKENS), (CHAMPION,), in_dvc=False, cached=False),
    Stage("gate", "registry", (EVALUATION, CHAMPION), (DECISION,), in_dvc=False, cached=False),
    Stage("register", "registry", (MODEL, INDEX, EVALUATION, CHAMPION), (REGISTRATION,), in_dvc=False, cached=False),
    Stage("compare", None, (EVALUATION,), (ABLATION,), in_dvc=False),  # reads one evaluation per training
)
STAGES = {stage.name: stage for stage in ROWS}
SECTIONS = tuple(dict.fromkeys(stage.section for stage in ROWS if stage.section))
