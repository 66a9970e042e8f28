"""Progress on stderr: what is done, how fast, and how long it takes still. A line that is written over where somebody looks; else one every ten
seconds, so that logs stay short. Nothing for what is over within a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import TypeVar

__all__ = ["progress"]

_T = TypeVar("_T")


def progress(items: Iterable[_T], total: int | None = None, what: str = "steps") -> Iterator[_T]:
    """Goes through ``items`` and says on stderr how far it is.

    >>> import thalweg as tw
    >>> sum(tw.progress(range(4)))
    6
    """
    total = total or length_hint(items) or None
    looked_at = sys.stderr.isatty()
    began = last = time.monotonic()
    done = 0

    def line() -> str:
        took = time.monotonic() - began
        rate = done / took if took > 0 else 0.0
        if total is None:
            return f"{done} {what}, {rate:.1f}/s"
        left = (total - done) / rate if rate > 0 else 0.0
        return f"{done}/{total} {what}, {rate:.1f}/s, {_clock(left)} left"

    said = False
    try:
        for item in items:
            yield item
            done += 1
            now = time.monotonic()
            if now - last >= (0.2 if looked_at else 10.0) and now - began > 1.0:
                last, said = now, True
                print(
                    f"\r{line()}\x1b[K" if looked_at else line(),
                    end="" if looked_at else "\n",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        if said:
            print(f"\r{line()}\x1b[K" if looked_at else line(), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
