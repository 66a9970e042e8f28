"""Optimizers: what differentiates a loss and says what each variable becomes. They are part of the graph: no host looks at a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._site import here

if TYPE_CHECKING:
    from . import _thalweg
    from ._tensor import Tensor

__all__ = ["SGD", "AdamW", "LossScale", "Optimizer", "Schedule", "Update"]


@dataclass(frozen=True)
class Update:
    """What a program sets at the end of a step; for ``g.program(…, update=…)``."""

    _native: _thalweg.Update


@dataclass(frozen=True)
class Schedule:
    """What the learning rate is multiplied by, update by update. It is computed from the step, which a checkpoint holds.

    >>> import thalweg as tw
    >>> tw.optim.AdamW(1e-3, schedule=tw.optim.Schedule.cosine(1000, warmup=100, floor=0.1)).lr
    0.001
    """

    course: str
    updates: int = 0
    factor: float = 1.0
    warmup: int = 0
    floor: float = 0.0

    @staticmethod
    def constant(*, warmup: int = 0) -> Schedule:
        """1 throughout, after a warm-up."""
        return Schedule("constant", warmup=warmup)

    @staticmethod
    def linear(updates: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
        """From 1 to the floor along a line, in so many updates after the warm-up."""
        return Schedule("linear", updates, warmup=warmup, floor=floor)

    @staticmethod
    def cosine(updates: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
        """From 1 to the floor along half a cosine, in so many updates after the warm-up."""
        return Schedule("cosine", updates, warmup=warmup, floor=floor)

    @staticmethod
    def steps(every: int, factor: float, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
        """Times ``factor`` after every so many updates."""
        return Schedule("steps", every, factor, warmup, floor)


@dataclass(frozen=True)
class LossScale:
    """What the loss is multiplied by while it is differentiated, so that gradients in f16 do not vanish. Updates in which a
    gradient is infinite or NaN are skipped."""

    initial: float = 65536.0
    grow_after: int = 2000
    is_dynamic: bool = True

    @staticmethod
    def constant(factor: float) -> LossScale:
        """Always this factor."""
        return LossScale(factor, 0, False)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What all optimizers share.

    Args:
        schedule: What the rate is multiplied by, update by update.
        clip_norm: Gradients whose norm over all parameters together is larger are scaled down to it.
        accumulate: Gradients are averaged over so many runs, and the last of them updates.
        loss_scale: For f16.
        name: What its slots are called after.
    """

    schedule: Schedule | None = None
    clip_norm: float | None = None
    accumulate: int | None = None
    loss_scale: LossScale | None = None
    name: str | None = None

    def _rule(self) -> tuple[str, dict[str, Any]]:
        raise NotImplementedError("use one of the optimizers of thalweg.optim")

    def minimize(self, loss: Tensor) -> Update:
        """One step against the gradient of ``loss``, for every parameter that it depends on."""
        graph = loss.graph
        rule, options = self._rule()
        lr = options["lr"]
        options["lr"] = graph._own(lr) if hasattr(lr, "graph") else float(lr)
        if (s := self.schedule) is not None:
            options["schedule"] = (s.course, s.updates, s.factor, s.warmup, s.floor)
        if (scale := self.loss_scale) is not None:
            options["loss_scale"] = (scale.is_dynamic, scale.initial, scale.grow_after)
        options |= {"clip_norm": self.clip_norm, "accumulate": self.accumulate, "name": self.name}
        return Update(graph._native.minimize(graph._place, here(), rule, options, graph._own(loss)))


@dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019).

    Args:
        lr: The learning rate: a number, or a tensor without axes that is computed from ``g.step()``.
    """

    lr: float | Tensor
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def _rule(self) -> tuple[str, dict[str, Any]]:
        return "adamw", {
            "lr": self.lr,
            "betas": tuple(map(float, self.betas)),
            "eps": float(self.eps),
            "weight_decay": float(self.weight_decay),
        }


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, with momentum if it is given any.

    Args:
        lr: The learning rate: a number, or a tensor without axes that is computed from ``g.step()``.
        momentum: How much of the last step stays.
    """

    lr: float | Tensor
    momentum: float = 0.0

    def _rule(self) -> tuple[str, dict[str, Any]]:
        return "sgd", {"lr": self.lr, "momentum": float(self.momentum)}
