"""The lecture's derivatives: its table, the sigmoid unit's gradient, its computational graph.

Each rule is written out as the lecture gives it, and can be held against what sympy derives and
against automatic differentiation in float64, which know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sympy
import torch
from sympy.parsing.sympy_parser import parse_expr
from torch import Tensor

_A, _N = sympy.symbols("a n", positive=True)
_VALUES = {_A: 1.7, _N: 3.5}  # a above 0 and not 1, so that log_a exists

DERIVATIVES: dict[str, tuple[str, str]] = {
    "(a) = 0": ("a", "0"),
    "(x) = 1": ("x", "1"),
    "(au) = a u'": ("a*u", "a*du"),
    "(u + v - w) = u' + v' - w'": ("u + v - w", "du + dv - dw"),
    "(uv) = u v' + v u'": ("u*v", "u*dv + v*du"),
    "(u/v) = u'/v - u v'/v^2": ("u/v", "du/v - u*dv/v**2"),
    "(u^n) = n u^{n-1} u'": ("u**n", "n*u**(n - 1)*du"),
    r"\sqrt{u} = u' / (2\sqrt{u})": ("sqrt(u)", "du/(2*sqrt(u))"),
    "(1/u) = -u'/u^2": ("1/u", "-du/u**2"),
    "(1/u^n) = -n u'/u^{n+1}": ("1/u**n", "-n*du/u**(n + 1)"),
    r"f(u) = \frac{df}{du} u'": ("tanh(u)", "(1 - tanh(u)**2)*du"),
    r"\ln u = u'/u": ("log(u)", "du/u"),
    r"\log_a u = \log_a(e)\, u'/u": ("log(u)/log(a)", "log(E)/log(a)*du/u"),
    "e^u = e^u u'": ("exp(u)", "exp(u)*du"),
    r"a^u = a^u \ln(a)\, u'": ("a**u", "a**u*log(a)*du"),
    r"u^v = v u^{v-1} u' + \ln(u)\, u^v v'": ("u**v", "v*u**(v - 1)*du + log(u)*u**v*dv"),
    r"\sin u = \cos(u) u'": ("sin(u)", "cos(u)*du"),
    r"\cos u = -\sin(u) u'": ("cos(u)", "-sin(u)*du"),
    r"\tan u = \sec^2(u) u'": ("tan(u)", "du/cos(u)**2"),
    r"\cot u = -\csc^2(u) u'": ("1/tan(u)", "-du/sin(u)**2"),
    r"\sec u = \sec(u) \tan(u) u'": ("1/cos(u)", "tan(u)/cos(u)*du"),
    r"\csc u = -\csc(u) \cot(u) u'": ("1/sin(u)", "-du/(sin(u)*tan(u))"),
}
"""Every row of the lecture's table, in its order: in TeX, as a function of u, v, w, and its rule.

The row of f(u) is the chain rule, with tanh for f.
"""

_X = sympy.Symbol("x", real=True)
_FUNCTIONS = sympy.symbols("u v w", positive=True)
_SLOPES = sympy.symbols("du dv dw")
_NAMES: dict[str, Any] = {str(symbol): symbol for symbol in (_A, _N, _X, *_FUNCTIONS, *_SLOPES)}


def _parsed(formula: str) -> tuple[Any, Any]:
    function, derivative = DERIVATIVES[formula]
    return parse_expr(function, _NAMES), parse_expr(derivative, _NAMES)


def holds_symbolically(formula: str) -> bool:
    """Whether a row, a key of ``DERIVATIVES``, is what sympy derives for any u(x), v(x), w(x)."""
    function, derivative = _parsed(formula)
    free = [each(_X) for each in sympy.symbols("u v w", cls=sympy.Function)]
    known = {s: f.diff(_X) for s, f in zip(_SLOPES, free, strict=True)}
    known |= dict(zip(_FUNCTIONS, free, strict=True))
    rest = function.subs(known).diff(_X) - derivative.subs(known)
    return bool(sympy.simplify(rest) == 0)


def rule_deviation(formula: str) -> float:
    """Greatest relative deviation of a row from automatic differentiation in float64.

    It is |rule − autograd| / max(1, |autograd|), with u = 1 + x²/4, v = 2 + sin x and w = eˣ at 101
    points x from 0.1 to 1: u and v stay above 0, and sin u and cos u away from 0, so every row of
    the table is defined. ``formula`` is a key of ``DERIVATIVES``.
    """
    function, derivative = (each.subs(_VALUES) for each in _parsed(formula))
    x = torch.linspace(0.1, 1, 101, dtype=torch.float64, requires_grad=True)
    u, v, w = 1 + x**2 / 4, 2 + x.sin(), x.exp()
    value = sympy.lambdify([_X, *_FUNCTIONS], function, [torch])(x, u, v, w)
    (found,) = torch.autograd.grad((value + 0 * x).sum(), x)
    names = [*_FUNCTIONS, *_SLOPES]
    with torch.no_grad():
        rule = sympy.lambdify(names, derivative, [torch])(u, v, w, x / 2, x.cos(), x.exp())
        return float(((rule - found).abs() / found.abs().clamp(min=1)).max())


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

# What an operation makes of its inputs, and its derivative with respect to each of them.
_OPERATIONS: dict[Operation, tuple[Callable[..., float], Callable[..., tuple[float, ...]]]] = {
    "cube": (lambda u: u**3, lambda u: (3 * u**2,)),
    "product": (lambda u, v: u * v, lambda u, v: (v, u)),
    "triple": (lambda u: 3 * u, lambda u: (3.0,)),
    "sum": (lambda u, v: u + v, lambda u, v: (1.0, 1.0)),
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
        gradient: share of the output's gradient that comes back along it.
    """

    source: str
    target: str
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
            function, _ = _OPERATIONS[node.operation]
            values[node.name] = function(*(values[name] for name in node.inputs))
    gradients = dict.fromkeys(values, 0.0)
    gradients[nodes[-1].name] = 1.0
    edges: list[Edge] = []
    for node in reversed(nodes):
        if node.operation == "input":
            continue
        _, derivative = _OPERATIONS[node.operation]
        slopes = derivative(*(values[name] for name in node.inputs))
        for source, slope in zip(node.inputs, slopes, strict=True):
            carried = gradients[node.name] * slope
            gradients[source] += carried
            edges.append(Edge(source, node.name, carried))
    return values, gradients, tuple(edges)
