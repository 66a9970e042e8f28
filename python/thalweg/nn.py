"""Layers: functions of tensors with parameters of their own.

A layer infers what it can from the tensor that it is called with. Its parameters are called after the attributes that lead to it
(``encoder.layers.0.fc1.weight``), as PyTorch has it. Called again in the same graph, it has the weights that it had.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from . import ops
from ._graph import Graph
from ._site import here
from ._tensor import Tensor, graph_of

__all__ = [
    "AvgPool",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "Module",
    "SelfAttention",
    "Sequential",
    "TransformerBlock",
    "cross_entropy",
]

_M = TypeVar("_M", bound="Module")


class Module:
    """A function of tensors that holds other layers, or declares parameters, or both.

    >>> import thalweg as tw
    >>> class Gated(tw.nn.Module):
    ...     def __init__(self, features):
    ...         self.value, self.gate = tw.nn.Linear(features), tw.nn.Linear(features)
    ...     def __call__(self, x):
    ...         scale = x.graph.parameter("scale", (), init=1.0)
    ...         return self.value(x) * self.gate(x).sigmoid() * scale
    >>> g = tw.Graph()
    >>> y = Gated(3)(g.input("x", "f32", (4, 8)))
    >>> g.program("run", outputs={"y": y})
    >>> list(g.compile().variables)
    ['scale', 'value.weight', 'value.bias', 'gate.weight', 'gate.bias']
    """

    _name: str | None = None
    _paths: WeakKeyDictionary[Graph, str] | None = None
    _is_open: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in cls.__dict__:
            type.__setattr__(cls, "__call__", _in_scope(cls.__dict__["__call__"]))

    def __setattr__(self, name: str, value: object) -> None:
        _name_all(name, value)
        super().__setattr__(name, value)

    def named(self: _M, name: str) -> _M:
        """Names its scope, whatever attribute leads to it. Gives it back."""
        object.__setattr__(self, "_name", name)
        return self

    @contextmanager
    def _scope(self, graph: Graph) -> Iterator[None]:
        if self._is_open:
            # A class and its base.
            yield
            return
        if self._paths is None:
            object.__setattr__(self, "_paths", WeakKeyDictionary())
        paths = self._paths
        assert paths is not None
        known = paths.get(graph)
        if known is None:
            path = f"{graph._scope}.{self._name}" if graph._scope and self._name else self._name or graph._scope
            paths[graph] = path
        else:
            path = known
        object.__setattr__(self, "_is_open", True)
        try:
            with graph._at(path, graph._pin, graph._shared or known is not None):
                yield
        finally:
            object.__setattr__(self, "_is_open", False)


def _in_scope(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` with the layer's scope open."""

    @functools.wraps(call)
    def inside(self: Module, *args: Any, **kwargs: Any) -> Any:
        with self._scope(graph_of(*args, *kwargs.values())):
            return call(self, *args, **kwargs)

    return inside


def _name_all(name: str, value: object) -> None:
    """Names layers after the attribute that holds them, unless they have a name."""
    if isinstance(value, Module):
        if value._name is None:
            object.__setattr__(value, "_name", name)
    elif isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            _name_all(f"{name}.{i}", each)
    elif isinstance(value, dict):
        for key, each in value.items():
            _name_all(f"{name}.{key}", each)


class _Layer(Module):
    """A layer of the library's own."""

    _kind: ClassVar[str]
    _options: dict[str, Any]

    def __call__(self, x: Tensor) -> Tensor:
        graph = x.graph
        return Tensor(graph, graph._native.layer(graph._place, here(), self._kind, self._options, graph._own(x)))

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self._options.items())
        return f"{type(self).__name__}({options})"


class Linear(_Layer):
    """``x @ weight.T + bias``; parameters ``weight`` [out, in] and ``bias`` [out], uniform within ±1/√in.

    >>> import thalweg as tw
    >>> g = tw.Graph()
    >>> tw.nn.Linear(10)(g.input("x", "f32", (4, 8))).shape
    (4, 10)
    """

    _kind = "linear"

    def __init__(self, features: int, bias: bool = True) -> None:
        self._options = {"features": features, "bias": bias}


class Conv2d(_Layer):
    """Convolution of images [N, C, H, W]; parameters ``weight`` [out, in / groups, size, size] and ``bias`` [out].

    >>> import thalweg as tw
    >>> g = tw.Graph()
    >>> tw.nn.Conv2d(16, 3, pad=1)(g.input("image", "f32", (2, 3, 8, 8))).shape
    (2, 16, 8, 8)
    """

    _kind = "conv2d"

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        pad: int = 0,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self._options = {
            "channels": channels,
            "size": size,
            "pad": pad,
            "stride": stride,
            "dilation": dilation,
            "groups": groups,
            "bias": bias,
        }


class BatchNorm(_Layer):
    """Normalization of channels over the batch; parameters ``weight`` and ``bias``, statistics ``running_mean`` and
    ``running_var``, which every program that trains updates.

    Args:
        groups: How many equal blocks of the batch have statistics of their own.
    """

    _kind = "batch_norm"

    def __init__(self, *, momentum: float = 0.1, eps: float = 1e-5, groups: int = 1) -> None:
        self._options = {"momentum": momentum, "eps": eps, "groups": groups}


class LayerNorm(_Layer):
    """Normalization over the last axis; parameters ``weight`` and ``bias``."""

    _kind = "layer_norm"

    def __init__(self, *, eps: float = 1e-5) -> None:
        self._options = {"eps": eps}


class Embedding(_Layer):
    """A vector for each of ``count`` numbers; parameter ``weight`` [count, features], standard normal. Called with i32 or i64."""

    _kind = "embedding"

    def __init__(self, count: int, features: int) -> None:
        self._options = {"count": count, "features": features}


class SelfAttention(_Layer):
    """Attention of a sequence [batch, length, features] to itself, in several heads; layers ``qkv`` and ``proj``."""

    _kind = "self_attention"

    def __init__(self, heads: int, *, causal: bool = False) -> None:
        self._options = {"heads": heads, "causal": causal}


class TransformerBlock(_Layer):
    """A transformer's layer on [batch, length, features], normalized first; layers ``ln1``, ``attn``, ``ln2``, ``fc1`` and ``fc2``."""

    _kind = "transformer_block"

    def __init__(self, heads: int, *, causal: bool = False, wider: int = 4, dropout: float = 0.0) -> None:
        self._options = {"heads": heads, "causal": causal, "wider": wider, "dropout": dropout}


class _Function(_Layer):
    """A layer without parameters, which opens no scope."""

    @contextmanager
    def _scope(self, graph: Graph) -> Iterator[None]:
        yield


class MaxPool(_Function):
    """The largest element of each window; windows lie side by side, unless a stride is given."""

    _kind = "max_pool"

    def __init__(self, size: int, *, stride: int | None = None, pad: int = 0) -> None:
        self._options = {"size": size, "stride": size if stride is None else stride, "pad": pad}


class AvgPool(_Function):
    """The mean of each window; windows lie side by side."""

    _kind = "avg_pool"

    def __init__(self, size: int) -> None:
        self._options = {"size": size}


class Flatten(_Function):
    """All axes but the batch made one."""

    _kind = "flatten"

    def __init__(self) -> None:
        self._options = {}


class Dropout(_Function):
    """Random zeros in programs that train, with probability ``p``."""

    def __init__(self, p: float) -> None:
        self._options = {"p": p}

    def __call__(self, x: Tensor) -> Tensor:
        return x.dropout(self._options["p"])


class Sequential(Module):
    """Layers and functions one after the other; by place (``0``, ``1``), or by the names that they are given.

    >>> import thalweg as tw
    >>> from thalweg import nn
    >>> g = tw.Graph()
    >>> image = g.input("image", "f32", (g.dim("batch", max=512), 1, 8, 8))
    >>> body = nn.Sequential(
    ...     conv1=nn.Conv2d(16, 3, pad=1), relu=tw.relu, pool=nn.MaxPool(2), flat=nn.Flatten(), head=nn.Linear(10)
    ... ).named("body")
    >>> body(image).named("logits").shape
    (batch, 10)
    """

    def __init__(self, *layers: Callable[[Tensor], Tensor], **named: Callable[[Tensor], Tensor]) -> None:
        steps = [(str(i), layer) for i, layer in enumerate(layers)] + list(named.items())
        for name, layer in steps:
            _name_all(name, layer)
        self.layers: Sequence[Callable[[Tensor], Tensor]] = tuple(layer for _, layer in steps)

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The surprise at each label (i32 or i64), given unnormalized log-probabilities [.., classes].

    >>> import thalweg as tw
    >>> g = tw.Graph()
    >>> tw.nn.cross_entropy(g.input("logits", "f32", (4, 10)), g.input("label", "i32", (4,))).mean().shape
    ()
    """
    return ops.cross_entropy(logits, labels)
