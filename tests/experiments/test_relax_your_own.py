"""What relax-your-own measures."""

import pytest
import torch
from torch import nn

from rai_utils.experiments import relax_your_own
from rai_utils.experiments.relax_your_own import (
    BATCH_METHODS,
    METHODS,
    TASKS,
    cost_cell,
    judge,
    loss_of,
    own_cell,
    train,
)
from rai_utils.modules import relax


@pytest.fixture(autouse=True)
def few_examples(monkeypatch):
    monkeypatch.setattr(relax_your_own, "EXAMPLES", 60)
    monkeypatch.setattr(relax_your_own, "BATCH", 25)


@pytest.mark.parametrize("name", TASKS)
def test_networks_and_data_belong_to_their_number_and_fit_each_other(name):
    task = TASKS[name]
    data, module = task.draw(3), task.network(3)
    again, other = task.network(3), task.network(4)
    weights, same, others = (next(m.parameters()) for m in (module, again, other))
    assert torch.equal(weights, same) and not torch.equal(weights, others)
    assert not torch.equal(data.x, task.draw(4).x)
    assert loss_of(data, module(data.x), data.y).isfinite()
    for select in (task.once, task.every):
        with relax(module, data.x, select) as relaxed:
            assert (len(relaxed.targets) == 1) == (select is task.once)


def test_rai_is_adam_on_weights_and_faster_targets():
    task = TASKS["regression"]
    data = task.draw(1)
    found, seconds, size = train(task, data, 1, "RAI", 0.01, passes=3)
    module = task.network(1)
    target = module[:3](data.x).detach().clone().requires_grad_()
    rates = {"params": [target], "lr": 0.1}
    optimizer = torch.optim.Adam([{"params": [*module.parameters()], "lr": 0.01}, rates])
    for _ in range(3):
        loss = (module[3:](target) - data.y).square().mean()
        loss = loss + (module[:3](data.x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, reference in zip(found.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(one, reference)
    assert len(seconds) == 3 and size == 60 * 32 * 4 * 3


@pytest.mark.parametrize("method", (*METHODS, *BATCH_METHODS))
def test_every_method_trains_what_it_says_and_leaves_an_ordinary_network(method):
    task = TASKS["convolutional net"]
    data, start = task.draw(0), task.network(0)
    module, seconds, size = train(
        task, data, 0, method, 0.01, passes=4
    )  # the label goes down a layer a step
    assert len(seconds) == (4 if method in METHODS else 4 * 3)
    assert (size > 0) == (
        method not in ("backprop", "backprop, batches", "last layer", "fresh targets")
    )
    moved = [
        not torch.equal(a, b) for a, b in zip(module.parameters(), start.parameters(), strict=True)
    ]
    assert moved == ([False] * 4 + [True] * 2 if method == "last layer" else [True] * 6)
    relax(module, data.x, nn.Linear).close()


def test_scores_are_those_of_the_plain_forward_pass():
    task = TASKS["regression"]
    data, module = task.draw(2), task.network(2)
    with torch.no_grad():
        residual = module(data.held_out_x) - data.held_out_y
        expected = 1 - residual.square().mean() / data.held_out_y.var(correction=0)
    assert judge(module, data)["held_out"] == pytest.approx(expected.item(), rel=1e-5)
    task = TASKS["LSTM"]
    data, module = task.draw(2), task.network(2)
    right = [int(module(x[None]).argmax()) == int(y) for x, y in zip(data.x, data.y, strict=True)]
    assert judge(module, data)["train"] == pytest.approx(sum(right) / 60)


def test_a_cell_tunes_on_development_and_reports_other_networks(monkeypatch):
    asked = []
    task = TASKS["regression"]
    monkeypatch.setattr(
        relax_your_own.Task, "network", lambda _, n: asked.append(n) or task.build()
    )
    settings = {"passes": 1, "networks": 2, "tuning_networks": 2, "rates": [0.01, 0.03]}
    cell = own_cell("regression", "backprop", **settings)
    assert set(asked[:4]) == {1000, 1001} and asked[-2:] == [0, 1]
    assert len(cell["held_out"]) == 2 and cell["rate"] in cell["rates"]


def test_the_cost_is_a_ratio_with_its_quartiles():
    median, low, high = cost_cell("5 layers", rounds=3, repeats=1)["ratio"]
    assert 0 < low <= median <= high
