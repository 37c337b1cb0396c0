"""Mini-batch fits against slow twins: one dictionary entry an example, torch's own optimisers."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rai_utils.data import digits
from rai_utils.experiments.rai_questions_minibatches import minibatches
from rai_utils.experiments.rai_questions_minibatches.minibatches import (
    METHODS,
    WIDER,
    Budget,
    TargetTable,
    Trial,
    chosen_rates,
    compare,
    filled_table,
    fit_backprop_batches,
    fit_fresh,
    fit_shared,
    fit_table,
    fresh_gradients,
    layer_cosines,
    table_bytes,
    train,
    validation_split,
    work_of,
)
from rai_utils.models import Architecture, build_mlp
from rai_utils.modules import relax
from rai_utils.relaxation import forward_targets, relaxation_plan
from rai_utils.training import Phase, Watch, evaluate, fit_relaxed

ARCHITECTURE = Architecture((64, 6, 5, 5, 10), "tanh", "softmax")


@pytest.fixture
def data():
    return digits(20, 30).to("cpu", torch.float64)


@pytest.fixture
def model():
    return build_mlp(ARCHITECTURE, [0, 1], dtype=torch.float64)


# --- the table ---


def offset(layer, x):
    """How far the targets of a layer start from the forward pass, for each example its own."""
    generator = torch.Generator().manual_seed(layer)
    mixed = torch.randn(x.shape[-1], ARCHITECTURE.widths[layer], generator=generator)
    return torch.sin(x @ mixed.to(x.dtype))


@pytest.fixture
def disturbed(monkeypatch):
    """Let the targets of an example start away from its forward pass.

    Rprop reads signs and Adam divides by the size of a gradient. From the forward pass on, many
    are a difference of nothing, and another processor's rounding moves a number as far as a
    gradient of 1 would.
    """
    fresh = minibatches.fresh_targets

    def moved(model, x, plan, rule, rates):
        batch = fresh(model, x, plan, rule, rates)
        for layer in plan.layers:
            run, position = plan.locate(layer)
            batch.values[run][position] += offset(layer, x)
        return batch

    monkeypatch.setattr(minibatches, "fresh_targets", moved)


def example_by_example(model, data, budget, weight_rate, target_rate, renew_every=None):
    """One ordinary network; every example has its own targets and its own optimiser."""
    module = model.as_module(0)
    linears = [m for m in module if isinstance(m, nn.Linear)]
    trained = [linear.weight for linear in linears] + [linear.bias for linear in linears]
    optimizer = torch.optim.Adam(trained, lr=weight_rate)
    kept = {}
    generator = torch.Generator().manual_seed(budget.order_seed)
    for turn in range(round(budget.work)):
        if renew_every and turn % renew_every == 0:
            kept = {}
        for rows in torch.randperm(len(data.x), generator=generator).split(budget.batch):
            total = 0
            for row in rows.tolist():
                if row not in kept:
                    own, h = [], data.x[row]
                    for layer, linear in enumerate(linears, start=1):
                        z = linear(h).detach()
                        own.append(nn.Parameter(z + offset(layer, data.x[row])))
                        h = torch.tanh(z)
                    kept[row] = own, torch.optim.Adam(own, lr=target_rate)
                own, h = kept[row][0], data.x[row]
                for linear, target in zip(linears, own, strict=True):
                    total = total + (linear(h) - target).square().mean()
                    h = torch.tanh(target)
                total = total + nn.functional.cross_entropy(own[-1], data.y[row])
            for each in (optimizer, *(kept[row][1] for row in rows.tolist())):
                each.zero_grad()
            (total / len(rows)).backward()
            for each in (optimizer, *(kept[row][1] for row in rows.tolist())):
                each.step()
    return torch.cat([p.detach().flatten() for p in trained])


def flat_weights(model, position=0):
    module = model.as_module(position)
    linears = [m for m in module if isinstance(m, nn.Linear)]
    return torch.cat(
        [m.weight.detach().flatten() for m in linears]
        + [m.bias.detach().flatten() for m in linears]
    )


@pytest.mark.parametrize("renew_every", [None, 2])
def test_each_example_keeps_its_targets_and_its_optimiser(data, model, disturbed, renew_every):
    # A pass costs 1 and, where targets are made, a forward pass more: the work of six passes.
    work = work_of(ARCHITECTURE)
    fills = 1 if renew_every is None else 3
    budget = Budget(6 + fills * work.forward / work.both, 6, order_seed=3, evaluations=1)
    fit = fit_table(model, data, budget, [0.01, 0.02], [0.1, 0.1], renew_every=renew_every)
    assert fit.history.passes[-1] == pytest.approx(6)
    for position, rate in enumerate((0.01, 0.02)):
        expected = example_by_example(
            model.select([position]), data, Budget(6, 6, order_seed=3), rate, 0.1, renew_every
        )
        torch.testing.assert_close(flat_weights(fit.model, position), expected)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rprop"])
def test_a_batch_of_all_examples_is_the_full_batch_fit(data, model, disturbed, optimizer):
    rate = {"adam": 0.01, "sgd": 0.5, "rprop": 0.01}[optimizer]
    targets = forward_targets(model, data.x, relaxation_plan(ARCHITECTURE))
    for layer in targets.plan.layers:
        targets.at(layer).add_(offset(layer, data.x))
    expected = fit_relaxed(
        model,
        data,
        Phase(12, rate, optimizer),
        targets=targets,
        watch=Watch(evaluate_at=(0, 12)),
        device="cpu",
    )
    budget = Budget(12, len(data.x), evaluations=1)
    fit = fit_table(model, data, budget, [rate] * 2, [rate] * 2, optimizer=optimizer)
    assert fit.history.steps.tolist() == [0, 12]
    for ours, theirs in (
        (fit.history.loss, expected.history.loss),
        (fit.history.held_out_loss, expected.history.held_out_loss),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    for position in range(2):
        torch.testing.assert_close(
            flat_weights(fit.model, position), flat_weights(expected.model, position)
        )


def test_targets_of_other_examples_are_refused(data, model):
    table = TargetTable(relaxation_plan(ARCHITECTURE), data.x, 2)
    rows, rates = torch.tensor([3, 1, 7]), torch.tensor([0.1, 0.1], dtype=torch.float64)
    table.take(rows, data.x[rows], model, rates)
    with pytest.raises(ValueError, match="got 2 of 3 examples that differ"):
        table.take(rows, data.x[[1, 3, 7]], model, rates)
    with pytest.raises(ValueError, match=r"shape \(3, 64\), got \(2, 64\)"):
        table.take(rows, data.x[:2], model, rates)
    data.x[4] += 1
    with pytest.raises(ValueError, match="got 1 of 2 examples that differ"):
        table.take(torch.tensor([3, 4]), data.x[3:5], model, rates)


def test_rows_come_back_in_whatever_order_they_are_asked_for(data, model):
    table = TargetTable(relaxation_plan(ARCHITECTURE), data.x, 2)
    rates = torch.tensor([0.1, 0.1], dtype=torch.float64)
    rows = torch.tensor([3, 1, 7])
    batch = table.take(rows, data.x[rows], model, rates)
    for value, state in zip(batch.values, batch.states, strict=True):
        value += torch.arange(3.0)[:, None]
        for part in state:
            part += torch.arange(3.0)[:, None]
    batch.updates = torch.tensor([5, 6, 7], dtype=torch.int32)
    table.put(rows, batch)
    again = table.take(torch.tensor([7, 3]), data.x[[7, 3]], model, rates)
    assert again.updates.tolist() == [7, 5]
    for value, kept in zip(again.values, batch.values, strict=True):
        assert torch.equal(value, kept[:, :, [2, 0]])
    for state, kept in zip(again.states, batch.states, strict=True):
        for part, kept_part in zip(state, kept, strict=True):
            assert torch.equal(part, kept_part[:, :, [2, 0]])


def test_a_renewed_row_is_the_forward_pass_with_fresh_state(data, model):
    plan = relaxation_plan(ARCHITECTURE)
    table = TargetTable(plan, data.x, 2)
    rates = torch.tensor([0.1, 0.1], dtype=torch.float64)
    rows = torch.arange(20)
    batch = table.take(rows, data.x, model, rates)
    for value in batch.values:
        value += 1
    for state in batch.states:
        state[0].fill_(9.0)
    batch.updates += 4
    table.put(rows, batch)
    table.renew()
    renewed = table.take(rows, data.x, model, rates)
    for value, expected in zip(
        renewed.values, forward_targets(model, data.x, plan).values, strict=True
    ):
        assert torch.equal(value, expected)
    assert not any(part.any() for state in renewed.states for part in state)
    assert not renewed.updates.any()


@pytest.mark.parametrize(("rule", "states"), [("adam", 2), ("rprop", 2), ("sgd", 0)])
def test_the_table_has_the_bytes_of_the_formula(rule, states):
    x = torch.zeros(50, 64)
    table = TargetTable(relaxation_plan(ARCHITECTURE), x, 1, rule)
    assert table.bytes == table_bytes(ARCHITECTURE, 50, states)
    assert table.bytes == 4 * 50 * (6 + 5 + 5 + 10) * (1 + states)
    three = TargetTable(relaxation_plan(ARCHITECTURE), x, 3, rule)
    assert three.bytes == 3 * table.bytes


def test_a_table_of_random_examples_is_filled():
    table, model = filled_table(70)
    assert (table.updates == 0).all()
    z = model(table.x)
    torch.testing.assert_close(table.values[-1][0], z.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2), "examples must be at least 1, got 0"),
        ((5, -1), "states must be at least 0, got -1"),
        ((5, 1.5), "states must be a whole number, got 1.5"),
    ],
)
def test_bytes_of_impossible_tables_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        table_bytes(ARCHITECTURE, *arguments)


# --- fresh targets ---


@pytest.mark.parametrize("inner_steps", [1, 3, 6])
def test_fresh_gradients_are_those_of_the_hooks(data, model, inner_steps):
    rate = 0.7
    found = fresh_gradients(
        model,
        data.x,
        data.y,
        torch.tensor([rate, rate], dtype=torch.float64),
        inner_steps=inner_steps,
    )
    module = model.as_module(1)
    with relax(module, data.x) as relaxed:
        targets = list(relaxed.targets.values())
        for _ in range(inner_steps):
            loss = nn.functional.cross_entropy(module(data.x), data.y)
            gradients = torch.autograd.grad(loss + relaxed.hidden_loss(), targets)
            with torch.no_grad():
                for target, gradient in zip(targets, gradients, strict=True):
                    target -= rate * len(data.x) * gradient
        loss = nn.functional.cross_entropy(module(data.x), data.y)
        (loss + relaxed.hidden_loss()).backward()
    for layer, (run, offset) in enumerate([(0, 0), (1, 0), (2, 0), (3, 0)], start=1):
        linear = module.get_submodule(f"linear{layer}")
        torch.testing.assert_close(found[run][offset, 1], linear.weight.grad)
        torch.testing.assert_close(found[4 + run][offset, 1, 0], linear.bias.grad)


@pytest.mark.parametrize("inner_steps", [1, 2, 3, 4, 5])
def test_the_signal_moves_one_layer_an_inner_step(data, model, inner_steps):
    rates = torch.tensor([0.5, 0.5], dtype=torch.float64)
    found = fresh_gradients(model, data.x, data.y, rates, inner_steps=inner_steps)
    reached = [bool(gradient.any()) for gradient in found[:4]]
    assert reached == [layer > 4 - inner_steps for layer in range(1, 5)]


def test_small_inner_steps_point_where_backpropagation_does(data, model):
    rates = torch.tensor([0.01, 0.01], dtype=torch.float64)
    found = fresh_gradients(model, data.x, data.y, rates, inner_steps=4)
    backward = [torch.zeros_like(gradient) for gradient in found[:4]]
    for position in range(2):
        module = model.as_module(position)
        nn.functional.cross_entropy(module(data.x), data.y).backward()
        for layer in range(1, 5):
            weight = module.get_submodule(f"linear{layer}").weight
            backward[layer - 1][0, position] = weight.grad
            expected = weight.grad.flatten()
            ours = found[layer - 1][0, position].flatten()
            assert ours @ expected / (ours.norm() * expected.norm()) > 0.999
    assert layer_cosines(found[:4], backward).shape == (4, 2)
    assert (layer_cosines(found[:4], backward) > 0.999).all()
    backward[0].neg_()
    backward[3].zero_()
    cosines = layer_cosines(found[:4], backward)
    assert (cosines[0] < -0.999).all()
    assert not cosines[3].any()


def test_a_fresh_fit_moves_the_weights_along_its_gradients(data, model):
    budget = Budget(1, len(data.x), evaluations=1)
    fit = fit_fresh(model, data, budget, [0.5, 0.5], [0.3, 0.3], inner_steps=4, optimizer="sgd")
    assert fit.history.steps.tolist() == [0, 1]
    gradients = fresh_gradients(
        model, data.x, data.y, torch.tensor([0.3, 0.3], dtype=torch.float64), inner_steps=4
    )
    for after, before, gradient in zip(fit.model.weights, model.weights, gradients, strict=False):
        torch.testing.assert_close(after.detach(), before.detach() - 0.5 * gradient)


# --- the mistake, and the baseline ---


def test_shared_targets_are_right_once_and_wrong_from_then_on(data, model):
    def weights(fit, steps):
        budget = Budget(steps * 4 / 20, 4, evaluations=1)
        return flat_weights(fit(model, data, budget, [0.01] * 2, [0.1] * 2).model)

    torch.testing.assert_close(weights(fit_shared, 1), weights(fit_table, 1))
    assert not torch.allclose(weights(fit_shared, 3), weights(fit_table, 3), atol=1e-4)


def test_mini_batch_backpropagation_equals_torchs_loop(data, model):
    fit = fit_backprop_batches(model, data, Budget(3, 8, order_seed=5), [0.01, 0.03])
    module = model.as_module(1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        for rows in torch.randperm(20, generator=generator).split(8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(data.x[rows]), data.y[rows]).backward()
            optimizer.step()
    torch.testing.assert_close(fit.model(data.x)[1], module(data.x))


# --- work, budget, record ---


def multiplications(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2


def test_work_is_what_autograd_multiplies():
    x, y = torch.randn(8, 64), torch.zeros(8, dtype=torch.int64)
    module = build_mlp(ARCHITECTURE, [0]).as_module(0)
    parameters = list(module.parameters())
    work = work_of(ARCHITECTURE)

    def loss():
        return nn.functional.cross_entropy(module(x), y)

    assert multiplications(lambda: module(x)) == 8 * work.forward
    assert multiplications(lambda: loss().backward()) == 8 * work.both
    with relax(module, x) as relaxed:
        targets = list(relaxed.targets.values())

        def relaxed_backward():
            (loss() + relaxed.hidden_loss()).backward()

        assert multiplications(relaxed_backward) == 8 * work.both
        for parameter in parameters:
            parameter.requires_grad_(False)
        assert multiplications(relaxed_backward) == 8 * work.targets
        for parameter in parameters:
            parameter.requires_grad_(True)
        for target in targets:
            target.requires_grad_(False)
        assert multiplications(relaxed_backward) == 8 * work.weights


@pytest.mark.parametrize(
    ("fit", "options"),
    [(fit_table, {}), (fit_table, {"renew_every": 1}), (fit_fresh, {"inner_steps": 3})],
)
def test_the_step_that_reaches_the_budget_is_the_last(data, model, fit, options):
    budget = Budget(2.5, 8, evaluations=5)
    history = fit(model, data, budget, [0.01] * 2, [0.1] * 2, **options).history
    assert history.work[-1] >= 2.5
    work = work_of(ARCHITECTURE)
    most = (work.forward + 3 * work.targets + work.weights) / work.both * 8 / 20
    assert history.work[-1] < 2.5 + most
    assert (np.diff(history.work) > 0).all()
    assert history.work[0] == history.steps[0] == history.passes[0] == 0
    assert len(history.work) == len(history.loss) == len(history.held_out_accuracy)


def test_the_record_is_the_plain_forward_pass_of_the_snapshots(data, model):
    fit = fit_table(model, data, Budget(4, 8, evaluations=4), [0.01] * 2, [0.1] * 2)
    for position, snapshot in enumerate(fit.snapshots):
        loss, accuracy = evaluate(snapshot, data.held_out_x, data.held_out_y, data.task)
        np.testing.assert_array_equal(fit.history.held_out_loss[position], loss)
        np.testing.assert_array_equal(fit.history.held_out_accuracy[position], accuracy)
        loss, _ = evaluate(snapshot, data.x, data.y, data.task)
        np.testing.assert_array_equal(fit.history.loss[position], loss)


def test_a_fit_leaves_what_it_was_given(data, model):
    before = [weight.clone() for weight in model.weights]
    fit_table(model, data, Budget(1, 8), [0.01] * 2, [0.1] * 2)
    assert all(torch.equal(a, b) for a, b in zip(before, model.weights, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_rates": [0.1]}, "learning rate of the weights for each of the 2 networks, got 1"),
        ({"target_rates": [0.1, -1.0]}, "learning rate of the targets must be above 0, got -1.0"),
        ({"target_rates": [0.1, np.inf]}, "learning rate of the targets must be finite, got inf"),
        ({"optimizer": "lion"}, "optimizer must be one of rprop, sgd, .* got 'lion'"),
        (
            {"optimizer": "rprop", "weight_rates": [0.1, 1e-7]},
            r"must lie in \[1e-06, 50\], .*, got 1e-07",
        ),
        ({"optimizer": "rprop", "target_rates": [51, 0.1]}, r"must lie in .*, got 51"),
        ({"renew_every": 1.5}, "renew_every must be a whole number"),
        ({"renew_every": 0}, "renew_every must be at least 1"),
        ({"budget": Budget(1, 21)}, "batch must lie in 1 … 20, got 21"),
    ],
)
def test_wrong_arguments_are_refused(data, model, change, message):
    arguments = {
        "budget": Budget(1, 8),
        "weight_rates": [0.1, 0.1],
        "target_rates": [0.1, 0.1],
        **change,
    }
    with pytest.raises(ValueError, match=message):
        fit_table(model, data, **arguments)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 8), "work must be above 0, got 0"),
        ((np.inf, 8), "work must be finite, got inf"),
        ((np.nan, 8), "work must be finite, got nan"),
        ((1, 0), "batch must be at least 1, got 0"),
        ((1, 2.5), "batch must be a whole number, got 2.5"),
        ((1, 8, 2**32), "order_seed must lie in 0 .* got 4294967296"),
        ((1, 8, -1), "order_seed must lie in 0 .* got -1"),
        ((1, 8, 0, 0), "evaluations must be at least 1, got 0"),
    ],
)
def test_impossible_budgets_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Budget(*values)


@pytest.mark.parametrize("fit", [fit_backprop_batches, fit_shared, fit_table, fit_fresh])
def test_an_unknown_optimiser_is_refused(data, model, fit):
    rates = [[0.1, 0.1]] * (1 if fit is fit_backprop_batches else 2)
    options = {"inner_steps": 2} if fit is fit_fresh else {}
    with pytest.raises(ValueError, match=r"optimizer must be one of .* got 'lion'"):
        fit(model, data, Budget(1, 8), *rates, optimizer="lion", **options)
    with pytest.raises(ValueError, match=r"optimizer must be one of .* got 'lion'"):
        TargetTable(relaxation_plan(ARCHITECTURE), data.x, 1, "lion")


def test_arrays_of_rates_and_numbers_of_numpy_are_as_good_as_lists(data, model):
    one = fit_table(model, data, Budget(1, 8), [0.01, 0.02], [0.1, 0.2])
    other = fit_table(
        model,
        data,
        Budget(np.float32(1), np.int64(8)),
        np.array([0.01, 0.02]),
        torch.tensor([0.1, 0.2], dtype=torch.float64),
    )
    np.testing.assert_array_equal(one.history.loss, other.history.loss)


def test_networks_of_another_shape_are_refused(data):
    model = build_mlp(Architecture((64, 5, 3), "tanh", "softmax"), [0], dtype=torch.float64)
    with pytest.raises(ValueError, match="needs 10 output units"):
        fit_backprop_batches(model, data, Budget(1, 8), [0.1])


# --- the study ---


def test_every_method_is_tuned_with_the_same_effort_and_the_longer_one_with_more():
    effort = {name: len(set(each.trials)) * each.effort for name, each in METHODS.items()}
    assert effort.pop("full batch, longer") == 180
    assert set(effort.values()) == {20}


def test_trials_with_several_options_or_of_no_method_are_refused(data):
    trials = [Trial(0.1, 0.1, 2), Trial(0.1, 0.1, 4)]
    with pytest.raises(ValueError, match="trials must have one option"):
        train("fresh targets", trials, data, Budget(1, 8), 0)
    with pytest.raises(ValueError, match="method must be one of"):
        train("newton", trials, data, Budget(1, 8), 0)


@pytest.mark.parametrize("method", ["backprop", "fresh targets", "renewed table"])
def test_a_replication_judges_the_trial_with_the_lowest_validation_loss(method):
    result = compare(method, seed=5, work=0.4, batch=64)
    assert result == compare(method, seed=5, work=0.4, batch=64)
    tried = result["trials"]
    assert [Trial(t["weight_rate"], t["target_rate"], t["option"]) for t in tried] == list(
        METHODS[method].trials
    )
    best = min(tried, key=lambda trial: trial["validation_loss"])
    assert {key: result[key] for key in asdict(Trial(0.1))} == {
        key: best[key] for key in asdict(Trial(0.1))
    }
    assert result["test_accuracy"][-1] == best["test_accuracy"]
    assert result["work"][-1] >= 0.4


def test_a_rate_at_the_edge_of_those_tried_is_found():
    trials = [asdict(Trial(w, t)) for w in (0.1, 0.2, 0.3) for t in (0.5, 1.0)]
    for method, weight_rate, target_rate, at_edges in (
        ("table", 0.2, 1.0, [False, True]),
        ("fresh targets", 0.3, 1.0, [True, False]),
        ("fresh targets", 0.2, 0.5, [False, True]),
    ):
        cell = {"method": method, "weight_rate": weight_rate, "target_rate": target_rate}
        found = chosen_rates([cell | {"trials": trials}])
        assert [choice[2:] for choice in found] == [
            *zip((weight_rate, target_rate), at_edges, strict=True)
        ]
    held = [asdict(Trial(w, 1.0)) for w in (0.1, 0.2)]
    cell = {"method": "renewed table", "weight_rate": 0.1, "target_rate": 1.0, "trials": held}
    assert chosen_rates([cell]) == [("renewed table", "weight_rate", 0.1, True)]


# --- the validation part ---


def test_spirals_are_drawn_anew_and_both_problems_fit_the_circuit():
    drawn = [compare("backprop", seed, 0.2, 512, "spirals") for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {len(method.trials) for method in WIDER.values()} == {20}
    with pytest.raises(ValueError, match="problem must be one of digits, spirals, got 'suns'"):
        compare("backprop", 0, 0.2, 512, "suns")


def test_a_validation_split_is_part_of_the_training_examples():
    data = digits(400, 300, seed=3)
    split = validation_split(data, 100, seed=5)
    assert len(split.x) == 300
    assert len(split.held_out_x) == 100
    rows = torch.cat([split.x, split.held_out_x]).tolist()
    assert sorted(rows) == sorted(data.x.tolist())
    classes = torch.bincount(data.y) / 400
    assert ((torch.bincount(split.held_out_y) / 100 - classes).abs() < 0.02).all()
    assert torch.equal(split.x, validation_split(data, 100, seed=5).x)
    assert not torch.equal(split.x, validation_split(data, 100, seed=6).x)


@pytest.mark.parametrize("examples", [0, 300])
def test_a_validation_split_leaves_something_in_both_parts(examples):
    with pytest.raises(ValueError, match="examples must lie in 1 … 299"):
        validation_split(digits(300, 300), examples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.5,), "examples must be a whole number, got 2.5"),
        ((2, 2**32), "seed must lie in 0"),
    ],
)
def test_an_impossible_validation_split_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        validation_split(digits(300, 300), *arguments)
