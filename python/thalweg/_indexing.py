"""What stands between brackets, as NumPy has it, in terms of slices, reshapes and gathers.

Along an axis whose extent has a name, NumPy's bounds depend on its value: `x[2:]` of one element is empty there. Here a shape is one polynomial
for every value, so that what the declared bounds do not prove to be inside is refused, with the bound that would."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from ._tensor import Extent, Index, Tensor
from ._thalweg import Dim

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["flip", "indexed"]


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
    # Axes of what comes out that are taken from behind.
    behind: list[int] = []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        extent = x.shape[axis]
        if isinstance(item, slice):
            start, stop, step = _bounds(x, item, extent, axis)
            if step < 0:
                step = -step
                behind.append(len(shape))
            shape.append(_length(start, stop, step))
        elif isinstance(item, Tensor):
            if gather is not None:
                raise IndexError("one tensor of indices at a time: use `tw.take` for the other")
            start, stop, step = 0, extent, 1
            gather = (len(shape), item)
            shape.append(extent)
        else:
            place = _place(x, item, extent, axis)
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
    for axis in behind:
        out = flip(out, axis)
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


def flip(x: Tensor, axis: int) -> Tensor:
    """The elements along an axis in reverse."""
    extent = x.shape[axis]
    if isinstance(extent, int) and extent < 2:
        return x
    places = x.graph.arange(extent)
    last = extent - 1 if isinstance(extent, int) else places.max()
    return x._apply("gather", x, last - places, axis=axis)


def _inside(x: Tensor, less: Extent, more: Extent, what: str, axis: int) -> None:
    """That ``less`` is at most ``more``, for every value of named dimensions."""
    if isinstance(less, int) and isinstance(more, int) and less <= more:
        return
    remedy = x.graph._native.shortfall(less, more)
    if remedy is not None:
        extent = x.shape[axis]
        of = (
            f"with {extent} elements"
            if isinstance(extent, int)
            else f"whose extent `{extent}` has a name: it may be shorter"
        )
        raise IndexError(f"{what} of axis {axis}, {of}" + (f"; {remedy}" if remedy else ""))


def _place(x: Tensor, index: int, extent: Extent, axis: int) -> Extent:
    """The place that an integer means."""
    if isinstance(extent, int):
        if not -extent <= index < extent:
            raise IndexError(f"index {index} is out of range for axis {axis} with {extent} elements")
        return index % extent
    _inside(x, index + 1 if index >= 0 else -index, extent, f"place {index}", axis)
    return index if index >= 0 else extent - -index


def _bounds(x: Tensor, item: slice, extent: Extent, axis: int) -> tuple[Extent, Extent, int]:
    """First place, bound and step of a slice. Of a negative step: of the same places from the other end."""
    step = 1 if item.step is None else operator.index(item.step)
    if step == 0:
        raise IndexError(f"a step of 0 along axis {axis}")
    numbers = not isinstance(item.start, Dim) and not isinstance(item.stop, Dim)
    if isinstance(extent, int) and numbers:
        places = range(extent)[slice(_number(item.start), _number(item.stop), step)]
        if not places:
            return 0, 0, step
        return min(places[0], places[-1]), max(places[0], places[-1]) + 1, step
    what = ":".join("" if bound is None else str(bound) for bound in (item.start, item.stop))
    low, high = item.start, item.stop
    if step < 0:
        # From `start` down to what comes after `stop`.
        low, high = _after(item.stop, extent), _after(item.start, extent)
    start, stop = _bound(x, low, extent, 0, what, axis), _bound(x, high, extent, extent, what, axis)
    if _same(start, stop) or x.graph._native.shortfall(stop, start) is None:
        # Never anything between them.
        return 0, 0, step
    _inside(x, start, stop, what, axis)
    if abs(step) != 1:
        if not (isinstance(start, int) and isinstance(stop, int)):
            raise IndexError(f"a step of {step} along axis {axis}, whose extent has a name: steps are for numbers")
        places = range(start, stop, step) if step > 0 else range(stop - 1, start - 1, step)
        start, stop = min(places[0], places[-1]), max(places[0], places[-1]) + 1
    return start, stop, step


def _number(bound: Any) -> int | None:
    return None if bound is None else operator.index(bound)


def _after(bound: Any, extent: Extent) -> Any:
    """The bound one place further; -1 is the last place, and not the one before the first."""
    if bound is None or isinstance(bound, Dim):
        return None if bound is None else bound + 1
    return extent if operator.index(bound) == -1 else operator.index(bound) + 1


def _bound(x: Tensor, bound: Any, extent: Extent, default: Extent, what: str, axis: int) -> Extent:
    if bound is None:
        return default
    place = bound if isinstance(bound, Dim) else operator.index(bound)
    if isinstance(place, int) and place < 0:
        _inside(x, -place, extent, what, axis)
        return extent - -place
    _inside(x, place, extent, what, axis)
    return place


def _length(start: Extent, stop: Extent, step: int) -> Extent:
    if isinstance(start, int) and isinstance(stop, int):
        return -(-(stop - start) // step)
    return stop if _same(start, 0) else stop - start
