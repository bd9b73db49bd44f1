"""What all tests of the pipeline share."""

import inspect
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from kfp.dsl import pipeline_task


@pytest.fixture(scope="session", autouse=True)
def short_stacks() -> Iterator[None]:
    """Let kfp look only at its caller, whose name is all it wants.

    At each setting of a task, kfp reads the source of the whole stack, for which Python asks every imported module
    where it comes from: below pytest, and after other tests, a pipeline took five seconds instead of a fifth of one.
    """

    def stack() -> list[tuple[object, object, object, str]]:
        callers = inspect.currentframe().f_back.f_back  # type: ignore[union-attr]
        names = ["_ensure_container_spec_exists", callers.f_code.co_name]  # type: ignore[union-attr]
        return [(None, None, None, name) for name in names]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=stack))
        yield
