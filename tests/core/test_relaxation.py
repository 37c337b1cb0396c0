"""The relaxed loss against a float64 reference written out, and against the hooks."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils import relaxation
from rai_utils.data import digits, dose_response, moons
from rai_utils.models import ACTIVATIONS, Architecture, affine, build_mlp
from rai_utils.modules import relax
from rai_utils.relaxation import (
    Targets,
    check_examples,
    forward_targets,
    guided_targets,
    output_loss,
    predictions,
    relaxation_plan,
    relaxed_loss,
    with_gradients,
)

SUBSETS = ["all", (2, 4, 6), (1, 2, 3), (4, 5, 6, 7), (3,), (7,)]
WIDTHS = (2, 5, 5, 5, 5, 4, 4, 1)


def disturbed_targets(model, x, plan, scale=0.3):
    targets = forward_targets(model, x, plan)
    generator = torch.Generator().manual_seed(7)
    values = [
        (v + scale * torch.randn(v.shape, dtype=v.dtype, generator=generator)).requires_grad_()
        for v in targets.values
    ]
    return Targets(plan, tuple(values), x)


def written_out(module, layers, target_of, x, y, hidden_weight):
    """Eq. 4 as a plain loop over layers of one ordinary network."""
    h, hidden = x, []
    linears = [m for m in module if isinstance(m, nn.Linear)]
    activation = module[1]
    for layer, linear in enumerate(linears, start=1):
        z = linear(h)
        if layer in layers:
            hidden.append(((z - target_of(layer)) ** 2).sum() / z.numel())
            z = target_of(layer)
        h = activation(z)
    probability = torch.sigmoid(z[:, 0])
    output = -(y * probability.log() + (1 - y) * (1 - probability).log()).mean()
    return output + hidden_weight * sum(hidden), output, hidden


@pytest.fixture
def data():
    return moons(examples=12, held_out=4).to("cpu", torch.float64)


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "softmax"])
def test_loss_and_gradients_equal_the_sum_written_out(data, subset, activation):
    architecture = Architecture(WIDTHS, activation)
    model = build_mlp(architecture, [0, 1], dtype=torch.float64)
    plan = relaxation_plan(architecture, subset)
    targets = disturbed_targets(model, data.x, plan)
    result = relaxed_loss(
        plan, [*model.weights], [*model.biases], targets.values, data.x, data.y, hidden_weight=0.7
    )
    result.total.sum().backward()
    for position in range(2):
        module = model.as_module(position)
        own = {t: targets.at(t)[position].detach().clone().requires_grad_() for t in plan.layers}
        total, output, hidden = written_out(
            module, plan.layers, own.__getitem__, data.x, data.y, 0.7
        )
        total.backward()
        torch.testing.assert_close(result.total[position], total)
        torch.testing.assert_close(result.output[position], output)
        torch.testing.assert_close(result.hidden[:, position], torch.stack(hidden))
        for layer in plan.layers:
            run, place = plan.locate(layer)
            gradient = targets.values[run].grad[place, position]
            torch.testing.assert_close(gradient, own[layer].grad)
        linears = [m for m in module if isinstance(m, nn.Linear)]
        for run, weight, bias in zip(architecture.runs, model.weights, model.biases, strict=True):
            for offset in range(run.layers):
                linear = linears[run.first + offset - 1]
                torch.testing.assert_close(weight.grad[offset, position], linear.weight.grad)
                torch.testing.assert_close(bias.grad[offset, position, 0], linear.bias.grad)


@pytest.mark.parametrize("depth", [30, 70])
def test_gradients_of_more_layers_than_one_product_holds_are_those_written_out(data, depth):
    architecture = Architecture((2, *[3] * depth, 1))
    model = build_mlp(architecture, [0, 1, 2], dtype=torch.float64)
    plan = relaxation_plan(architecture)
    targets = disturbed_targets(model, data.x, plan)
    leaves = [*model.weights, *model.biases, *targets.values]
    result = relaxed_loss(
        plan, [*model.weights], [*model.biases], targets.values, data.x, data.y, hidden_weight=0.7
    )
    found = torch.autograd.grad(result.total.sum(), leaves)
    for position in range(3):
        module = model.as_module(position)
        total, _, _ = written_out(
            module, plan.layers, lambda t, p=position: targets.at(t)[p], data.x, data.y, 0.7
        )
        linears = [m for m in module if isinstance(m, nn.Linear)]
        groups = ([m.weight for m in linears], [m.bias for m in linears], targets.values)
        weights, biases, values = (torch.autograd.grad(total, g, retain_graph=True) for g in groups)
        for layer in plan.layers:
            (run, offset), group = architecture.locate(layer), plan.locate(layer)
            torch.testing.assert_close(found[run][offset, position], weights[layer - 1])
            torch.testing.assert_close(found[3 + run][offset, position, 0], biases[layer - 1])
            torch.testing.assert_close(
                found[6 + group[0]][group[1], position], values[group[0]][group[1], position]
            )


def test_a_factor_on_each_seeds_loss_is_a_factor_on_its_gradients(data):
    model = build_mlp(Architecture(WIDTHS), [0, 1], dtype=torch.float64)
    plan = relaxation_plan(model.architecture)
    values = disturbed_targets(model, data.x, plan).values
    leaves = [*model.weights, *model.biases, *values]

    def total():
        operands = plan, [*model.weights], [*model.biases], values, data.x, data.y
        return relaxed_loss(*operands, hidden_weight=0.7).total

    plain = torch.autograd.grad(total().sum(), leaves)
    factors = torch.tensor([2.5, -0.5], dtype=torch.float64)
    weighted = (factors * total()).sum()
    scaled = torch.autograd.grad(weighted, leaves, retain_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(weighted, leaves)
    for ours, reference in zip(scaled, plain, strict=True):
        torch.testing.assert_close(ours, reference * factors[:, None, None])


@pytest.mark.parametrize("subset", [*SUBSETS, (1, 2, 3, 4, 5, 6)])
def test_gradients_written_to_given_memory_are_the_same(data, subset):
    model = build_mlp(Architecture(WIDTHS), [0, 1], dtype=torch.float64)
    plan = relaxation_plan(model.architecture, subset)
    values = disturbed_targets(model, data.x, plan).values
    operands = [[*model.weights], [*model.biases], values]
    leaves = [leaf for group in operands for leaf in group]
    expected = relaxed_loss(plan, *operands, data.x, data.y, hidden_weight=0.7)
    memory = [torch.full_like(leaf, torch.nan) for leaf in leaves]
    written = relaxed_loss(plan, *operands, data.x, data.y, hidden_weight=0.7, into=memory)
    assert torch.equal(written.total, expected.total)
    gradients = torch.autograd.grad(written.total.sum(), leaves)
    for gradient, reference in zip(
        gradients, torch.autograd.grad(expected.total.sum(), leaves), strict=True
    ):
        assert torch.equal(gradient, reference)
    if subset == "all":
        placed = [g.data_ptr() == m.data_ptr() for g, m in zip(gradients, memory, strict=True)]
        assert placed[1] and placed[len(model.weights) + 1] and placed[2 * len(model.weights)]


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_forward_pass_every_hidden_term_is_exactly_zero(subset, dtype):
    data = moons(examples=100).to("cpu", dtype)
    model = build_mlp(Architecture(WIDTHS), [0, 1, 2], dtype=dtype)
    plan = relaxation_plan(model.architecture, subset)
    targets = forward_targets(model, data.x, plan)
    result = relaxed_loss(
        plan, [*model.weights], [*model.biases], targets.values, data.x, data.y, hidden_weight=1.0
    )
    assert torch.equal(result.hidden, torch.zeros_like(result.hidden))
    plain = output_loss(model(data.x), data.y, "sigmoid")
    torch.testing.assert_close(result.total, plain)


GUIDED = {
    "binary": (moons(60, held_out=4), Architecture((2, 30, 30, 30, 30, 20, 1))),
    "multiclass": (digits(60, 20), Architecture((64, 30, 30, 30, 30, 20, 10), "tanh", "softmax")),
    "regression": (
        dose_response(60, held_out=4, standard_units=True),
        Architecture((1, 30, 30, 30, 30, 20, 1), "relu", "identity"),
    ),
}


def guided(task, dtype=torch.float64, seeds=(5, 3), **options):
    data, architecture = GUIDED[task]
    model = build_mlp(architecture, [0, 1][: len(seeds)], dtype=dtype)
    return guided_targets(model, data.to("cpu", dtype), seeds, **options)


@pytest.mark.parametrize("task", GUIDED)
def test_a_guided_start_goes_from_affine_features_to_a_code_of_the_label(task):
    data, architecture = GUIDED[task]
    features, codes = (guided(task, path=path, code=3.0) for path in (np.inf, 0))
    middle = guided(task, path=2, code=3.0)
    for layer in range(1, 6):
        share = (0, 0.5, 1, 1, 1)[layer - 1]
        width = architecture.widths[layer]
        first, last = features.at(1)[..., :width], codes.at(1)[..., :width]
        expected = (1 - share) * first + share * last
        torch.testing.assert_close(middle.at(layer), expected)
    x = data.x.double()
    for network in range(2):
        # φ is affine, so least squares on (x, 1) leaves nothing.
        inputs = torch.cat([x, torch.ones(60, 1)], 1).numpy()
        seen = features.at(1)[network].numpy()
        fit = np.linalg.lstsq(inputs, seen, rcond=None)[0]
        np.testing.assert_allclose(inputs @ fit, seen, atol=1e-9)
        code = codes.at(1)[network].numpy()
        row = (2 * data.y - 1 if task == "binary" else data.y).double().numpy()
        if task == "multiclass":
            for label in range(10):
                assert np.unique(code[row == label], axis=0).shape[0] == 1
                assert set(np.abs(code[row == label]).ravel()) == {3.0}
            assert np.unique(code, axis=0).shape[0] == 10
        else:
            if task == "regression":
                row = (row - row.mean()) / row.std()
            np.testing.assert_allclose(np.abs(code), np.abs(3.0 * row[:, None]) * np.ones(30))
            assert len({tuple(each) for each in np.sign(code * row[:, None])}) == 1
    assert not torch.equal(features.at(1)[0], features.at(1)[1])
    alone = guided(task, seeds=(5,), path=2, code=3.0)
    torch.testing.assert_close(alone.at(3)[0], middle.at(3)[0])


@pytest.mark.parametrize("task", GUIDED)
def test_the_output_target_of_a_guided_start_says_the_label(task):
    data, architecture = GUIDED[task]
    top = guided(task, output=2.5).at(architecture.depth)[0]
    if task == "multiclass":
        assert (top.argmax(1) == data.y).all() and (top.abs() == 2.5).all()
        assert ((top > 0).sum(1) == 1).all()
    elif task == "binary":
        assert torch.equal(top[:, 0], torch.where(data.y > 0.5, 2.5, -2.5).double())
    else:
        assert torch.equal(top[:, 0], data.y.double())


def test_the_features_of_a_guided_start_have_the_scale_that_is_asked_for():
    data = replace(GUIDED["multiclass"][0], x=3 + 50 * GUIDED["multiclass"][0].x)
    model = build_mlp(Architecture((64, 4000, 4000, 10), output_activation="softmax"), [0])
    for scale, offset in ((0.5, 3.0), (8.0, 0.0)):
        features = guided_targets(model, data, [0], scale=scale, offset=offset).at(1)[0]
        own = features.mean(0)  # of each unit
        assert (features - own).square().mean().sqrt().item() == pytest.approx(scale, rel=0.05)
        assert own.std().item() == pytest.approx(offset, rel=0.05, abs=1e-4)


def test_a_guided_code_may_be_of_other_labels():
    data, _ = GUIDED["binary"]
    own = guided("binary", path=0, labels=torch.arange(60)).at(2)
    assert len(np.unique(own[0].numpy(), axis=0)) == 60
    top = guided("binary", labels=torch.arange(60)).at(6)[0, :, 0]
    assert torch.equal(top > 0, data.y > 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": -1}, "path must be at least 0, got -1"),
        ({"path": np.nan}, "path must be finite, got nan"),
        ({"scale": -1}, "scale must be at least 0, got -1"),
        ({"offset": -1}, "offset must be at least 0, got -1"),
        ({"code": np.inf}, "code must be finite, got inf"),
        ({"output": -2}, "output must be at least 0, got -2"),
        ({"seeds": (1, 2, 3)}, "seeds must be one for each of 2 networks, got 3"),
    ],
)
def test_a_guided_start_refuses_what_it_cannot_do(options, message):
    data, architecture = GUIDED["binary"]
    model = build_mlp(architecture, [0, 1])
    with pytest.raises(ValueError, match=message):
        guided_targets(model, data, **{"seeds": (0, 1), **options})
    with pytest.raises(ValueError, match="inputs must have shape"):
        guided_targets(build_mlp(Architecture((3, 5, 1)), [0]), data, [0])


def test_moving_one_target_changes_its_two_residuals_and_no_other(data):
    model = build_mlp(Architecture(WIDTHS), [0], dtype=torch.float64)
    plan = relaxation_plan(model.architecture)
    for layer in plan.layers:
        targets = forward_targets(model, data.x, plan)
        targets.at(layer)[0, 3, 0] += 1.0
        result = relaxed_loss(
            plan, [*model.weights], [*model.biases], targets.values, data.x, data.y
        )
        changed = [plan.layers[i] for i in result.hidden[:, 0].nonzero().flatten()]
        assert changed == [t for t in (layer, layer + 1) if t <= 7]


@pytest.mark.parametrize("subset", [*SUBSETS, "deep"])
def test_predictions_are_made_by_the_very_products_of_the_loss(data, subset, monkeypatch):
    widths = (2, *[3] * 40, 1) if subset == "deep" else WIDTHS
    model = build_mlp(Architecture(widths), [0, 1], dtype=torch.float64)
    plan = relaxation_plan(model.architecture, "all" if subset == "deep" else subset)
    values = disturbed_targets(model, data.x, plan).values
    operands = plan, [*model.weights], [*model.biases], values
    made = []

    def recorded(*factors):
        made.append(tuple(factor.shape for factor in factors))
        return affine(*factors)

    # Of other shapes they could round otherwise, and no residual would be exactly 0.
    monkeypatch.setattr(relaxation, "affine", recorded)
    predictions(*operands, data.x)
    by_predictions = Counter(made)
    made.clear()
    relaxed_loss(*operands, data.x, data.y)
    # The loss goes on to the output where the last layer is not relaxed.
    assert by_predictions and by_predictions <= Counter(made)


def test_a_forward_pass_that_overflows_keeps_its_nan_and_settles():
    data = moons(examples=12)
    model = build_mlp(Architecture((2, 5, 5, 5, 1), "relu"), [0, 1])
    with torch.no_grad():
        model.weights[0][0, 0] = 1e30
        model.weights[1][:, 0] = 1e30
        model.weights[1][1, 0, :, 0] = -1e30
    targets = forward_targets(model, data.x, relaxation_plan(model.architecture))
    assert targets.at(3)[0].isnan().any()
    assert all(targets.at(layer)[1].isfinite().all() for layer in range(1, 5))


def test_targets_that_are_off_by_rounding_are_settled_to_exact_consistency():
    data = moons()
    model = build_mlp(Architecture((2, *[30] * 20, 1)), [0, 1])
    plan = relaxation_plan(model.architecture)
    targets = forward_targets(model, data.x, plan)
    ordinary = model.as_module(0)
    h = data.x
    for layer in range(1, 22):
        z = ordinary[2 * layer - 2](h)
        torch.testing.assert_close(targets.at(layer)[0], z, atol=1e-5, rtol=1e-5)
        h = torch.sigmoid(z)


@pytest.mark.parametrize(
    "activation", [name for name, known in ACTIVATIONS.items() if known.backward is not None]
)
def test_hooks_and_stacked_path_agree(data, activation):
    architecture = Architecture((2, 6, 6, 6, 1), activation)
    model = build_mlp(architecture, [4], dtype=torch.float64)
    plan = relaxation_plan(architecture)
    targets = disturbed_targets(model, data.x, plan)
    stacked = relaxed_loss(
        plan, [*model.weights], [*model.biases], targets.values, data.x, data.y, hidden_weight=2.0
    )
    stacked.total.sum().backward()
    module = model.as_module(0)
    with relax(module, data.x) as relaxed:
        for layer in plan.layers:
            with torch.no_grad():
                relaxed.targets[f"linear{layer}"].copy_(targets.at(layer)[0])
        loss = nn.functional.binary_cross_entropy_with_logits(module(data.x)[:, 0], data.y)
        loss = loss + 2.0 * relaxed.hidden_loss()
        loss.backward()
        torch.testing.assert_close(loss, stacked.total[0])
        for layer in plan.layers:
            run, place = plan.locate(layer)
            torch.testing.assert_close(
                relaxed.targets[f"linear{layer}"].grad, targets.values[run].grad[place, 0]
            )
    torch.testing.assert_close(module.linear2.weight.grad, model.weights[1].grad[0, 0])


def test_a_target_far_in_the_tail_is_still_pulled_by_the_layer_above():
    data = moons(examples=12)
    model = build_mlp(Architecture((2, 6, 6, 6, 1), "elu"), [4, 5])
    with torch.no_grad():
        for bias in model.biases[:-1]:
            bias -= 25  # φ(z) rounds to −1 there, and φ'(z) is e^−25
    plan = relaxation_plan(model.architecture)
    targets = forward_targets(model, data.x, plan)
    with torch.no_grad():
        targets.at(3).sub_(1)  # a residual of 1 in layer 3, and of 0 in layer 2
    values = [value.requires_grad_() for value in targets.values]
    loss = relaxed_loss(plan, [*model.weights], [*model.biases], values, data.x, data.y)
    gradient = torch.autograd.grad(loss.total.sum(), values)[0][1]
    pull = model.weights[1][1].double().sum(1, keepdim=True) * 2 / (12 * 6)  # (seeds, 1, units)
    expected = pull * targets.at(2).double().exp()
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "at least one layer"),
        ((0,), r"lie in 1 … 3, got 0"),
        ((4,), r"lie in 1 … 3, got 4"),
        ((2, 1), "must ascend"),
        ((2, 2), "once each"),
        ((1.5,), "relaxed layers must be a whole number, got 1.5"),
        ((True,), "relaxed layers must be a whole number, got True"),
    ],
)
def test_plans_that_do_not_fit_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        relaxation_plan(Architecture((2, 4, 4, 1)), layers)


def test_a_plan_takes_any_sequence_and_no_word_but_all():
    architecture = Architecture((2, 4, 4, 1))
    for layers in ([1, 3], np.array([1, 3]), range(1, 4, 2), torch.tensor([1, 3])):
        assert relaxation_plan(architecture, layers).layers == (1, 3)
    with pytest.raises(TypeError, match="relaxed layers must be a sequence of numbers, got 'each'"):
        relaxation_plan(architecture, "each")


def test_a_circuit_with_skips_cannot_be_relaxed():
    with pytest.raises(ValueError, match="plain chain"):
        relaxation_plan(Architecture((2, 4, 4, 1), skip_connections=True))


def test_targets_of_other_examples_are_refused(data):
    check_examples(data.x, data.x.clone())
    pictures = data.x.reshape(12, 1, 2, 1).expand(12, 3, 2, 5)
    for made_for in (data.x, pictures, torch.arange(12), torch.zeros(12, 2, dtype=torch.bool)):
        other = made_for.clone()
        other[4] = other[7] = 1 - other[4].int()
        with pytest.raises(ValueError, match="2 of 12 examples that differ"):
            check_examples(made_for, other)


def test_examples_that_changed_in_place_are_refused(data):
    model = build_mlp(Architecture(WIDTHS), [0], dtype=torch.float64)
    targets = forward_targets(model, data.x, relaxation_plan(model.architecture))
    check_examples(targets.x, data.x)
    data.x[3, 1] += 1
    with pytest.raises(ValueError, match="1 of 12 examples that differ"):
        check_examples(targets.x, data.x)


def test_targets_start_at_inputs_of_the_network_alone(data):
    model = build_mlp(Architecture(WIDTHS), [0], dtype=torch.float64)
    for x in (data.x[:, :1], data.x[0]):
        with pytest.raises(ValueError, match="inputs must have shape"):
            forward_targets(model, x, relaxation_plan(model.architecture))


def test_gradients_are_changed_by_place_and_kind(data):
    model = build_mlp(Architecture(WIDTHS), [0], dtype=torch.float64)
    plan = relaxation_plan(model.architecture)
    targets = disturbed_targets(model, data.x, plan)
    leaves = [
        [leaf.detach().requires_grad_() for leaf in leaves]
        for leaves in (model.weights, model.biases, targets.values)
    ]
    flat = [leaf for each in leaves for leaf in each]
    expected = torch.autograd.grad(relaxed_loss(plan, *leaves, data.x, data.y).total.sum(), flat)
    seen = []

    def change(gradient, place, kind):
        seen.append((place, kind))
        return gradient * (3 if kind == "target" else place)

    objective = with_gradients(change)
    for _ in range(2):  # a hook for each, however often the loss is asked for
        total = objective(plan, *leaves, data.x, data.y).total.sum()
        for place, found in enumerate(torch.autograd.grad(total, flat)):
            factor = 3 if place >= 2 * len(model.weights) else place
            torch.testing.assert_close(found, factor * expected[place])
    assert len(seen) == 2 * len(flat) and len(set(seen)) == len(flat)


def test_output_losses_equal_torch():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)
    classes = torch.tensor([0, 1, 2, 2, 1, 0])
    result = output_loss(z, classes, "softmax")
    for position in range(2):
        expected = nn.functional.cross_entropy(z[position], classes)
        torch.testing.assert_close(result[position], expected)
    one_hot = nn.functional.one_hot(classes, 3).double()
    expected = ((torch.softmax(z[0], -1) - one_hot) ** 2).mean()
    torch.testing.assert_close(output_loss(z, classes, "softmax", "squared_error")[0], expected)
    y = torch.tensor([0.0, 1, 1, 0, 1, 0], dtype=torch.float64)
    expected = nn.functional.mse_loss(z[1, :, 0], y)
    torch.testing.assert_close(output_loss(z[..., :1], y, "identity", "squared_error")[1], expected)
    for own, outputs, loss, activation in (
        (classes, 3, "cross_entropy", "softmax"),
        (classes, 3, "squared_error", "softmax"),
        (y, 1, "cross_entropy", "sigmoid"),
        (y, 1, "squared_error", "sigmoid"),
    ):  # each seed on examples of its own
        labels = torch.stack([own, own.flip(0)])
        both = output_loss(z[..., :outputs], labels, activation, loss)
        for position in range(2):
            alone = output_loss(z[position, None, :, :outputs], labels[position], activation, loss)
            torch.testing.assert_close(both[position, None], alone)
    several = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    expected = nn.functional.mse_loss(z[1], several)
    torch.testing.assert_close(output_loss(z, several, "identity", "squared_error")[1], expected)
    for outputs, loss in ((2, "squared_error"), (3, "cross_entropy")):
        with pytest.raises(ValueError, match=f"got 3 for {outputs} outputs, with '{loss}'"):
            output_loss(z[..., :outputs], several, "identity", loss)
    with pytest.raises(ValueError, match="got identity with 1 units"):
        output_loss(z[..., :1], y, "identity")
    with pytest.raises(ValueError, match=r"loss must be .* got 'hinge'"):
        output_loss(z, y, "sigmoid", "hinge")
    with pytest.raises(ValueError, match=r"softmax output of several units.*got softmax with 1"):
        output_loss(z[..., :1], y, "softmax")
    for loss in ("cross_entropy", "squared_error"):
        with pytest.raises(TypeError, match=r"labels of 3 classes must be integers, got .*float64"):
            output_loss(z, y, "softmax", loss)
        ours = output_loss(z[..., :1], y.int(), "sigmoid", loss)
        torch.testing.assert_close(ours, output_loss(z[..., :1], y, "sigmoid", loss))
        ours = output_loss(z, classes.to(torch.uint8), "softmax", loss)
        torch.testing.assert_close(ours, output_loss(z, classes, "softmax", loss))


def test_an_activation_without_a_backward_rule_cannot_be_relaxed():
    with pytest.raises(ValueError, match="needs an activation with a backward rule"):
        relaxation_plan(Architecture((2, 4, 4, 1), "softmax_layer_norm"))
