"""The multilayer perceptron of the study, for one seed or many at once.

A network of T linear layers computes, with h₀ = x and t = 1 … T,

    z_t = W_t h_{t−1} + b_t        (pre-activation of layer t)
    h_t = φ(z_t)                   (hidden layers, t < T)

and the output activation acts on z_T. Layers are numbered from the input, 1 … T.

Weights of equal hidden layers are one tensor, and so are independent seeds:
(layers, seeds, outputs, inputs). Layers stand first because any stretch of layers is then
contiguous in memory and is a single batched product, for one seed or for many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rai_utils.checks import LAST_SEED, number, one_of, seeded, whole_number, whole_numbers

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An activation function with all that the study knows about it.

    Attributes:
        function: z -> h = φ(z), over the last axis where units interact (softmax).
        backward: (gradient with respect to h, ``kept(z, h)``) -> gradient with respect to z. None
            where there is no rule: the gradient is then left to autograd, and the function cannot
            be relaxed.
        module: the same function as a ``torch.nn.Module``.
        reads_z: whether ``backward`` is written in terms of z. In terms of the output h, z need
            not be kept; but where rounding has made h a constant, h no longer knows the slope.
        label: how text and figures call it.
        greatest_slope: the greatest |φ'|; None where units interact or the width decides.
        initialisation: the usual one for it, of ``INITIALISATIONS``.
        orthogonal_gain: of the start ``"orthogonal_centred"``, with which a layer hands a gradient
            on at about its size: 1/φ'(0) where φ is bounded, else 1/√E[φ'(Z)²] for Z standard
            normal.
        compared: whether studies that go through the activations take it up.
    """

    function: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor] | None
    module: Callable[[], nn.Module]
    reads_z: bool = False
    label: str = ""
    greatest_slope: float | None = None
    initialisation: str = "torch_default"
    orthogonal_gain: float = 1.0
    compared: bool = False

    def kept(self, z: Tensor, h: Tensor) -> Tensor:
        """Return which of z and h = φ(z) the backward rule reads."""
        return z if self.reads_z else h

    def slope(self, z: Tensor) -> Tensor:
        """φ'(z), of the shape of z, by the rule that training uses; a ValueError if units mix."""
        if self.greatest_slope is None:
            raise ValueError(f"activation must work unit by unit, got {self.label}")
        return self.pull_back(torch.ones_like(z), self.kept(z, self.function(z)))

    def pull_back(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Gradient with respect to z from that with respect to h; a ValueError without a rule."""
        if self.backward is None:
            raise ValueError(f"activation must have a backward rule, got {self.label}")
        return self.backward(gradient, kept)


def centred_sigmoid(z: Tensor) -> Tensor:
    """σ(z) − ½: the sigmoid's shape and slope with outputs around 0."""
    return torch.sigmoid(z) - 0.5


def softmax_times_width(z: Tensor) -> Tensor:
    """Softmax over the last axis times its width k, so that the mean of the outputs is 1."""
    return torch.softmax(z, -1) * z.shape[-1]


def softmax_cold(z: Tensor) -> Tensor:
    """Softmax at temperature 1/k, softmax(k z): its slope for small z is that of k · softmax."""
    return torch.softmax(z * z.shape[-1], -1)


def softmax_layer_norm(z: Tensor) -> Tensor:
    """Softmax followed by layer normalisation without trained factors (Ba et al. 2016, Eq. 3)."""
    h = torch.softmax(z, -1)
    return nn.functional.layer_norm(h, h.shape[-1:], eps=1e-12)


def sigmoid_flat(z: Tensor) -> Tensor:
    """Sigmoid σ(4z/k), whose greatest slope is 1/k: softmax's for small z, without the sum."""
    return torch.sigmoid(z * (4 / z.shape[-1]))


class _FunctionModule(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


def _leaky(slope: float) -> Activation:
    return Activation(
        lambda z: nn.functional.leaky_relu(z, slope),
        # The sign of h is the sign of z, and only the sign matters.
        lambda gradient, h: aten.leaky_relu_backward(gradient, h, slope, False),
        lambda: nn.LeakyReLU(slope),
        label=f"leaky ReLU {slope:g}",
        greatest_slope=1.0,
        initialisation="he",
        orthogonal_gain=(2 / (1 + slope**2)) ** 0.5,
        compared=True,
    )


def _by_module(
    function: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor, Tensor], Tensor] | None,
    label: str,
) -> Activation:
    """Return a control: it changes one thing in another activation."""
    return Activation(function, backward, lambda: _FunctionModule(function), label=label)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(
        lambda z: z,
        lambda gradient, h: gradient,
        nn.Identity,
        label="identity",
        greatest_slope=1.0,
        initialisation="xavier",
    ),
    "sigmoid": Activation(
        torch.sigmoid,
        aten.sigmoid_backward,
        nn.Sigmoid,
        label="sigmoid",
        greatest_slope=0.25,
        initialisation="xavier",
        orthogonal_gain=4.0,
        compared=True,
    ),
    "tanh": Activation(
        torch.tanh,
        aten.tanh_backward,
        nn.Tanh,
        label="tanh",
        greatest_slope=1.0,
        initialisation="xavier",
        compared=True,
    ),
    "relu": Activation(
        torch.relu,
        lambda gradient, h: aten.threshold_backward(gradient, h, 0),
        nn.ReLU,
        label="ReLU",
        greatest_slope=1.0,
        initialisation="he",
        orthogonal_gain=2**0.5,
        compared=True,
    ),
    "leaky_relu": _leaky(0.01),
    "leaky_relu_0.1": _leaky(0.1),
    "elu": Activation(
        nn.functional.elu,
        lambda gradient, z: aten.elu_backward(gradient, 1.0, 1.0, 1.0, False, z),
        nn.ELU,
        reads_z=True,
        label="ELU",
        greatest_slope=1.0,
        initialisation="he",
        orthogonal_gain=1.22,
        compared=True,
    ),
    "softplus": Activation(
        nn.functional.softplus,
        lambda gradient, z: aten.softplus_backward(gradient, z, 1, 20),
        nn.Softplus,
        reads_z=True,
        label="softplus",
        greatest_slope=1.0,
        initialisation="orthogonal_centred",
        orthogonal_gain=1.85,
        compared=True,
    ),
    "gelu": Activation(
        nn.functional.gelu,
        lambda gradient, z: aten.gelu_backward(gradient, z),
        nn.GELU,
        reads_z=True,
        label="GELU",
        greatest_slope=1.128904145,  # at z = √2, where φ'' = 0
        initialisation="he",
        orthogonal_gain=1.48,
        compared=True,
    ),
    "silu": Activation(
        nn.functional.silu,
        lambda gradient, z: aten.silu_backward(gradient, z),
        nn.SiLU,
        reads_z=True,
        label="SiLU",
        greatest_slope=1.099839320,  # at z ≈ 2.3994
        initialisation="he",
        orthogonal_gain=1.62,
        compared=True,
    ),
    "centred_sigmoid": Activation(
        centred_sigmoid,
        lambda gradient, z: gradient * torch.sigmoid(z) * torch.sigmoid(-z),
        lambda: _FunctionModule(centred_sigmoid),
        reads_z=True,
        label="sigmoid − ½",
        greatest_slope=0.25,
        initialisation="xavier",
        orthogonal_gain=4.0,
    ),
    "softmax": Activation(
        lambda z: torch.softmax(z, -1),
        lambda gradient, h: aten._softmax_backward_data(gradient, h, -1, h.dtype),
        lambda: nn.Softmax(-1),
        label="softmax",
    ),
    "softmax_times_width": _by_module(
        softmax_times_width,
        lambda gradient, h: aten._softmax_backward_data(
            gradient * h.shape[-1], h / h.shape[-1], -1, h.dtype
        ),
        "softmax × k",
    ),
    "softmax_cold": _by_module(
        softmax_cold,
        lambda gradient, h: aten._softmax_backward_data(gradient, h, -1, h.dtype) * h.shape[-1],
        "softmax(k z)",
    ),
    # The outputs are the same for softmax outputs of any spread, but the gradient is not.
    "softmax_layer_norm": _by_module(softmax_layer_norm, None, "softmax, layer norm"),
    "sigmoid_flat": _by_module(
        sigmoid_flat,
        lambda gradient, h: aten.sigmoid_backward(gradient, h) * (4 / h.shape[-1]),
        "sigmoid(4z/k)",
    ),
}


def compared_activations() -> dict[str, Activation]:
    """Return the activations that studies go through, in the order of ``ACTIVATIONS``."""
    return {name: activation for name, activation in ACTIVATIONS.items() if activation.compared}


OUTPUT_ACTIVATIONS = ("sigmoid", "softmax", "identity")


@dataclass(frozen=True)
class Run:
    """Equal consecutive layers that share one weight tensor.

    Attributes:
        first: number of the first layer, from 1.
        layers: how many there are.
        inputs: width that each reads.
        outputs: width that each writes.
    """

    first: int
    layers: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Architecture:
    """Shape of a multilayer perceptron, (l₀, …, l_T) in the proposal's notation.

    Attributes:
        widths: units from input to output; T + 1 numbers for T linear layers.
        hidden_activation: a key of ``ACTIVATIONS``.
        output_activation: ``"sigmoid"``, ``"softmax"`` or ``"identity"``.
        skip_connections: whether each hidden layer that keeps the width adds its input to its
            output, h_t = φ(z_t) + h_{t−1} (He et al. 2015, Eq. 1, with one layer per block).

    Raises:
        ValueError: a width is below 1, there is no layer, a name is unknown, or a softmax output
            has one unit: its output is 1 whatever it reads.
    """

    widths: tuple[int, ...]
    hidden_activation: str = "sigmoid"
    output_activation: str = "sigmoid"
    skip_connections: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", whole_numbers(self.widths, "widths", least=1))
        if len(self.widths) < 2:
            raise ValueError(
                "widths must name at least the input and the output width, "
                f"got {len(self.widths)} of them"
            )
        one_of(self.hidden_activation, ACTIVATIONS, "hidden activation")
        one_of(self.output_activation, OUTPUT_ACTIVATIONS, "output activation")
        if self.output_activation == "softmax" and self.widths[-1] < 2:
            raise ValueError("a softmax output must have 2 units or more, got 1")

    @property
    def depth(self) -> int:
        """Number of linear layers, T."""
        return len(self.widths) - 1

    @property
    def activation(self) -> Activation:
        """The hidden activation and its backward rule."""
        return ACTIVATIONS[self.hidden_activation]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Equal consecutive hidden layers, grouped; the output layer always stands alone."""
        runs: list[Run] = []
        for layer, (inputs, outputs) in enumerate(pairwise(self.widths), start=1):
            last = runs[-1] if runs else None
            if layer < self.depth and last and (last.inputs, last.outputs) == (inputs, outputs):
                runs[-1] = Run(last.first, last.layers + 1, inputs, outputs)
            else:
                runs.append(Run(layer, 1, inputs, outputs))
        return tuple(runs)

    def locate(self, layer: int) -> tuple[int, int]:
        """Return (which run, position in it) of a layer, from 1."""
        place = next(i for i, run in enumerate(self.runs) if layer < run.first + run.layers)
        return place, layer - self.runs[place].first

    def adds_input(self, layer: int) -> bool:
        """Whether ``layer`` (from 1) has a skip connection."""
        keeps_width = self.widths[layer - 1] == self.widths[layer]
        return self.skip_connections and keeps_width and layer < self.depth

    def __str__(self) -> str:
        """Name the shape as the proposal does, e.g. ``(2, 100 × 100, 1) sigmoid``."""
        parts: list[str] = []
        for width, equal in groupby(self.widths):
            count = len(list(equal))
            parts += [str(width)] * count if count < 4 else [f"{count} × {width}"]
        return f"({', '.join(parts)}) {self.hidden_activation}"


class StackedMLP(nn.Module):
    """One multilayer perceptron per seed, their weights stacked.

    Attributes:
        architecture: the shape all seeds share.
        weights: one tensor per run of equal layers, (layers, seeds, outputs, inputs).
        biases: one tensor per run, (layers, seeds, 1, outputs).
        drawn_from: the seed that each network was drawn from; empty where nobody knows.

    Raises:
        ValueError: a tensor's shape does not fit the architecture.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        drawn_from: Sequence[int] = (),
    ) -> None:
        super().__init__()
        runs = architecture.runs
        if len(weights) != len(runs) or len(biases) != len(runs):
            raise ValueError(
                f"{architecture} has {len(runs)} runs of equal layers, "
                f"got {len(weights)} weights and {len(biases)} biases"
            )
        seeds = weights[0].shape[1]
        for run, weight, bias in zip(runs, weights, biases, strict=True):
            for name, tensor, shape in (
                ("weight", weight, (run.layers, seeds, run.outputs, run.inputs)),
                ("bias", bias, (run.layers, seeds, 1, run.outputs)),
            ):
                if tuple(tensor.shape) != shape:
                    raise ValueError(
                        f"{name} of layer {run.first} must have shape {shape}, "
                        f"got {tuple(tensor.shape)}"
                    )
        self.architecture = architecture
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(biases)
        self.drawn_from = tuple(drawn_from)

    @property
    def seeds(self) -> int:
        """How many independent networks are stacked."""
        return self.weights[0].shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Pre-activations z_T of the plain forward pass, (seeds, examples, outputs).

        The output activation is left to the loss, which is exact that way. ``x`` is (examples,
        features); another shape is refused with a ValueError.
        """
        check_inputs(self.architecture, x)
        return forward(self.architecture, [*self.weights], [*self.biases], x)

    def predict(self, x: Tensor) -> Tensor:
        """Output of the plain forward pass after the output activation, without gradients.

        It has the shape (seeds, examples, outputs): probabilities for a sigmoid or softmax output.
        """
        with torch.no_grad():
            return ACTIVATIONS[self.architecture.output_activation].function(self(x))

    def select(self, indices: Sequence[int]) -> StackedMLP:
        """Return a copy with only the networks at these positions of the seed axis."""
        chosen = list(indices)
        return StackedMLP(
            self.architecture,
            [weight.detach()[:, chosen] for weight in self.weights],
            [bias.detach()[:, chosen] for bias in self.biases],
            [self.drawn_from[index] for index in chosen] if self.drawn_from else (),
        )

    def layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield weight (seeds, l_t, l_{t−1}) and bias (seeds, 1, l_t) of layer t = 1 … T."""
        for weights, biases in zip(self.weights, self.biases, strict=True):
            yield from zip(weights.unbind(0), biases.unbind(0), strict=True)

    def as_module(self, index: int) -> nn.Sequential:
        """Copy the network at a position of the seed axis into ordinary ``torch.nn`` layers.

        They are named ``linear1``, ``activation1``, … and return z_T, like ``forward``. Skip
        connections, which a chain cannot express, are refused with a ValueError.
        """
        if self.architecture.skip_connections:
            raise ValueError("as_module needs a plain chain, got an architecture with skips")
        modules = nn.Sequential()
        for layer, (weight, bias) in enumerate(self.layers(), start=1):
            outputs, inputs = weight.shape[1:]
            linear = nn.Linear(inputs, outputs).to(weight.device, weight.dtype)
            with torch.no_grad():
                linear.weight.copy_(weight[index])
                linear.bias.copy_(bias[index, 0])
            modules.add_module(f"linear{layer}", linear)
            if layer < self.architecture.depth:
                modules.add_module(f"activation{layer}", self.architecture.activation.module())
        return modules


def stack(models: Sequence[StackedMLP]) -> StackedMLP:
    """Stack networks of one architecture along the seed axis, in order.

    None at all, or other architectures, are refused with a ValueError.
    """
    if not models:
        raise ValueError("stack needs at least one model, got none")
    architecture = models[0].architecture
    for model in models:
        if model.architecture != architecture:
            raise ValueError(
                f"all models must have the architecture {architecture}, got {model.architecture}"
            )
    parts = zip(*(model.parameters() for model in models), strict=True)
    stacked = [torch.cat([part.detach() for part in each], 1) for each in parts]
    runs = len(architecture.runs)
    seeds = [seed for model in models for seed in model.drawn_from]
    return StackedMLP(architecture, stacked[:runs], stacked[runs:], seeds)


DEVELOPMENT = 1000
"""The first seed of development; below it are the seeds that confirm."""

INITIALISATIONS = ("torch_default", "xavier", "he", "orthogonal_centred")


def _draw(
    initialisation: str,
    weight: Tensor,
    bias: Tensor,
    centre: float,
    gain: float,
    generator: torch.Generator,
) -> None:
    """Draw a layer, (outputs, inputs) and (outputs,), that reads ``centre`` where z below is 0."""
    bias.zero_()
    if initialisation == "torch_default":
        nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
        weight.mul_(gain)
        bound = 1 / weight.shape[1] ** 0.5
        nn.init.uniform_(bias, -bound, bound, generator=generator)
    elif initialisation == "xavier":
        nn.init.xavier_uniform_(weight, gain=gain, generator=generator)
    elif initialisation == "he":
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        weight.mul_(gain)
    else:
        nn.init.orthogonal_(weight, gain=gain, generator=generator)
        bias.copy_(-centre * weight.sum(1))


def build_mlp(
    architecture: Architecture,
    seeds: Sequence[int],
    initialisation: str = "torch_default",
    gain: float = 1.0,
    *,
    dtype: torch.dtype = torch.float32,
) -> StackedMLP:
    """Draw one network per seed; each depends on its own seed alone.

    Initialisations, for a layer with n inputs and m outputs:

    - ``"torch_default"``: what ``torch.nn.Linear`` draws, W and b uniform on ±1/√n, in the same
      order, so a seed gives the network that ``torch.manual_seed(seed)`` would; W times ``gain``.
    - ``"xavier"``: W uniform on ±gain·√(6/(n + m)), b = 0 (Glorot & Bengio 2010, Eq. 16).
    - ``"he"``: W normal with standard deviation gain·√(2/n), b = 0 (He et al. 2015b, Eq. 10).
    - ``"orthogonal_centred"``: W = gain·Q with orthonormal rows or columns (Saxe et al. 2014),
      b_i = −φ(0) Σ_j W_ij for layers that read a hidden layer, else 0. The bias puts z at 0 when
      every unit below sits at φ(0): for the sigmoid, b_i = −½ Σ_j W_ij.

    Args:
        seeds: one whole number per network, 0 … 2³² − 1.
        initialisation: one of ``INITIALISATIONS``.
        gain: factor on the weights, above 0.
        dtype: precision of the result. Numbers are drawn in float32 in any case, so that a seed
            means the same network in both.
    """
    seeds = whole_numbers(seeds, "seeds", most=LAST_SEED)
    if not seeds:
        raise ValueError("seeds must name at least one network, got none")
    draw = partial(_draw, one_of(initialisation, INITIALISATIONS, "initialisation"))
    gain = number(gain, "gain", above=0)
    count = len(seeds)
    weights = [torch.empty(r.layers, count, r.outputs, r.inputs) for r in architecture.runs]
    biases = [torch.empty(r.layers, count, 1, r.outputs) for r in architecture.runs]
    at_zero = float(architecture.activation.function(torch.zeros(architecture.widths[1]))[0])
    for position, seed in enumerate(seeds):
        generator = seeded(seed)
        for run, weight, bias in zip(architecture.runs, weights, biases, strict=True):
            for offset in range(run.layers):
                centre = at_zero if run.first + offset > 1 else 0.0
                draw(weight[offset, position], bias[offset, position, 0], centre, gain, generator)
    return StackedMLP(
        architecture, [w.to(dtype) for w in weights], [b.to(dtype) for b in biases], seeds
    )


def confirmation_seeds(count: int, first: int = 0) -> range:
    """Return the seeds of networks and draws that are published: from ``first`` on, below 1000.

    A finding that some of them suggested is judged by others.

    Raises:
        ValueError: ``first`` is below 0, or ``count`` is not from 1 to 1000 less ``first``.
    """
    first = whole_number(first, "first", most=DEVELOPMENT - 1)
    count = whole_number(count, "count", least=1, most=DEVELOPMENT - first)
    return range(first, first + count)


def development_seeds(count: int) -> range:
    """Return seeds for all that is tried and tuned: 1000, 1001, …; none is ever published.

    Raises:
        ValueError: ``count`` is below 1.
    """
    return range(DEVELOPMENT, DEVELOPMENT + whole_number(count, "count", least=1))


def check_inputs(architecture: Architecture, x: Tensor) -> None:
    """Refuse, with a ValueError, inputs that are not of shape (examples, l₀)."""
    if x.ndim != 2 or x.shape[1] != architecture.widths[0]:
        raise ValueError(
            f"inputs must have shape (examples, {architecture.widths[0]}), got {tuple(x.shape)}"
        )


def affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Linear layers side by side: z = h Wᵀ + b, (…, examples, outputs).

    Args:
        h: activations, (…, examples, inputs).
        weight: (…, outputs, inputs) with the same leading axes.
        bias: (…, 1, outputs).
    """
    z = torch.baddbmm(
        bias.reshape(-1, *bias.shape[-2:]),
        h.reshape(-1, *h.shape[-2:]),
        weight.reshape(-1, *weight.shape[-2:]).mT,
    )  # (all leading axes, examples, outputs)
    return z.view(*weight.shape[:-2], *z.shape[-2:])


def _carry(h: Tensor, weight: Tensor, bias: Tensor, name: str, skip: bool) -> Tensor:
    """Do what ``_HiddenLayers`` does, and keep nothing but what autograd keeps."""
    activation = ACTIVATIONS[name].function
    for w, b in zip(weight.unbind(0), bias.unbind(0), strict=True):
        output = activation(torch.baddbmm(b, h, w.mT))  # (seeds, examples, outputs)
        h = output + h if skip else output
    return h


# After so many layers the backward sweep asks whether there is any gradient left.
LOOK_EVERY = 8


@dataclass
class DeadLayers:
    """What one run of hidden layers keeps from step to step, to leave out what cannot change.

    Where the gradient has underflowed to exactly 0, an optimiser that reads gradients alone moves
    nothing, so the next forward pass repeats itself there.

    Attributes:
        count: leading layers whose last gradient was exactly 0.
        inputs: h_{t−1} of each layer in the last forward pass, (seeds, examples, inputs) each, and
            h of the last layer.
        kept: what the backward rule reads of each layer, (seeds, examples, outputs) each.
    """

    count: int = 0
    inputs: list[Tensor] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)


class _HiddenLayers(torch.autograd.Function):
    """Consecutive hidden layers, h_t = φ(W_t h_{t−1} + b_t) (+ h_{t−1} with a skip).

    The ordinary backward pass with its cost stripped to the matrix products: autograd would
    spend as long again on the bookkeeping of some 600 small operations in a 101-layer net. Where
    the gradient of all examples and seeds has underflowed to exactly 0, as it does in a deep
    sigmoid net, everything below is exactly 0 too and no product is taken.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor,
        name: str,
        skip: bool,
        into: tuple[Tensor, Tensor] | None,
        dead: DeadLayers,
    ) -> Tensor:
        activation = ACTIVATIONS[name]
        inputs, kept = dead.inputs[: dead.count], dead.kept[: dead.count]
        if dead.count:
            h = dead.inputs[dead.count]
        for w, b in zip(weight[dead.count :].unbind(0), bias[dead.count :].unbind(0), strict=True):
            inputs.append(h)
            z = torch.baddbmm(b, h, w.mT)  # (seeds, examples, outputs)
            output = activation.function(z)
            kept.append(activation.kept(z, output))
            h = output + h if skip else output
        ctx.save_for_backward(weight, bias)
        # Nothing of these is returned but a copy of the last, so no reference runs in a circle.
        dead.inputs, dead.kept = [*inputs, h], kept
        ctx.name, ctx.skip, ctx.into, ctx.dead = name, skip, into, dead
        return h.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias = ctx.saved_tensors
        dead: DeadLayers = ctx.dead
        inputs, kept = dead.inputs, dead.kept
        layers = weight.shape[0]
        pull_back = ACTIVATIONS[ctx.name].pull_back
        weight_gradient, bias_gradient = ctx.into or map(torch.empty_like, (weight, bias))
        # Of memory that was given, the gradients before are 0 since the last step.
        before, dead.count = dead.count if ctx.into else 0, 0
        for t, w in reversed(list(enumerate(weight.unbind(0)))):
            above = layers - 1 - t
            # Where it ended at the last step, every layer is looked at.
            look = above % LOOK_EVERY == 0 or 0 < before <= t + 1 <= before + LOOK_EVERY
            # A GPU would have to be waited for.
            if look and not gradient.is_cuda and not gradient.any():
                rest = slice(before, t + 1)
                # 0 times infinity would be NaN.
                if _are_finite(weight[rest], *inputs[rest], *kept[rest]):
                    weight_gradient[rest].zero_()
                    bias_gradient[rest].zero_()
                    gradient = torch.zeros_like(inputs[0])
                    dead.count = t + 1
                    break
            delta = pull_back(gradient, kept[t])  # (seeds, examples, outputs)
            torch.bmm(delta.mT, inputs[t], out=weight_gradient[t])
            torch.sum(delta, 1, keepdim=True, out=bias_gradient[t])
            below = torch.bmm(delta, w)  # (seeds, examples, inputs)
            gradient = below + gradient if ctx.skip else below
        return gradient, weight_gradient, bias_gradient, *(None,) * 4


def _are_finite(*tensors: Tensor) -> bool:
    """Whether no number is NaN or infinite; may say no to numbers whose sum overflows."""
    return bool(torch.stack([tensor.sum() for tensor in tensors]).isfinite().all())


def forward(
    architecture: Architecture,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    x: Tensor,
    into: Sequence[Tensor] | None = None,
    dead: Sequence[DeadLayers] | None = None,
) -> Tensor:
    """z_T of the plain forward pass, (seeds, examples, l_T), as a function of weights and biases.

    It is pure but for the memory given.

    Args:
        architecture, weights, biases: as in ``StackedMLP``.
        x: inputs, (examples, l₀), or (seeds, examples, l₀) where each seed has examples of its own.
        into: memory of the shapes of the weights, then of the biases, that the backward pass may
            write their gradients to; None for new memory.
        dead: what was kept of the last pass, one for each run of hidden layers; only with ``into``,
            the same ``x``, and parameters that moved nowhere but where their gradient was not 0.
            None to compute every layer.
    """
    ruled = torch.is_grad_enabled() and architecture.activation.backward is not None
    ruled = ruled and not torch.compiler.is_compiling()  # which fuses plain operations
    runs, name = architecture.runs, architecture.hidden_activation
    memory = list(zip(into, into[len(runs) :], strict=False)) if into else [None] * len(runs)
    kept = dead or [DeadLayers() for _ in runs[:-1]]
    same_input = True
    h = x.expand(weights[0].shape[1], *x.shape[-2:])  # (seeds, examples, l₀)
    for run, weight, bias, own, layers in zip(runs, weights, biases, memory, kept, strict=False):
        skip = architecture.adds_input(run.first)
        if ruled:
            layers.count *= same_input
            same_input &= layers.count == run.layers
            h = _HiddenLayers.apply(h, weight, bias, name, skip, own, layers)
        else:
            h = _carry(h, weight, bias, name, skip)
    return affine(h, weights[-1][0], biases[-1][0])


def pre_activations(model: StackedMLP, x: Tensor) -> list[Tensor]:
    """z_1 … z_T of the plain forward pass, (seeds, examples, l_t) each, without gradients."""
    check_inputs(model.architecture, x)
    values: list[Tensor] = []
    with torch.no_grad():
        h = x.expand(model.seeds, *x.shape)
        for layer, (weight, bias) in enumerate(model.layers(), start=1):
            values.append(affine(h, weight, bias))  # (seeds, examples, l_t)
            activated = model.architecture.activation.function(values[-1])
            h = activated + h if model.architecture.adds_input(layer) else activated
    return values


def layer_norms(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each layer's weight and bias together, in float64: (T, seeds).

    The two are weights and biases as in ``StackedMLP``, or their gradients.
    """
    squares = [
        w.detach().double().square().sum((2, 3)) + b.detach().double().square().sum((2, 3))
        for w, b in zip(weights, biases, strict=True)
    ]  # each (layers of the run, seeds)
    return torch.cat(squares).sqrt()
