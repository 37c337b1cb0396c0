"""The lecture's derivatives: its table, the sigmoid unit's gradient, its computational graph.

Each rule is written out as the lecture gives it and can be held against automatic
differentiation in float64, which knows nothing of the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

_FACTOR = 1.7  # the constant a of the table; above 0 and not 1, so that log_a exists
_EXPONENT = 3.5  # its n


@dataclass(frozen=True)
class DerivativeRule:
    """One row of the table.

    Attributes:
        formula: the rule in TeX.
        function: (x, u, v, w) -> the expression, with u, v, w functions of x.
        derivative: (u, v, u', v', w') -> its derivative by the rule.
    """

    formula: str
    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _rule(
    formula: str,
    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    derivative: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor],
) -> DerivativeRule:
    return DerivativeRule(rf"\frac{{d}}{{dx}}{formula}", function, derivative)


DERIVATIVES: tuple[DerivativeRule, ...] = (
    _rule("(a) = 0", lambda x, u, v, w: 0 * x + _FACTOR, lambda u, v, du, dv, dw: 0 * u),
    _rule("(x) = 1", lambda x, u, v, w: x, lambda u, v, du, dv, dw: 0 * u + 1),
    _rule("(au) = a u'", lambda x, u, v, w: _FACTOR * u, lambda u, v, du, dv, dw: _FACTOR * du),
    _rule(
        "(u + v - w) = u' + v' - w'",
        lambda x, u, v, w: u + v - w,
        lambda u, v, du, dv, dw: du + dv - dw,
    ),
    _rule("(uv) = u v' + v u'", lambda x, u, v, w: u * v, lambda u, v, du, dv, dw: u * dv + v * du),
    _rule(
        r"(u/v) = u'/v - u v'/v^2",
        lambda x, u, v, w: u / v,
        lambda u, v, du, dv, dw: du / v - u * dv / v**2,
    ),
    _rule(
        "(u^n) = n u^{n-1} u'",
        lambda x, u, v, w: u**_EXPONENT,
        lambda u, v, du, dv, dw: _EXPONENT * u ** (_EXPONENT - 1) * du,
    ),
    _rule(
        r"\sqrt{u} = u' / (2\sqrt{u})",
        lambda x, u, v, w: u.sqrt(),
        lambda u, v, du, dv, dw: du / (2 * u.sqrt()),
    ),
    _rule("(1/u) = -u'/u^2", lambda x, u, v, w: 1 / u, lambda u, v, du, dv, dw: -du / u**2),
    _rule(
        "(1/u^n) = -n u'/u^{n+1}",
        lambda x, u, v, w: 1 / u**_EXPONENT,
        lambda u, v, du, dv, dw: -_EXPONENT / u ** (_EXPONENT + 1) * du,
    ),
    _rule(
        r"f(u) = \frac{df}{du} u'",
        lambda x, u, v, w: u.tanh(),
        lambda u, v, du, dv, dw: (1 - u.tanh() ** 2) * du,
    ),
    _rule(r"\ln u = u'/u", lambda x, u, v, w: u.log(), lambda u, v, du, dv, dw: du / u),
    _rule(
        r"\log_a u = \log_a(e)\, u'/u",
        lambda x, u, v, w: u.log() / math.log(_FACTOR),
        lambda u, v, du, dv, dw: math.log(math.e, _FACTOR) / u * du,
    ),
    _rule("e^u = e^u u'", lambda x, u, v, w: u.exp(), lambda u, v, du, dv, dw: u.exp() * du),
    _rule(
        r"a^u = a^u \ln(a)\, u'",
        lambda x, u, v, w: _FACTOR**u,
        lambda u, v, du, dv, dw: _FACTOR**u * math.log(_FACTOR) * du,
    ),
    _rule(
        r"u^v = v u^{v-1} u' + \ln(u)\, u^v v'",
        lambda x, u, v, w: u**v,
        lambda u, v, du, dv, dw: v * u ** (v - 1) * du + u.log() * u**v * dv,
    ),
    _rule(
        r"\sin u = \cos(u) u'", lambda x, u, v, w: u.sin(), lambda u, v, du, dv, dw: u.cos() * du
    ),
    _rule(
        r"\cos u = -\sin(u) u'", lambda x, u, v, w: u.cos(), lambda u, v, du, dv, dw: -u.sin() * du
    ),
    _rule(
        r"\tan u = \sec^2(u) u'",
        lambda x, u, v, w: u.tan(),
        lambda u, v, du, dv, dw: du / u.cos() ** 2,
    ),
    _rule(
        r"\cot u = -\csc^2(u) u'",
        lambda x, u, v, w: 1 / u.tan(),
        lambda u, v, du, dv, dw: -du / u.sin() ** 2,
    ),
    _rule(
        r"\sec u = \sec(u) \tan(u) u'",
        lambda x, u, v, w: 1 / u.cos(),
        lambda u, v, du, dv, dw: u.tan() / u.cos() * du,
    ),
    _rule(
        r"\csc u = -\csc(u) \cot(u) u'",
        lambda x, u, v, w: 1 / u.sin(),
        lambda u, v, du, dv, dw: -du / (u.sin() * u.tan()),
    ),
)
"""Every row of the lecture's table, in its order."""


def rule_deviation(rule: DerivativeRule, points: int = 101) -> float:
    """Greatest relative deviation of a rule from automatic differentiation in float64.

    It is |rule − autograd| / max(1, |autograd|), with u = 1 + x²/4, v = 2 + sin x and w = eˣ at so
    many points x from 0.1 to 1: u and v stay above 0, and sin u and cos u away from 0, so every row
    of the table is defined.
    """
    if points < 1:
        raise ValueError(f"points must be at least 1, got {points}")
    x = torch.linspace(0.1, 1, points, dtype=torch.float64, requires_grad=True)
    u, v, w = 1 + x**2 / 4, 2 + x.sin(), x.exp()
    (found,) = torch.autograd.grad(rule.function(x, u, v, w).sum(), x)
    with torch.no_grad():
        expected = rule.derivative(u, v, x / 2, x.cos(), x.exp())
        return float(((expected - found).abs() / found.abs().clamp(min=1)).max())


def sigmoid_unit_gradient(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of one sigmoid unit's cross-entropy by the lecture's formula, (ŷ − y) x.

    Weights w (features,), inputs x (examples, features) and labels y 0 or 1 (examples,) give one
    gradient an example, (examples, features).
    """
    if w.ndim != 1 or x.shape[1:] != w.shape or y.shape != x.shape[:1]:
        raise ValueError(
            "w must be (features,), x (examples, features) and y (examples,), "
            f"got {tuple(w.shape)}, {tuple(x.shape)} and {tuple(y.shape)}"
        )
    return (torch.sigmoid(x @ w) - y)[:, None] * x


Operation = Literal["input", "cube", "product", "triple", "sum"]

_FORWARD: dict[Operation, Callable[..., float]] = {
    "cube": lambda u: u**3,
    "product": lambda u, v: u * v,
    "triple": lambda u: 3 * u,
    "sum": lambda u, v: u + v,
}
_LOCAL: dict[Operation, Callable[..., tuple[float, ...]]] = {
    "cube": lambda u: (3 * u**2,),
    "product": lambda u, v: (v, u),
    "triple": lambda u: (3.0,),
    "sum": lambda u, v: (1.0, 1.0),
}


@dataclass(frozen=True)
class Node:
    """A value of a computational graph: its name, how it is made, and from which nodes."""

    name: str
    operation: Operation
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edge:
    """What flows between two nodes.

    Attributes:
        source: name of the node that is read.
        target: name of the node that reads it.
        local: derivative of the target with respect to the source along this edge.
        gradient: share of the output's gradient that comes back along it.
    """

    source: str
    target: str
    local: float
    gradient: float


LECTURE_GRAPH: tuple[Node, ...] = (
    Node("w1", "input"),
    Node("w2", "input"),
    Node("a", "cube", ("w1",)),
    Node("b", "product", ("a", "w2")),
    Node("c", "triple", ("w1",)),
    Node("g", "sum", ("b", "c")),
)
"""g = w₁³ w₂ + 3 w₁ in the lecture's steps: a = w₁³, b = a w₂, c = 3 w₁, g = b + c."""


def backpropagate(
    nodes: Sequence[Node], inputs: dict[str, float]
) -> tuple[dict[str, float], dict[str, float], tuple[Edge, ...]]:
    """Forward values and backward gradients of a computational graph, and its edges.

    The gradient of a node is the sum over the edges that leave it of (gradient of the reader) ×
    (local derivative): the chain rule with all its paths. Each node comes after the nodes that it
    reads, the last one is the output, and ``inputs`` give the value of each input node, or a
    ValueError says so.
    """
    values: dict[str, float] = {}
    for node in nodes:
        missing = [name for name in node.inputs if name not in values]
        if missing:
            raise ValueError(f"node {node.name} must come after {', '.join(missing)}")
        if node.operation == "input":
            if node.name not in inputs:
                raise ValueError(f"input {node.name} needs a value, got {sorted(inputs)}")
            values[node.name] = float(inputs[node.name])
        else:
            values[node.name] = _FORWARD[node.operation](*(values[name] for name in node.inputs))
    gradients = dict.fromkeys(values, 0.0)
    gradients[nodes[-1].name] = 1.0
    edges: list[Edge] = []
    for node in reversed(nodes):
        if node.operation == "input":
            continue
        slopes = _LOCAL[node.operation](*(values[name] for name in node.inputs))
        for source, slope in zip(node.inputs, slopes, strict=True):
            carried = gradients[node.name] * slope
            gradients[source] += carried
            edges.append(Edge(source, node.name, slope, carried))
    return values, gradients, tuple(edges)
