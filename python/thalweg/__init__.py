"""Deep learning as one static dataflow graph: declared in a few lines, planned whole before it runs, and run on whatever devices there are.

>>> import thalweg as tw
>>> from thalweg import nn, optim
>>> g = tw.Graph("digits", seed=0)
>>> batch = g.dim("batch", max=512)
>>> image, label = g.input("image", "f32", (batch, 1, 8, 8)), g.input("label", "i32", (batch,))
>>> logits = nn.Sequential(nn.Flatten(), nn.Linear(64), tw.relu, nn.Linear(10))(image)
>>> loss = nn.cross_entropy(logits, label).mean().named("loss")
>>> accuracy = (logits.argmax() == label).mean().named("accuracy")
>>> g.program("train", outputs=[loss], update=optim.AdamW(3e-3).minimize(loss))
>>> g.program("test", outputs=[loss, accuracy])
>>> model = g.compile()
>>> train, test = tw.data.digits()
>>> for b in model.batches(train.batches(64, shuffle=0, epochs=10)):
...     out = model.train(b)
>>> float(model.test(test.all()).accuracy) > 0.9
True
"""

from . import _functions, _thalweg, data, init, kernel, nn, ops, optim
from ._arrays import ArrayLike, DTypeLike
from ._cluster import Cluster, Strategy
from ._errors import (
    CheckpointError,
    ClusterError,
    DataError,
    Diagnostic,
    Error,
    FeedError,
    GraphError,
    InternalError,
    NotFiniteError,
    RunError,
    UnknownNameError,
)
from ._functions import *  # noqa: F403
from ._graph import Graph
from ._model import Feeds, Model, Program, Unshared, Variable
from ._progress import progress
from ._report import Report
from ._tensor import Axes, Extent, Operand, Shape, Tensor
from ._thalweg import Dim, Outputs

__version__: str = _thalweg.__version__

__all__ = [
    "ArrayLike",
    "Axes",
    "CheckpointError",
    "Cluster",
    "ClusterError",
    "DTypeLike",
    "DataError",
    "Diagnostic",
    "Dim",
    "Error",
    "Extent",
    "FeedError",
    "Feeds",
    "Graph",
    "GraphError",
    "InternalError",
    "Model",
    "NotFiniteError",
    "Operand",
    "Outputs",
    "Program",
    "Report",
    "RunError",
    "Shape",
    "Strategy",
    "Tensor",
    "UnknownNameError",
    "Unshared",
    "Variable",
    "__version__",
    "data",
    "init",
    "kernel",
    "nn",
    "ops",
    "optim",
    "progress",
]
__all__ += _functions.__all__
