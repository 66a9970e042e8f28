"""What stands between brackets, as NumPy has it, in terms of slices, reshapes and one gather."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from ._tensor import Extent, Index, Tensor
from ._thalweg import Dim

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["indexed"]


def indexed(x: Tensor, index: Sequence[Index]) -> Tensor:
    """The part of ``x`` that ``index`` says."""
    if x._value.poison:
        return x
    items = _spelled_out(x, index)
    starts: list[Extent] = []
    stops: list[Extent] = []
    steps: list[int] = []
    # Extents after slicing; integers leave out an axis, None puts one in.
    shape: list[Extent] = []
    gather: tuple[int, Tensor] | None = None
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        extent = x.shape[axis]
        if isinstance(item, slice):
            start, stop, step = _bounds(item, extent, axis)
            length = _length(start, stop, step, axis)
            shape.append(length)
        elif isinstance(item, Tensor):
            if gather is not None:
                raise IndexError("one tensor of indices at a time: use `tw.take` for the other")
            start, stop, step = 0, extent, 1
            gather = (len(shape), item)
            shape.append(extent)
        else:
            place = _place(item, extent, axis)
            start, stop, step = place, place + 1, 1
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        axis += 1
    out = x
    if (
        any(not _same(a, 0) for a in starts)
        or any(not _same(a, b) for a, b in zip(stops, x.shape))
        or any(s != 1 for s in steps)
    ):
        attrs: dict[str, Any] = {"starts": tuple(starts), "stops": tuple(stops)}
        if any(s != 1 for s in steps):
            attrs["steps"] = steps
        out = x._apply("slice", x, **attrs)
    out = out.reshape(shape)
    if gather is not None:
        out = out._apply("gather", out, gather[1], axis=gather[0])
    return out


def _same(a: Extent, b: Extent) -> bool:
    return type(a) is type(b) and a == b


def _spelled_out(x: Tensor, index: Sequence[Index]) -> list[int | slice | Tensor | None]:
    """With all axes named: without an ellipsis."""
    for item in index:
        if isinstance(item, (bool, list, tuple)) or (hasattr(item, "__array__") and not isinstance(item, Tensor)):
            if getattr(item, "ndim", None) == 0 and not isinstance(item, bool):
                continue
            raise IndexError(
                f"cannot index with {type(item).__name__}: use integers, slices, None, `...` or one tensor of integers; "
                "choose by a condition with `tw.where`"
            )
    ellipses = sum(1 for item in index if item is Ellipsis)
    if ellipses > 1:
        raise IndexError("only one `...` can stand for what is left")
    named = sum(1 for item in index if item is not None and item is not Ellipsis)
    if named > x.ndim:
        raise IndexError(f"{named} indices for {x!r}, which has {x.ndim} axes")
    rest: list[int | slice | Tensor | None] = [slice(None)] * (x.ndim - named)
    out: list[int | slice | Tensor | None] = []
    for item in index:
        if item is Ellipsis:
            out += rest
        elif item is None or isinstance(item, (slice, Tensor)):
            out.append(item)
        else:
            out.append(operator.index(item))  # type: ignore[arg-type]
    return out if ellipses else out + rest


def _place(index: int, extent: Extent, axis: int) -> Extent:
    """The place that an integer means."""
    if isinstance(extent, int):
        if not -extent <= index < extent:
            raise IndexError(f"index {index} is out of range for axis {axis} with {extent} elements")
        return index % extent
    return index if index >= 0 else _before(extent, -index, axis)


def _before(extent: Dim, back: int, axis: int) -> Extent:
    """The place so far from the end."""
    try:
        return extent - back
    except ValueError:
        raise IndexError(
            f"place -{back} of axis {axis}, whose extent `{extent}` has a name: it may be shorter; declare it as a number"
        ) from None


def _bounds(item: slice, extent: Extent, axis: int) -> tuple[Extent, Extent, int]:
    """First place, bound and step of a slice."""
    step = 1 if item.step is None else operator.index(item.step)
    if step <= 0:
        raise IndexError(f"a step of {step} along axis {axis}: steps are positive; reverse with `tw.flip`")
    if isinstance(extent, int):
        start, stop, _ = slice(_number(item.start), _number(item.stop), step).indices(extent)
        return start, max(start, stop), step
    return _bound(item.start, extent, 0, axis), _bound(item.stop, extent, extent, axis), step


def _number(bound: Any) -> int | None:
    return None if bound is None else operator.index(bound)


def _bound(bound: Any, extent: Dim, default: Extent, axis: int) -> Extent:
    if bound is None:
        return default
    if isinstance(bound, Dim):
        return bound
    number = operator.index(bound)
    return number if number >= 0 else _before(extent, -number, axis)


def _length(start: Extent, stop: Extent, step: int, axis: int) -> Extent:
    if isinstance(start, int) and isinstance(stop, int):
        return -(-(stop - start) // step)
    if step != 1:
        raise IndexError(f"a step of {step} along axis {axis}, whose extent has a name: steps are for numbers")
    if _same(start, 0):
        return stop
    try:
        return stop - start
    except ValueError:
        raise IndexError(
            f"{start}:{stop} of axis {axis}, whose extent has a name: it may be shorter; declare it as a number"
        ) from None
