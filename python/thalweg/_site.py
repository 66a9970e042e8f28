"""The user's line: the innermost frame that is not this package's.

Noted for every op, so that a mistake is drawn where it was made, also when it is found much later.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from types import CodeType

__all__ = ["Site", "here"]

Site = tuple[str, int, int]
"""File, line and column, from 1."""

_PACKAGE = __file__.removesuffix("_site.py")


@lru_cache(maxsize=65536)
def _at(code: CodeType, instruction: int) -> Site:
    for i, (line, _, column, _) in enumerate(code.co_positions()):
        if i == instruction // 2:
            return (code.co_filename, line or 0, (column or 0) + 1)
    return (code.co_filename, code.co_firstlineno, 1)


def here() -> Site:
    """Where the user is who has called this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_back is None:
            return ("", 0, 0)
        frame = frame.f_back
    return _at(frame.f_code, frame.f_lasti)
