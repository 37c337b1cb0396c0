"""``relax`` on modules of every kind, against the same sums written out, and what it leaves."""

import copy
import gc
import importlib
import io
import math
import pickle
import re
import sys
from collections import Counter, namedtuple
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from rai_utils.data import digits, moons
from rai_utils.models import Architecture, build_mlp
from rai_utils.modules import relax, relax_dataset
from rai_utils.publishing.pipeline import ROOT
from rai_utils.relaxation import guided_targets

# Declared for a torchvision whose kernels this torch cannot load; gone when they are collected.
OPERATORS: list[torch.library.Library] = []


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 1))


@pytest.fixture
def x():
    return torch.randn(9, 4)


def state(module):
    """All that a module is: numbers, modes, hooks."""
    return (
        {name: value.clone() for name, value in module.state_dict().items()},
        [part.training for part in module.modules()],
        [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
    )


def same(one, other):
    return (
        one[1:] == other[1:]
        and one[0].keys() == other[0].keys()
        and all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    )


def disturb(relaxed, by=0.3):
    with torch.no_grad():
        for target in relaxed.parameters():
            target.add_(by * torch.randn_like(target))


def output_of(output):
    """A loss that is not even in the output."""
    leaves = [leaf for leaf in tree_leaves(output) if leaf is not None]
    return sum((leaf + leaf.square()).mean() for leaf in leaves)


def pull(module, relaxed, *inputs, **named):
    """One pass and its gradients."""
    loss = output_of(module(*inputs, **named)) + relaxed.hidden_loss()
    loss.backward()
    return loss


def written_out(twin, targets, *inputs):
    """The same loss and its gradients, by another ``forward`` of each part, without hooks."""
    terms, runs = [], Counter()

    def replaced(forward, name):
        def run(*given, **named):
            leaves, structure = tree_flatten(forward(*given, **named))
            runs[name] += 1
            for place, leaf in enumerate(leaves):
                key = name if runs[name] == 1 else f"{name}:{runs[name]}"
                key += f"[{place}]" if len(leaves) > 1 else ""
                if key in targets:
                    terms.append((leaf - targets[key]).square().mean())
                    leaves[place] = 1 * targets[key]
            return tree_unflatten(leaves, structure)

        return run

    for name, part in twin.named_modules():
        part.forward = replaced(part.forward, name)
    loss = output_of(twin(*inputs)) + sum(terms)
    own = [*twin.parameters(), *targets.values()]
    return loss, torch.autograd.grad(loss, [p for p in own if p.requires_grad])


# --- what it leaves as it was -----------------------------------------------------------------


def test_relax_leaves_the_module_as_it_was():
    data = moons(examples=12, held_out=4).to("cpu", torch.float64)
    module = build_mlp(Architecture((2, 6, 6, 1)), [0], dtype=torch.float64).as_module(0)
    module.eval()
    before, expected = state(module), module(data.x)
    relaxed = relax(module, data.x)
    assert same(state(module), before)
    assert torch.equal(module(data.x), expected), "evaluation mode is the ordinary network"
    module.train()
    assert torch.equal(module(data.x), relaxed.targets["linear3"])
    assert not relaxed.hidden_loss()
    relaxed.close()
    assert torch.equal(module(data.x), expected)
    assert same(state(module.eval()), before)


def test_a_copy_or_a_file_is_the_ordinary_module(x):
    module = mlp()
    expected = module(x).detach()
    with relax(module, x) as relaxed:
        pull(module, relaxed, x)
        disturb(relaxed)
        assert not torch.equal(module(x), expected)
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        copies = [
            copy.deepcopy(module),
            copy.copy(module),
            pickle.loads(pickle.dumps(module)),
            torch.load(file, weights_only=False),
            torch.optim.swa_utils.AveragedModel(module).module,
        ]
        assert b"rai_utils" not in file.getvalue()
        # A shallow copy has the very submodules, but is not what was relaxed.
        for position, each in enumerate(copies):
            assert torch.equal(each(x), expected), position
        with pytest.raises(TypeError, match=r"save its state_dict\(\)"):
            copy.deepcopy(relaxed)
    for each in copies:
        assert torch.equal(each(x), expected)
    with relax(copies[0], x) as again:
        assert torch.equal(again.targets["2"], expected)


def picture_net():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.4),
        nn.Flatten(),
        nn.Linear(12, 6),
        nn.BatchNorm1d(6),
        nn.Hardswish(inplace=True),
        nn.Linear(6, 2),
    )


@pytest.mark.parametrize("frozen", [(), (1,), (3,), (1, 3, 6), "all"])
def test_entering_and_leaving_change_no_buffer_mode_or_random_number(frozen):
    module, x = picture_net(), torch.randn(7, 1, 4, 4)
    if frozen == "all":
        module.eval()
    for place in () if frozen == "all" else frozen:
        module[place].eval()
    module(x)
    before, random = state(module), torch.get_rng_state()
    with relax(module, x, (nn.Conv2d, nn.Linear)):
        assert same(state(module), before)
        assert torch.equal(torch.get_rng_state(), random)
    assert same(state(module), before)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_relaxation_that_is_forgotten_goes(x):
    module = mlp()
    expected = module(x)
    relaxed = relax(module, x)
    disturb(relaxed)
    del relaxed
    gc.collect()
    assert torch.equal(module(x), expected)
    relax(module, x).close()


# --- what it computes -------------------------------------------------------------------------


def test_activations_in_place_read_a_copy_of_the_target(x):
    gradients = []
    for inplace in (False, True):
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(4, 5), nn.ELU(inplace=inplace), nn.Linear(5, 3))
        with relax(module, x) as relaxed:
            assert (relaxed.targets["0"] < -0.1).any(), "not clipped"
            torch.manual_seed(2)
            disturb(relaxed)
            kept = [target.clone() for target in relaxed.parameters()]
            pull(module, relaxed, x)
            with torch.no_grad():
                module(x)
            assert all(map(torch.equal, relaxed.parameters(), kept))
            own = [*module.parameters(), *relaxed.parameters()]
            gradients.append([parameter.grad for parameter in own])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


class Sum(nn.Module):
    """Several inputs, of which one may be left out."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, features, more=None, *, scale=1.0):
        h = self.fc(features) * scale
        return self.out(h if more is None else h + more["y"])


def test_inputs_come_by_place_by_name_several_and_nested(x):
    module, y = Sum(), torch.randn(9, 3)
    for given, calls in (
        (x, [lambda: module(x), lambda: module(features=x), lambda: module(x, None)]),
        ((x,), [lambda: module(x, scale=1.0)]),
        ((x, {"y": y}), [lambda: module(x, {"y": y}), lambda: module(more={"y": y}, features=x)]),
        ({"features": x, "scale": 2.0}, [lambda: module(x, scale=2.0)]),
    ):
        with relax(module, given) as relaxed:
            assert list(relaxed.targets) == ["fc", "out"]
            for call in calls:
                assert torch.equal(call(), relaxed.targets["out"])
                assert not relaxed.hidden_loss()
    with relax(module, (x, {"y": y})):
        with pytest.raises(ValueError, match="1 of 9 examples that differ"):
            changed = y.clone()
            changed[2] = 0
            module(x, {"y": changed})
        with pytest.raises(ValueError, match="another input"):
            module(x, {"y": y}, scale=3.0)
        with pytest.raises(ValueError, match="another input"):
            module(x)
        with pytest.raises(TypeError, match="unexpected keyword"):
            module(z=x)


class Whole(nn.Module):
    """One input that is a mapping or a pair."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, both):
        first, second = both.values() if isinstance(both, dict) else both
        return self.fc(first) + second


def test_one_input_may_be_a_mapping_or_a_pair(x):
    y = torch.randn(9, 3)
    for both in ({"a": x, "b": y}, (x, y), [x, y]):
        module = Whole()
        with relax(module, both) as relaxed:
            pull(module, relaxed, both)
            with pytest.raises(ValueError, match="9 of 9 examples that differ"):
                module({"a": x, "b": y + 1} if isinstance(both, dict) else (x, y + 1))


class Reader(nn.Module):
    """An LSTM of which either the outputs or the last state is read; nobody reads the layer."""

    def __init__(self, state):
        super().__init__()
        self.lstm, self.out, self.state = nn.LSTM(4, 6, 2, batch_first=True), nn.Linear(6, 2), state
        self.idle = nn.Identity()

    def forward(self, x):
        self.idle(x)
        outputs, (hidden, _) = self.lstm(x)
        return self.out(hidden[-1] if self.state else outputs[:, -1])


@pytest.mark.parametrize(("state", "key"), [(False, "lstm[0]"), (True, "lstm[1]")])
def test_of_several_outputs_those_have_a_target_that_are_read(state, key):
    module, x = Reader(state), torch.randn(5, 3, 4)
    with relax(module, x, (nn.LSTM, nn.Linear)) as relaxed:
        assert list(relaxed.targets) == [key, "out"]
        disturb(relaxed)
        loss = pull(module, relaxed, x)
    outputs, (hidden, _) = module.lstm(x)
    target, top = relaxed.targets.values()
    read = target[-1] if state else target[:, -1]
    terms = (hidden if state else outputs) - target, module.out(read) - top
    expected = (top + top.square()).mean() + sum(term.square().mean() for term in terms)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(expected, [*module.parameters(), target, top])
    for own, reference in zip([*module.parameters(), target, top], gradients, strict=True):
        torch.testing.assert_close(own.grad, reference)


class Unrolled(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        h = torch.zeros(len(x), 6)
        for now in x.unbind(1):
            h = self.cell(now, h)
        return self.out(h)


def test_a_submodule_that_runs_several_times_has_a_target_for_each_run():
    module, x = Unrolled(), torch.randn(5, 3, 4)
    with relax(module, x, (nn.GRUCell, nn.Linear)) as relaxed:
        assert list(relaxed.targets) == ["cell", "cell:2", "cell:3", "out"]
        disturb(relaxed)
        terms = relaxed.hidden_terms() if module(x) is not None else {}
        first, second, third, top = relaxed.targets.values()
        for key, below, target, now in (
            ("cell", torch.zeros(5, 6), first, 0),
            ("cell:2", first, second, 1),
            ("cell:3", second, third, 2),
        ):
            expected = (module.cell(x[:, now], below) - target).square().mean()
            torch.testing.assert_close(terms[key], expected)
        torch.testing.assert_close(terms["out"], (module.out(third) - top).square().mean())
        with pytest.raises(ValueError, match=r"must run the submodules that ran .* got cell:4"):
            module(torch.cat([x, x], 1))
        with pytest.raises(ValueError, match="'cell:3' did not"):
            module(x[:, :2])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_transformers_are_relaxed_step_and_are_restored(norm_first, dropout):
    layer = partial(nn.TransformerEncoderLayer, 8, 2, 16, dropout, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False)
    x, mask = torch.randn(6, 5, 8), nn.Transformer.generate_square_subsequent_mask(6)
    names = [f"layers.{n}.linear{i}" for n in (0, 1) for i in (1, 2)]
    attention = [f"layers.{n}.self_attn[0]" for n in (0, 1)]
    for module, select, expected in (
        (layer(), nn.Linear, ["linear1", "linear2"]),
        (encoder, nn.Linear, names),
        (encoder, (nn.Linear, nn.MultiheadAttention), sorted(names + attention)),
    ):
        before, inputs = state(module.train()), (x, mask)
        with relax(module, inputs, select) as relaxed:
            # Attention comes before the linear layers of its block.
            assert sorted(relaxed.targets) == expected
            pull(module, relaxed, *inputs)
            optimizer = torch.optim.SGD([*module.parameters(), *relaxed.parameters()], lr=0.1)
            optimizer.step()
            moved = state(module)
            assert not same(moved, before)
        assert same(state(module), moved)
        fresh = copy.deepcopy(module).eval()
        assert torch.equal(module.eval()(*inputs), fresh(*inputs))


def test_a_complex_residual_has_a_real_term():
    module = nn.Sequential(nn.Linear(4, 3, dtype=torch.cfloat), nn.Linear(3, 1, dtype=torch.cfloat))
    x = torch.randn(9, 4, dtype=torch.cfloat)
    with relax(module, x) as relaxed:
        with torch.no_grad():
            relaxed.targets["0"] += 3 + 4j
        module(x)
        assert relaxed.hidden_terms()["0"].item() == pytest.approx(25)


def test_the_hidden_loss_may_be_ones_own(x):
    module = mlp()
    with relax(module, x, hidden_loss=partial(nn.functional.smooth_l1_loss, beta=0.1)) as relaxed:
        disturb(relaxed)
        module(x)
        first, top = relaxed.targets.values()
        expected = sum(
            nn.functional.smooth_l1_loss(z, target, beta=0.1)
            for z, target in ((module[0](x), first), (module[2](first.sigmoid()), top))
        )
        torch.testing.assert_close(relaxed.hidden_loss(), expected)


def test_dropout_draws_a_mask_in_each_pass_and_batch_norm_reads_the_targets():
    x = torch.randn(50, 4)
    module = nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.Linear(30, 2))
    with relax(module, x) as relaxed:
        terms = []
        for _ in range(3):
            module(x)
            terms.append(relaxed.hidden_terms())
        assert not any(each["0"] for each in terms)
        # The first mask is the one that the targets were made with.
        assert 0 == terms[0]["2"] < terms[1]["2"] != terms[2]["2"] > 0
    module = nn.Sequential(nn.Linear(4, 30), nn.BatchNorm1d(30, momentum=1.0), nn.Linear(30, 2))
    with relax(module, x) as relaxed:
        disturb(relaxed, 2.0)
        module(x)
        target = relaxed.targets["0"]
        torch.testing.assert_close(module[1].running_mean, target.mean(0))
        torch.testing.assert_close(module[1].running_var, target.var(0))


class Tied(nn.Module):
    """Two layers of one weight, and one layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        h = self.b(self.a(x).tanh()).tanh()
        return self.c(self.c(h).tanh())


Both = namedtuple("Both", "h z")


@dataclass
class Record:
    h: torch.Tensor
    z: torch.Tensor


class Several(nn.Module):
    """Returns two tensors in a container of any kind."""

    def __init__(self, kind):
        super().__init__()
        self.a, self.b, self.kind = nn.Linear(4, 4), nn.Linear(4, 4), kind

    def forward(self, x):
        h = self.a(x)
        return self.kind(h=h, z=self.b(h.tanh()))


class Reads(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.several, self.out = Several(kind), nn.Linear(4, 1)

    def forward(self, x):
        several = self.several(x)
        first, second = tree_leaves(vars(several) if self.several.kind is Record else several)
        return self.out(first * second)


class Projection(nn.Module):
    """Nothing to be trained; its output is a view with strides of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", torch.randn(4, 3))
        self.register_buffer("one", torch.ones(1).expand(4), persistent=False)

    def forward(self, x):
        return (self.matrix.t() @ (x * self.one).t()).t()


class Repeats(nn.Module):
    """A part that calls itself."""

    def __init__(self):
        super().__init__()
        self.step, self.out = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, left=2):
        h = self.step(x).tanh()
        return self(h, left - 1) if left else self.out(h)


def hooked():
    module = mlp()
    module[0].register_forward_hook(lambda part, given, output: 2 * output)
    module[2].register_forward_pre_hook(lambda part, given: (given[0] + 1,))
    module[2].register_full_backward_hook(lambda part, given, gradients: None)
    return module


def half_frozen():
    module = mlp()
    module[0].requires_grad_(False)
    return module


def first_changed(change, *of):
    module = mlp()
    change(module[0], *of)
    return module


def channels_last():
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 1)).to(memory_format=torch.channels_last)


KINDS = {
    "wrapped": (lambda: nn.DataParallel(mlp()), nn.Linear, 2),
    "tied": (Tied, nn.Linear, 4),
    "parametrised": (lambda: first_changed(parametrizations.weight_norm), nn.Linear, 2),
    "orthogonal": (lambda: first_changed(parametrizations.orthogonal), nn.Linear, 2),
    "spectral norm": (lambda: first_changed(parametrizations.spectral_norm), nn.Linear, 2),
    "spectral norm by hooks": (lambda: first_changed(nn.utils.spectral_norm), nn.Linear, 2),
    "pruned": (lambda: first_changed(prune.l1_unstructured, "weight", 0.5), nn.Linear, 2),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(1)), nn.Linear, 2),
    "a dict": (partial(Several, dict), nn.Linear, 2),
    "a named tuple": (partial(Several, Both), nn.Linear, 2),
    "reads a dict": (partial(Reads, dict), ["several", "out"], 3),
    "reads a named tuple": (partial(Reads, Both), ["several", "out"], 3),
    "buffers": (lambda: nn.Sequential(Projection(), nn.Tanh(), nn.Linear(3, 1)), Projection, 1),
    "calls itself": (lambda: nn.Sequential(Repeats(), nn.Linear(4, 1)), nn.Linear, 5),
    "hooked": (hooked, nn.Linear, 2),
    "half frozen": (half_frozen, nn.Linear, 2),
    "channels last": (channels_last, (nn.Conv2d, nn.Linear), 3),
    "one in another": (lambda: nn.Sequential(mlp(), nn.Tanh()), nn.Module, 6),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Lazy modules")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_of_any_kind_has_the_sums_written_out(kind, dtype):
    build, select, targets = KINDS[kind]
    module, twin = build().to(dtype), build().to(dtype)
    x = torch.randn(4, 9).t().to(dtype)  # not contiguous
    if kind == "channels last":
        x = torch.randn(9, 3, 6, 6).to(dtype).to(memory_format=torch.channels_last)
    with relax(module, x, select) as relaxed:
        assert len(relaxed.targets) == targets
        assert all(target.dtype == dtype for target in relaxed.parameters())
        twin.load_state_dict(module.state_dict())
        module(x)
        assert not relaxed.hidden_loss()
        module.load_state_dict(twin.state_dict())
        disturb(relaxed)
        loss = pull(module, relaxed, x)
        expected, gradients = written_out(twin, relaxed.targets, x)
        torch.testing.assert_close(loss, expected)
        own = [p for p in (*module.parameters(), *relaxed.parameters()) if p.requires_grad]
        for parameter, gradient in zip(own, gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_what_an_object_that_is_returned_holds_is_read_too(x):
    for kind in (Record, lambda h, z: torch.distributions.Normal(h, z.exp())):
        with relax(Several(kind), x) as relaxed:
            assert list(relaxed.targets) == ["a", "b"]
    module = Reads(Record)
    with pytest.raises(ValueError, match="in tuples, lists or dicts, 'several' did not"):
        relax(module, x, ["several", "several.a"])


def test_gradients_of_a_function_of_the_parameters_are_those_of_backward(x):
    module = mlp()
    with relax(module, x) as relaxed:
        disturb(relaxed)

        def loss(parameters):
            output = torch.func.functional_call(module, parameters, (x,))
            return output_of(output) + relaxed.hidden_loss()

        others = {name: p.detach() + 0.1 for name, p in module.named_parameters()}
        found = torch.func.grad(loss)(others)
        module.load_state_dict(others)
        pull(module, relaxed, x)
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad)


def test_under_autocast_targets_are_kept_as_they_were_made(x):
    module = mlp()
    with torch.autocast("cpu", torch.bfloat16), relax(module, x) as relaxed:
        assert relaxed.targets["0"].dtype == torch.bfloat16
    with relax(module, x) as relaxed, torch.autocast("cpu", torch.bfloat16):
        assert relaxed.targets["0"].dtype == torch.float32
        disturb(relaxed)
        kept = relaxed.targets["0"].detach().clone()
        pull(module, relaxed, x)
        residual = module[0](x).float() - kept
        torch.testing.assert_close(relaxed.hidden_terms()["0"], residual.square().mean())


def test_several_modules_are_relaxed_at_once(x):
    first, second = mlp(), nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
    read = first(x).detach()
    with relax(first, x) as one, relax(second, read) as two:
        disturb(two)
        output = second(first(x))
        assert torch.equal(output, two.targets["2"])
        assert not one.hidden_loss() and two.hidden_loss()
        with relax(copy.deepcopy(first), x) as three:
            assert list(three.targets) == ["0", "2"]


# --- choosing ---------------------------------------------------------------------------------


def test_relax_chooses_by_type_name_and_predicate():
    x = torch.randn(9, 2)
    module = build_mlp(Architecture((2, 6, 6, 1)), [0]).as_module(0)
    for select, expected in (
        (nn.Sigmoid, ["activation1", "activation2"]),
        ((nn.Linear, nn.Sigmoid), ["linear1", "activation1", "linear2", "activation2", "linear3"]),
        (["linear2"], ["linear2"]),
        ("linear2", ["linear2"]),
        (lambda name, part: name.endswith("1"), ["linear1", "activation1"]),
    ):
        with relax(module, x, select) as relaxed:
            assert list(relaxed.targets) == expected
            module(x)
            assert set(relaxed.hidden_terms()) == set(expected)
    with relax(nn.Linear(2, 1), x) as relaxed:
        assert [target.shape for target in relaxed.parameters()] == [(9, 1)]


class Frozen(nn.Module):
    """Runs its first layer without gradients."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, x):
        with torch.no_grad():
            h = self.fc(x)
        return self.out(h)


class Idle(nn.Module):
    """Does not run its second layer, or runs it from the second pass on."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.late = nn.Linear(4, 4), nn.Linear(4, 4), False

    def forward(self, x):
        h = self.first(x)
        return self.second(h) if self.late else h


def test_of_a_type_those_are_relaxed_that_run_and_by_name_all_must(x):
    module = Idle()
    with relax(module, x) as relaxed:
        assert list(relaxed.targets) == ["first"]
        module.late = True
        with pytest.raises(ValueError, match=r"every pass must run .* got second"):
            module(x)
    with relax(module, x):
        module.late = False
        with pytest.raises(ValueError, match="'second' did not"):
            module(x)
    with pytest.raises(ValueError, match="'second' did not"):
        relax(module, x, ["first", "second"])
    with pytest.raises(ValueError, match="must run and return real"):
        relax(module, x, lambda name, part: name == "second")


def test_no_term_of_an_earlier_pass_is_left_over(x):
    module = Idle()
    module.late = True
    with relax(module, x) as relaxed:
        with pytest.raises(ValueError, match="forward pass in training mode first"):
            relaxed.hidden_loss()
        module(x)
        module.late = False
        with pytest.raises(ValueError, match="did not"):
            module(x)
        with pytest.raises(ValueError, match="forward pass in training mode first"):
            relaxed.hidden_loss()


# --- refusals ---------------------------------------------------------------------------------


def test_what_is_wrong_is_named(x):
    module = mlp()
    blown = mlp()
    with torch.no_grad():
        blown[2].weight[0, 1] = math.inf
    for wrong, message in (
        (
            lambda: relax(module, x.index_fill(0, torch.tensor([2, 5]), math.nan)),
            "NaN .* in 2 of 9",
        ),
        (lambda: relax(blown, x), "parameters must be finite, .* in '2.weight'"),
        (lambda: relax(nn.Sequential(mlp(), nn.Linear(1, 1)), x * 1e38 * 9), "infinity in"),
        (lambda: relax(module, x[:0]), r"at least one example, got shape \(0, 4\)"),
        (lambda: relax(module, x, nn.Conv2d), "chose none"),
        (lambda: relax(module, x, "fc"), "must be among 0, 1, 2, got 'fc'"),
        (lambda: relax(module, x, ["0", "x"]), "must be among 0, 1, 2, got 'x'"),
        (lambda: relax(Repeats(), x), "must not call itself: relax the parts it calls"),
        (lambda: relax(module, x, hidden_loss=torch.sub), r"without axes, got .*\[9, 5\]"),
        (lambda: relax(module, x, hidden_loss=lambda *both: 1.0), "without axes, got 1.0"),
        (lambda: relax(Frozen(), x), "'fc' must run with gradients, .* leave it out of select"),
        (lambda: relax(Reader(False), x[None], ["lstm", "idle"]), "goes on with, .*'idle' did not"),
        (lambda: relax(nn.Sequential(nn.LazyBatchNorm1d()), x, nn.Module), "with a dummy batch"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
        relax(module, x).close()
    for wrong, message in (
        (lambda: relax(3, x), r"needs a torch.nn.Module, got int"),
        (lambda: relax(module, x, x), r"one tuple, relax\(module, \(a, b\)\)"),
        (lambda: relax(module, TensorDataset(x)), "use relax_dataset"),
    ):
        with pytest.raises(TypeError, match=message):
            wrong()


def test_examples_that_changed_are_refused_also_in_place(x):
    module = mlp()
    with relax(module, x) as relaxed:
        with pytest.raises(ValueError, match=r"shape \(9, 5\), got an output of shape \(5, 5\)"):
            module(x[:5])
        with pytest.raises(ValueError, match="2 of 9 examples that differ"):
            module(x[[1, 0, *range(2, 9)]])
        for change in (lambda: x[4].mul_(2), lambda: x.data.add_(1), lambda: x.numpy().fill(3)):
            kept = x.clone()
            change()
            with pytest.raises(ValueError, match="of 9 examples that differ"):
                module(x)
            x.copy_(kept)
        assert module(x) is not None and not relaxed.hidden_loss()
    tokens = torch.arange(9)
    module = nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 1))
    with relax(module, tokens):
        tokens[3:7] += 1
        with pytest.raises(ValueError, match="4 of 9 examples that differ"):
            module(tokens)


def test_a_module_is_relaxed_once(x):
    module = mlp()
    parent = nn.Sequential(module, nn.Tanh())
    with relax(module, x), pytest.raises(ValueError, match="relaxed already"):
        relax(parent, x)
    with relax(parent, x), pytest.raises(ValueError, match="relaxed already"):
        relax(module[0], x)
    with relax(parent, x) as relaxed:
        disturb(relaxed)
        # What is called by itself is no pass of the relaxed module.
        assert torch.equal(module(x), copy.deepcopy(module)(x))
    relax(module, x).close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_a_module_is_relaxed_and_then_compiled(x):
    module = mlp()
    compiled = torch.compile(module, backend="eager")
    expected = compiled(x).detach()
    in_place = mlp()
    in_place.compile(backend="eager")
    for wrong in (compiled, in_place, nn.Sequential(compiled)):
        with pytest.raises(ValueError, match="must be relaxed before it is compiled"):
            relax(wrong, x)
    with relax(module, x) as relaxed:
        disturb(relaxed)
        compiled(x)  # as it was compiled, without targets
        with pytest.raises(ValueError, match="forward pass in training mode first"):
            relaxed.hidden_loss()
        loss = pull(module, relaxed, x)
        compiled(x)
        with pytest.raises(ValueError, match="compile it again"):
            relaxed.hidden_loss()
        torch.compiler.reset()
        again = torch.compile(module, backend="eager")
        torch.testing.assert_close(pull(again, relaxed, x), loss)
    for each in (compiled, again):
        torch.testing.assert_close(each(x), expected)


class Checkpointed(nn.Module):
    def __init__(self, reentrant=None):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 1)
        self.reentrant = reentrant

    def forward(self, x):
        def part(x):
            return self.b(self.a(x).sigmoid()).sigmoid_()

        if self.reentrant is not None:
            return self.c(checkpoint(part, x, use_reentrant=self.reentrant))
        return self.c(part(x))


def test_a_checkpoint_gives_the_same_gradients_or_is_refused(x):
    found = []
    for reentrant in (None, False):
        torch.manual_seed(1)
        module = Checkpointed(reentrant)
        with relax(module, x) as relaxed:
            disturb(relaxed)
            pull(module, relaxed, x)
            found.append([p.grad for p in [*module.parameters(), *relaxed.parameters()]])
    assert all(map(torch.equal, *found))
    with pytest.raises(ValueError, match=r"'a' must run with gradients.*use_reentrant=True"):
        relax(Checkpointed(True), x)


# --- going on ---------------------------------------------------------------------------------


def to_file(*parts):
    """What is left of a fit that was saved."""
    file = io.BytesIO()
    torch.save([part.state_dict() for part in parts], file)
    file.seek(0)
    return torch.load(file)


def assert_same(one, other):
    leaves, others = tree_flatten(one), tree_flatten(other)
    assert leaves[1] == others[1]
    for a, b in zip(leaves[0], others[0], strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class Generator:
    """What draws at random, to be saved as all else."""

    def __init__(self, generator=torch.default_generator):
        self.generator = generator

    def state_dict(self):
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state):
        self.generator.set_state(state["state"])


OPTIMIZERS = {
    "rprop": torch.optim.Rprop,
    "adam": torch.optim.Adam,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("draws", [False, True])
def test_ten_steps_and_ten_more_are_twenty(optimizer, draws):
    """With ``draws`` there are dropout, batch norm and a spectral norm that turns its vectors."""
    x, y = torch.randn(9, 1, 4, 4), torch.randn(9, 2)

    def build():
        module = picture_net() if draws else nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        module[-1] = parametrizations.spectral_norm(module[-1])
        return module

    def fit(module, steps, saved=None):
        with relax(module, x, (nn.Conv2d, nn.Linear)) as relaxed:
            own = [*module.parameters(), *relaxed.parameters()]
            parts = module, relaxed, OPTIMIZERS[optimizer](own, lr=0.01), Generator()
            for part, kept in zip(parts, saved or [], strict=bool(saved)):
                part.load_state_dict(kept)
            for _ in range(steps):
                loss = (module(x) - y).square().mean() + relaxed.hidden_loss()
                parts[2].zero_grad()
                loss.backward()
                parts[2].step()
            return to_file(*parts)

    torch.manual_seed(3)
    whole = fit(build(), 20)
    torch.manual_seed(3)
    half = fit(build(), 10)
    module = build()
    assert_same(fit(module, 10, half), whole)
    with relax(module, x, "1") as relaxed, pytest.raises(ValueError, match="keys and shapes"):
        relaxed.load_state_dict({"0": torch.zeros(9, 2)})


def test_to_moves_targets_and_examples(x):
    module = mlp()
    with relax(module, x) as relaxed:
        own = [*relaxed.parameters()]
        assert relaxed.to(torch.float64) is relaxed
        module.double()
        pull(module, relaxed, x.double())
        for kept, now in zip(own, relaxed.parameters(), strict=True):
            assert kept is now and now.dtype == torch.float64


class Parity(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)

    def forward(self, x):
        return self.fc((x % 2).to(self.fc.weight.dtype))


def test_to_keeps_whole_numbers_whole():
    x, module = torch.tensor([[2**24 + 1], [3]]), Parity().double()  # float32 rounds the first
    with relax(module, x) as relaxed:
        relaxed.to(torch.float32)
        pull(module.float(), relaxed, x)


def test_targets_may_be_made_where_nothing_else_has_gradients(x):
    for without in (torch.no_grad, torch.inference_mode):
        module = mlp()
        with without(), relax(module, x) as relaxed, torch.inference_mode(False):
            with torch.enable_grad():
                pull(module, relaxed, x)
            assert all(target.grad is not None for target in relaxed.parameters())


# --- guided starts ----------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_guided_start_is_that_of_the_stacked_networks(task):
    data = moons(40, held_out=4) if task == "binary" else digits(40, 20)
    output = "sigmoid" if task == "binary" else "softmax"
    widths = (data.x.shape[1], 6, 6, 6, data.outputs)
    model = build_mlp(Architecture(widths, output_activation=output), [3])
    sizes = {"path": 2.0, "scale": 0.5, "offset": 2.0, "code": 3.0, "output": 2.5}
    expected = guided_targets(model, data, [7], **sizes)
    module = model.as_module(0)
    with relax(module, data.x) as relaxed:
        relaxed.guide(data.y.long(), 7, **sizes)
        for layer in range(1, 5):
            target = relaxed.targets[f"linear{layer}"]
            torch.testing.assert_close(target.data, expected.at(layer)[0])


def test_a_guided_start_of_pictures_and_of_a_regression_with_several_outputs():
    module, x = picture_net(), torch.randn(7, 1, 4, 4)
    with relax(module, x, (nn.Conv2d, nn.Linear)) as relaxed:
        relaxed.guide(torch.tensor([0, 1, 1, 0, 1, 0, 0]), 1, path=1)
        assert relaxed.targets["5"].abs().eq(5).all()
        assert torch.equal(relaxed.targets["8"].argmax(1), torch.tensor([0, 1, 1, 0, 1, 0, 0]))
        y = torch.randn(7, 2)
        relaxed.guide(y, 1)
        assert torch.equal(relaxed.targets["8"], y)
        with pytest.raises(ValueError, match="labels must be those of 7 examples, got 5"):
            relaxed.guide(torch.zeros(5), 1)
        with pytest.raises(TypeError, match="x must be left out after relax"):
            relaxed.guide(y, 1, x)
        with pytest.raises(ValueError, match="scale must be at least 0, got -1"):
            relaxed.guide(y, 1, scale=-1)


def test_targets_must_have_the_examples_on_their_first_axis_to_be_guided():
    module, x = nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 2)), torch.randn(3, 5, 4)
    message = r"the 3 examples on .*, got shape \(15, 2\) for '1'"
    with relax(module, x) as relaxed, pytest.raises(ValueError, match=message):
        relaxed.guide(torch.tensor([0, 1, 1]), 1)


class Steps(nn.Module):
    """An LSTM whose outputs have the examples on their first axis or on their second."""

    def __init__(self, axis=1):
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 6, batch_first=axis == 0), nn.Linear(6, 2)

    def forward(self, x):
        if self.lstm.batch_first:
            return self.out(self.lstm(x)[0][:, -1])
        return self.out(self.lstm(x.transpose(0, 1))[0][-1])


def test_targets_of_any_names_have_files_of_their_own(tmp_path):
    module = nn.Sequential()
    for name, part in (("a/b", nn.Linear(3, 3)), ("a_b", nn.Linear(3, 3)), ("c", nn.Linear(3, 1))):
        module.add_module(name, part)
    x = torch.randn(5, 3)
    dataset = TensorDataset(x, torch.zeros(5))
    with relax_dataset(module, dataset, ["a/b", "a_b"], rate=0.1, folder=tmp_path) as relaxed:
        relaxed.take(range(5))
        module(x)
        first, second = (relaxed.targets[name].detach().clone() for name in ("a/b", "a_b"))
        assert not torch.equal(first, second)
        relaxed.take(range(5))
        module(x)
        assert torch.equal(relaxed.targets["a/b"], first)


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("kept", ["memory", "folder", "short"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_guided_start_by_number_is_that_of_all_examples_at_once(classes, kept, axis, tmp_path):
    x, labels = torch.randn(12, 4, 3), torch.arange(12) % 2 if classes else torch.randn(12, 2)
    sizes = {"path": 2.0, "scale": 0.5, "offset": 2.0, "code": 3.0, "output": 2.5}
    options = {"memory": {}, "folder": {"folder": tmp_path}, "short": {"dtype": torch.bfloat16}}
    layers = nn.LSTM, nn.Linear
    with relax(Steps(0), x, layers) as relaxed:
        relaxed.guide(labels, 7, **sizes)
        expected = [target.detach().clone() for target in relaxed.parameters()]
    module, dataset = Steps(axis), TensorDataset(x, labels)
    before, random = state(module), torch.get_rng_state()
    axes = {"lstm[0]": axis}
    with relax_dataset(module, dataset, layers, rate=0.1, axis=axes, **options[kept]) as relaxed:
        relaxed.guide(labels, 7, x, **sizes)
        assert same(state(module), before) and torch.equal(torch.get_rng_state(), random)
        for ids in ([0, 1], [*range(12)], [5, 0, 11], [1]):
            relaxed.take(ids)
            module(x[ids])
            for target, own, at in zip(relaxed.parameters(), expected, (axis, 0), strict=True):
                own = own.bfloat16().float() if kept == "short" else own
                assert torch.equal(target.movedim(at, 0), own[ids])
        relaxed.take([3, 5])
        pull(module, relaxed, x[[3, 5]])
        relaxed.step()
        first = relaxed.targets["lstm[0]"].detach().movedim(axis, 0)
        moved = expected[0][[3, 5]]
        assert 0.09 < (first - moved).abs().max() < 0.11, "Adam's first step is the rate"
        relaxed.take([5, 2])
        module(x[[5, 2]])
        second = relaxed.targets["lstm[0]"].movedim(axis, 0)
        torch.testing.assert_close(second[0], first[1], rtol=0.01, atol=0)
        assert relaxed.updates.tolist() == [int(number in (3, 5)) for number in range(12)]


def test_a_guided_start_by_number_is_refused_where_it_has_not_all_inputs():
    x = torch.randn(12, 4, 3)
    with relax_dataset(Steps(), TensorDataset(x), nn.Linear, rate=0.1) as relaxed:
        for wrong, message in (
            ((torch.zeros(12), 7), "inputs of all 12 examples, got None"),
            ((torch.zeros(12), 7, x[:5]), r"inputs of all 12 examples, got \[\(5, 4, 3\)\]"),
            ((torch.zeros(5), 7, x), "labels must be those of 12 examples, got 5"),
        ):
            with pytest.raises(ValueError, match=message):
                relaxed.guide(*wrong)


# --- mini-batches -----------------------------------------------------------------------------


def numbers(examples=12):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(examples, 4, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True).tanh())


def train_batches(module, relaxed, batches, data, rule=None):
    for ids in batches:
        x, y = (torch.stack(each) for each in zip(*(data[i] for i in ids), strict=True))
        relaxed.take(ids)
        loss = (module(x) - y).square().mean() + relaxed.hidden_loss()
        module.zero_grad()
        loss.backward()
        if rule is not None:
            rule.step()
        relaxed.step()


@pytest.mark.parametrize(
    ("optimizer", "torchs"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("rprop", torch.optim.Rprop)],
)
def test_each_target_moves_as_if_it_had_an_optimiser_of_its_own(optimizer, torchs):
    data, module = numbers(), mlp()
    batches = [[3, 1, 7], [0, 3], [7, 3, 11, 2], [1], [3, 0, 7]]
    own = {}  # the same with one torch optimiser for each example
    for ids in batches:
        for i in ids:
            x, y = data[i][0][None], data[i][1][None]
            if i not in own:
                z = module[0](x)
                values = [v.detach().clone().requires_grad_() for v in (z, module[2](z.sigmoid()))]
                own[i] = values, torchs(values, lr=0.05)
            (first, top), rule = own[i]
            terms = (module[0](x) - first, module[2](first.sigmoid()) - top, top - y)
            loss = sum(term.square().sum() / term.shape[1] for term in terms) / len(ids)
            rule.zero_grad()
            loss.backward()
            rule.step()
    with relax_dataset(module, data, rate=0.05, optimizer=optimizer) as relaxed:
        train_batches(module, relaxed, batches, data)
        everything = sorted(own)
        relaxed.take(everything)
        module(torch.stack([data[i][0] for i in everything]))
        for row, i in enumerate(everything):
            for target, expected in zip(relaxed.parameters(), own[i][0], strict=True):
                torch.testing.assert_close(target[row], expected[0])
        assert relaxed.updates.tolist() == [2, 2, 1, 4, 0, 0, 0, 3, 0, 0, 0, 1]


def test_a_new_example_starts_without_a_residual_and_an_old_one_keeps_its_target():
    data, module = numbers(), mlp()
    with relax_dataset(module, data, rate=0.5) as relaxed:
        train_batches(module, relaxed, [[0, 1, 2]], data)
        kept = relaxed.targets["0"].detach().clone()
        relaxed.take([5, 1])
        x = data.tensors[0]
        module(x[[5, 1]])
        assert torch.equal(relaxed.targets["0"][1], kept[1])
        torch.testing.assert_close(relaxed.targets["0"][0], module[0](x[5]))


def test_shuffled_batches_of_a_loader_are_right_by_number():
    data, module = numbers(50), mlp()
    with relax_dataset(module, data, rate=0.05) as relaxed:
        rule = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(3):
            for ids, (x, y) in DataLoader(relaxed.numbered, 8, shuffle=True):
                assert torch.equal(x, data.tensors[0][ids])
                relaxed.take(ids)
                loss = (module(x) - y).square().mean() + relaxed.hidden_loss()
                rule.zero_grad()
                loss.backward()
                rule.step()
                relaxed.step()
        assert (relaxed.updates == 3).all()
    assert torch.equal(module(data.tensors[0]), copy.deepcopy(module)(data.tensors[0]))


def test_all_examples_in_one_batch_are_relax():
    data = numbers()
    x, y = data.tensors
    torch.manual_seed(1)
    module = mlp()
    reference = copy.deepcopy(module)
    with relax_dataset(module, data, rate=0.01, optimizer="rprop") as relaxed:
        rule = torch.optim.Rprop(module.parameters(), lr=0.01)
        train_batches(module, relaxed, [list(range(12))] * 6, data, rule)
    with relax(reference, x) as relaxed:
        rule = torch.optim.Rprop([*reference.parameters(), *relaxed.parameters()], lr=0.01)
        for _ in range(6):
            loss = (reference(x) - y).square().mean() + relaxed.hidden_loss()
            rule.zero_grad()
            loss.backward()
            rule.step()
    for one, other in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_table_is_named_before_it_is_taken_and_may_lie_on_disk_or_be_shorter(tmp_path):
    data, batches = numbers(), [[0, 1, 2, 3], [2, 3, 4]]
    found = []
    for options in ({}, {"folder": tmp_path}, {"dtype": torch.bfloat16}):
        torch.manual_seed(1)
        module = mlp()
        with relax_dataset(module, data, rate=0.05, **options) as relaxed:
            train_batches(module, relaxed, batches, data)
            size = 2 if "dtype" in options else 4
            assert relaxed.bytes == 12 * (5 + 1) * (size + 2 * 4)
            relaxed.take([2, 4])
            module(data.tensors[0][[2, 4]])
            found.append([target.detach().clone() for target in relaxed.parameters()])
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 12 * 6 * 12
    assert all(map(torch.equal, found[0], found[1]))
    for one, other in zip(found[0], found[2], strict=True):
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.01)
    need = re.escape(
        "12 examples need 8.64e-07 GB with their optimiser's state, and may take 8e-07"
    )
    with relax_dataset(module, data, rate=0.05, memory=800) as relaxed:
        relaxed.take([0])
        with pytest.raises(ValueError, match=need):
            module(data.tensors[0][:1])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("guided", [False, True])
def test_two_passes_over_the_data_and_two_more_are_four(optimizer, guided):
    x, y = torch.randn(30, 1, 4, 4), torch.arange(30) % 2

    def fit(module, passes, saved=None):
        select, kinds = TensorDataset(x, y), (nn.Conv2d, nn.Linear)
        with relax_dataset(module, select, kinds, rate=0.05, optimizer=optimizer) as relaxed:
            if guided and not saved:
                relaxed.guide(y, 1, x)
            order = torch.Generator().manual_seed(5)
            rule = OPTIMIZERS[optimizer](module.parameters(), lr=0.01)
            parts = module, relaxed, rule, Generator(), Generator(order)
            for part, kept in zip(parts, saved or [], strict=bool(saved)):
                part.load_state_dict(kept)
            loader = DataLoader(relaxed.numbered, 8, shuffle=True, generator=order)
            for _ in range(passes):
                # In the first pass half of the examples do not come.
                for ids, (inputs, labels) in list(loader)[: None if relaxed.updates.any() else 2]:
                    relaxed.take(ids)
                    loss = nn.functional.cross_entropy(module(inputs), labels)
                    rule.zero_grad()
                    (loss + relaxed.hidden_loss()).backward()
                    rule.step()
                    relaxed.step()
                relaxed.rate *= 0.9
            return to_file(*parts)

    torch.manual_seed(3)
    whole = fit(picture_net(), 4)
    torch.manual_seed(3)
    parts = [fit(picture_net(), 1)]
    for passes in (1, 2):
        parts.append(fit(picture_net(), passes, parts[-1]))
    assert_same(parts[-1], whole)


def test_a_table_of_other_examples_optimisers_or_layers_is_refused():
    data, module = numbers(), mlp()
    x = data.tensors[0]
    with relax_dataset(module, data, rate=0.05) as relaxed:
        train_batches(module, relaxed, [[3, 1, 7]], data)
        kept = to_file(relaxed)[0]
    for dataset, optimizer, message in (
        (numbers(13), "adam", "of 13 examples, got 12, and moved by 'adam', got 'adam'"),
        (data, "sgd", "of 12 examples, got 12, and moved by 'sgd', got 'adam'"),
    ):
        other = relax_dataset(module, dataset, rate=0.05, optimizer=optimizer)
        with other, pytest.raises(ValueError, match=message):
            other.load_state_dict(kept)
    wider = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 1))
    for build, select, message in (
        (module, "0", "of the keys 0, got 0, 2"),
        (wider, nn.Linear, r"'0' belong to .* shape \(2, 5\), got an output of shape \(2, 6\)"),
    ):
        with relax_dataset(build, data, select, rate=0.05) as relaxed:
            relaxed.load_state_dict(kept)
            relaxed.take([0, 3])
            with pytest.raises(ValueError, match=message):
                build(x[[0, 3]])


def test_the_axis_of_the_examples_may_be_another():
    data = TensorDataset(torch.randn(12, 4, 3), torch.randn(12, 2))
    module, layers = Steps(), (nn.LSTM, nn.Linear)
    with relax_dataset(module, data, layers, rate=0.1, axis={"lstm[0]": 1}) as relaxed:
        train_batches(module, relaxed, [[0, 5], [5, 7, 1]], data)
        assert relaxed.state_dict()["tables"]["lstm[0]"][0].shape == (12, 4, 6)
    with relax_dataset(module, data, layers, rate=0.1) as relaxed:
        relaxed.take([0, 5])
        with pytest.raises(ValueError, match=r"'lstm\[0\]' must have the 2 examples on axis 0"):
            module(data.tensors[0][[0, 5]])


def test_a_table_refuses_what_it_cannot_do():
    data, module = numbers(), mlp()
    for wrong, error, message in (
        (lambda: relax_dataset(module, [1, 2], rate=0.1), TypeError, "with a length, got list"),
        (lambda: relax_dataset(module, data, rate=0), ValueError, "rate must be above 0"),
        (lambda: relax_dataset(module, data, rate=1e-9, optimizer="rprop"), ValueError, "Rprop"),
        (lambda: relax_dataset(module, data, rate=1, optimizer="lion"), ValueError, "got 'lion'"),
        (lambda: relax_dataset(module, data, rate=1, folder="no/such"), ValueError, "existing one"),
    ):
        with pytest.raises(error, match=message):
            wrong()
    with relax_dataset(module, data, rate=0.1) as relaxed:
        x = data.tensors[0]
        for ids, message in (([12], "lie in 0 … 11, got 12"), ([3, 3], "each once"), ([], "got")):
            with pytest.raises(ValueError, match=message):
                relaxed.take(ids)
        with pytest.raises(ValueError, match=r"take\(ids\) must say"):
            module(x)
        relaxed.take([0, 1])
        with pytest.raises(ValueError, match="must have the 2 examples on axis 0"):
            module(x)
        with pytest.raises(ValueError, match=r"step must follow a pass and backward\(\)"):
            relaxed.step()


# --- the README, and networks that nobody here wrote ------------------------------------------


def test_the_recipe_of_the_readme_trains_a_convolutional_network():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## RAI on a model of your own")[2].partition("\n## ")[0]
    recipes = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(recipes) == 2
    data = digits(300, 100)
    for recipe in recipes:
        torch.manual_seed(0)
        features = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(inplace=True)]
        features = nn.Sequential(*features, nn.MaxPool2d(2), nn.Flatten())
        model = nn.Sequential()
        model.add_module("features", features)
        model.add_module("classifier", nn.Linear(72, 10))
        names = {"model": model, "x": data.x, "y": data.y, "dataset": TensorDataset(data.x, data.y)}
        exec(recipe, names | {"loss_function": nn.functional.cross_entropy})
        assert not model.training
        accuracy = (model(data.held_out_x).argmax(1) == data.held_out_y).double().mean().item()
        assert accuracy > 0.7  # of 10 classes


def torchvision_models():
    """Its definitions of networks, which are plain Python, with whatever build of torch is here."""
    while True:
        try:
            return importlib.import_module("torchvision.models")
        except RuntimeError as error:  # its kernels are for another build, and are not used here
            missing = re.match(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            OPERATORS.append(torch.library.Library("torchvision", "FRAGMENT"))
            OPERATORS[-1].define(f"{missing[1]}(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("alexnet", 64, {}),
        ("squeezenet1_1", 64, {}),
        ("mobilenet_v3_small", 32, {}),
        ("resnet18", 32, {}),
        ("densenet121", 32, {}),
        ("vit_b_16", 32, {"image_size": 32}),
    ],
)
def test_networks_of_torchvision_are_relaxed_step_and_are_restored(name, size, options):
    models = torchvision_models()
    module = getattr(models, name)(num_classes=5, **options)
    x = torch.randn(2, 3, size, size)
    before = state(module)
    kinds = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)
    with relax(module, x, kinds) as relaxed:
        assert same(state(module), before)
        attention = [part for part in module.modules() if isinstance(part, nn.MultiheadAttention)]
        inside = {id(part) for each in attention for part in each.modules() if part is not each}
        chosen = [p for p in module.modules() if isinstance(p, kinds) and id(p) not in inside]
        assert len(relaxed.targets) == len(chosen)
        disturb(relaxed, 0.01)  # without residuals the first step moves the output's target alone
        y = torch.tensor([1, 4])
        loss = nn.functional.cross_entropy(module(x), y) + relaxed.hidden_loss()
        loss.backward()
        torch.optim.SGD([*module.parameters(), *relaxed.parameters()], lr=1e-3).step()
        moved = state(module)
        module.eval()
        relaxed_output = module(x)
    module.eval()
    ordinary = getattr(models, name)(num_classes=5, **options).eval()
    ordinary.load_state_dict(moved[0])
    assert torch.equal(module(x), ordinary(x)) and torch.equal(relaxed_output, ordinary(x))
    assert moved[1:] == before[1:]
    assert any(not torch.equal(moved[0][key], before[0][key]) for key in before[0])


class WithASpare(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x):
        return self.used(x)


def test_what_was_refused_can_be_relaxed_even_while_the_error_is_kept(x):
    model = WithASpare()
    with pytest.raises(ValueError, match="at least one chosen submodule must run") as kept:
        relax(model, x, "spare")
    assert kept.tb is not None  # its frames keep what they made
    with relax(model, x, "used") as relaxed:
        assert list(relaxed.targets) == ["used"]


def test_a_hidden_loss_that_was_differentiated_asks_for_a_new_pass(x):
    model = mlp()
    with relax(model, x, nn.Linear) as relaxed:
        disturb(relaxed, 0.1)
        for _ in range(2):
            model(x)
            relaxed.hidden_loss().backward()
            with pytest.raises(ValueError, match="hidden_loss needs a new forward pass"):
                relaxed.hidden_loss()


def test_targets_start_at_a_pass_in_training_mode_whatever_the_mode(x):
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1)).eval()
    expected = copy.deepcopy(model).train()[:2](x)
    with relax(model, x, "1") as relaxed:
        torch.testing.assert_close(relaxed.targets["1"], expected)
        assert not torch.allclose(expected, model[:2](x))
        assert not any(part.training for part in model.modules())


def test_a_guide_reads_images_by_their_pixels():
    images, labels = torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 0, 1, 1, 0])
    rest = [nn.Conv2d(1, 3, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(48, 2)]
    guided = []
    for first, x in ((nn.Identity(), images), (nn.Unflatten(1, (1, 4, 4)), images.flatten(1))):
        with relax(nn.Sequential(first, *rest), x, nn.Conv2d) as relaxed:
            relaxed.guide(labels, 3)
            guided.append(relaxed.targets["1"].detach().clone())
    assert torch.equal(*guided)
    assert not torch.equal(guided[0][0], guided[0][1])


class Unpooled(nn.Module):
    """Hands on numbers and the places where they stood."""

    def __init__(self):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool1d(2, return_indices=True), nn.MaxUnpool1d(2)

    def forward(self, x):
        greatest, places = self.pool(x)
        return self.unpool(2 * greatest, places)


def test_whole_numbers_pass_by_their_targets():
    model, x = Unpooled(), torch.randn(3, 1, 8)
    expected = model(x)
    with relax(model, x, "pool") as relaxed:
        assert list(relaxed.targets) == ["pool[0]"]
        assert torch.equal(model(x), expected)


class TwiceCheckpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Linear(4, 4)

    def forward(self, x):
        once = checkpoint(self.part, x, use_reentrant=False)
        return checkpoint(self.part, once.sigmoid(), use_reentrant=False)


def test_a_checkpointed_part_that_runs_twice_is_refused(x):
    with pytest.raises(ValueError, match="must run once in a pass, 'part' did not"):
        relax(TwiceCheckpointed(), x, "part")
