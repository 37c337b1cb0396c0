"""The lecture's derivatives against autograd, finite differences and hand calculation."""

import pytest
import torch

from rai_utils.experiments.network_basics.calculus import (
    DERIVATIVES,
    LECTURE_GRAPH,
    Node,
    backpropagate,
    holds_symbolically,
    rule_deviation,
    sigmoid_unit_gradient,
)


@pytest.mark.parametrize("formula", DERIVATIVES)
def test_each_rule_is_autograds_and_sympys(formula):
    assert rule_deviation(formula) < 1e-13
    assert holds_symbolically(formula)


@pytest.mark.parametrize("formula", DERIVATIVES)
def test_a_wrong_rule_is_noticed(formula, monkeypatch):
    function, derivative = DERIVATIVES[formula]
    monkeypatch.setitem(DERIVATIVES, formula, (function, f"{derivative} + 1/10**6"))
    assert rule_deviation(formula) > 1e-8
    assert not holds_symbolically(formula)


def test_the_table_has_the_lectures_rows():
    assert len(DERIVATIVES) == 22


def test_gradient_of_a_sigmoid_unit_is_autograds():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)
    x = torch.randn(20, 3, dtype=torch.float64, generator=generator)
    y = (torch.rand(20, generator=generator) > 0.5).double()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y, reduction="none")
    expected = torch.stack([torch.autograd.grad(e, w, retain_graph=True)[0] for e in losses])
    torch.testing.assert_close(sigmoid_unit_gradient(w.detach(), x, y), expected)
    with pytest.raises(ValueError, match="features"):
        sigmoid_unit_gradient(w.detach(), x[:, :2], y)


def test_the_lectures_graph_at_its_point():
    values, gradients, edges = backpropagate(LECTURE_GRAPH, {"w1": 2, "w2": 3})
    assert values == {"w1": 2, "w2": 3, "a": 8, "b": 24, "c": 6, "g": 30}
    assert gradients == {"w1": 39, "w2": 8, "a": 3, "b": 1, "c": 1, "g": 1}
    assert {(e.source, e.target): e.gradient for e in edges} == {
        ("w1", "a"): 36,
        ("w1", "c"): 3,
        ("a", "b"): 3,
        ("w2", "b"): 8,
        ("b", "g"): 1,
        ("c", "g"): 1,
    }


def test_the_graphs_gradient_is_autograds_elsewhere():
    w = torch.tensor([-1.3, 0.7], dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(w[0] ** 3 * w[1] + 3 * w[0], w)[0]
    _, gradients, _ = backpropagate(LECTURE_GRAPH, {"w1": -1.3, "w2": 0.7})
    assert gradients["w1"] == pytest.approx(float(expected[0]))
    assert gradients["w2"] == pytest.approx(float(expected[1]))


def test_a_graph_out_of_order_is_refused():
    with pytest.raises(ValueError, match="needs a value"):
        backpropagate(LECTURE_GRAPH, {"w1": 2})
    with pytest.raises(ValueError, match="must come after a"):
        backpropagate([Node("b", "triple", ("a",))], {})
