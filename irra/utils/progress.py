"""Progress of long-running work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_SECONDS = 10.0


def progress(items: Iterable[T], description: str, total: int, unit: str = "it") -> Iterator[T]:
    """Yield `items` while reporting on standard error how many of `total` are done."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total, unit=unit, dynamic_ncols=True)
        return
    if total == 0:
        yield from items
        return
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_SECONDS and done < total:
            last = now
            print(f"{description}: {done}/{total} {unit}", file=sys.stderr, flush=True)
    seconds = time.monotonic() - start
    print(f"{description}: {done}/{total} {unit} in {seconds:.1f} s", file=sys.stderr, flush=True)


def progress_of(items: Iterable[T], description: str, said: Callable[[], str]) -> Iterator[T]:
    """Yield `items` while reporting on standard error what is `said` of the work, whose end is not known."""
    if sys.stderr.isatty():
        bar = tqdm(items, desc=description, bar_format="{desc}: {postfix} [{elapsed}]", dynamic_ncols=True)
        for item in bar:
            yield item
            bar.set_postfix_str(said(), refresh=False)
        return
    start = last = time.monotonic()
    for item in items:
        yield item
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            print(f"{description}: {said()}", file=sys.stderr, flush=True)
    print(f"{description}: {said()} in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
