"""What is said of a model, for people and for programs: text that is a string like any other, tables in notebooks, and data.

Quantities end in their unit, as they do everywhere (``step_seconds``), so that tables are made of the data without knowing it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

__all__ = ["Report", "tables"]


class Report(str):
    """What is said of a program. It prints as text, a notebook shows it as tables, and :attr:`data` is the same for programs.

    >>> import thalweg as tw
    >>> g = tw.Graph("line")
    >>> x = g.input("x", "f32", (g.dim("n", max=8), 3))
    >>> g.program("run", outputs={"y": tw.nn.Linear(2)(x)})
    >>> report = g.compile().summary("run", n=4)
    >>> report.data["total"]["parameters"]
    8
    """

    data: dict[str, Any]
    """What the text says, and more: as ``thalweg … --json`` has it."""

    def __new__(cls, text: str, data: str = "{}") -> Report:
        report = super().__new__(cls, text)
        report.data = json.loads(data)
        return report

    def __repr__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Report, (str(self), json.dumps(self.data))

    def _repr_html_(self) -> str:
        return tables(self.data)


_UNITS = {
    "seconds": (1.0, "s", [(1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")]),
    "bytes": (1.0, "B", [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]),
    "flops": (1.0, "", [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]),
}


def _cell(key: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return escape(value or "")
    if isinstance(value, list):
        parts = cast("list[Any]", value)
        return (", " if any(isinstance(p, list) for p in parts) else " ").join(_cell(key, part) for part in parts)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return escape(json.dumps(value))
    unit = _UNITS.get(key.rsplit("_", 1)[-1])
    if unit is None or value == 0:
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    _, name, prefixes = unit
    scale, prefix = next((p for p in prefixes if abs(value) >= p[0]), prefixes[-1])
    return f"{value / scale:.3g} {prefix}{name}".rstrip()


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    # What is made of more is for programs.
    def plain(value: object) -> bool:
        return not isinstance(value, dict)

    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if plain(value)))
    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in keys)

    def line(row: Mapping[str, Any]) -> str:
        side = ["left" if isinstance(row.get(key), str) else "right" for key in keys]
        cells = (f'<td style="text-align: {s}">{_cell(k, row.get(k))}</td>' for k, s in zip(keys, side, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(line, rows))}</tbody></table>"


def tables(data: Mapping[str, Any]) -> str:
    """``data`` as HTML: what stands alone on top, then a table of each list of rows."""
    rows = {key: cast("list[dict[str, Any]]", v) for key, v in data.items() if _is_rows(v)}
    rows |= {key: [cast("dict[str, Any]", v)] for key, v in data.items() if isinstance(v, dict) and v}
    alone = {key: v for key, v in data.items() if key not in rows and v not in (None, [], {})}
    facts = " · ".join(f"{escape(key.replace('_', ' '))} <b>{_cell(key, v)}</b>" for key, v in alone.items())
    box = '<div style="max-height: 28em; overflow: auto">'
    parts = (
        f"<details open><summary>{escape(key.replace('_', ' '))} ({len(of)})</summary>{box}{_table(of)}</div></details>"
        for key, of in rows.items()
    )
    return f"<div><p>{facts}</p>{''.join(parts)}</div>"


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in cast("list[Any]", value))
