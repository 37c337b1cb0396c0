"""Relaxed activation identity (RAI): targets, residuals, and the relaxed loss.

The proposal (Mertens, *An Empirical Study of Relaxed Activation Identity's Effects on
First-Order Optimization*) gives every hidden layer t and example i a trainable target z_tⁱ. Each
layer reads the target below and predicts the one above,

    ẑ_{t+1}ⁱ = f_t(z_tⁱ, θ_t)                                                       (Eq. 2)
    𝓛 = Σ_i L_y(z_Tⁱ, ẑ_Tⁱ) + Σ_t Σ_i L_h(z_tⁱ, ẑ_tⁱ)                                (Eq. 4)

Here, as in the proposal's own experiments, a target is a *pre-activation*: the output of linear
layer t, before φ. So ẑ_t = W_t φ(z_{t−1}) + b_t, and the output layer may have a target too, which
the output loss then reads.

There are two ways to relax with one meaning. ``relaxed_loss`` works on the stacked networks of
``models``: layers do not depend on each other once the targets are given, so equal layers are one
batched product, and so are seeds. ``modules.relax`` works on any ``torch.nn.Module`` by forward
hooks; it is slower, and the reference that the stacked way is tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, groupby
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rai_utils import native
from rai_utils.checks import LAST_SEED, number, one_of, seeded, whole_numbers
from rai_utils.models import (
    ACTIVATIONS,
    Architecture,
    StackedMLP,
    affine,
    check_inputs,
    pre_activations,
)

if TYPE_CHECKING:
    from rai_utils.data import Dataset

OutputLoss = Literal["cross_entropy", "squared_error"]


def output_loss(
    z: Tensor, y: Tensor, output_activation: str, loss: OutputLoss = "cross_entropy"
) -> Tensor:
    """Output error L_y of each seed, (seeds,): a mean over examples (and output units, if squared).

    - ``"cross_entropy"``: −log of the probability given to the label, from the sigmoid of one unit
      or the softmax of several, computed from z_T itself and so exact in the tails.
    - ``"squared_error"``: (ŷ − y)² with ŷ the output activation of z_T; labels of several classes
      become one-hot vectors.

    Args:
        z: pre-activations of the output layer, (seeds, examples, outputs).
        y: labels, (examples,), or (seeds, examples) where each seed has examples of its own; whole
            numbers for several classes, else a TypeError. Real labels of several outputs are
            (examples, outputs).
        output_activation: ``"sigmoid"``, ``"softmax"`` or ``"identity"``.
        loss: which error; one that is unknown or does not go with the activation, a ValueError.
    """
    one_of(loss, get_args(OutputLoss), "loss")
    outputs = z.shape[-1]
    several = outputs > 1 and y.ndim == 2 and y.is_floating_point()
    if several and (loss != "squared_error" or y.shape[1] != outputs):
        raise ValueError(
            "labels of several numbers must be one for each output, with the loss 'squared_error', "
            f"got {y.shape[1]} for {outputs} outputs, with {loss!r}"
        )
    if outputs == 1 or several:
        y = y.to(z.dtype)
    elif y.is_floating_point():
        raise TypeError(f"labels of {outputs} classes must be integers, got {y.dtype}")
    else:
        y = y.long()
    if loss == "squared_error":
        prediction = ACTIVATIONS[output_activation].function(z)
        if not several:
            y = y[..., None] if outputs == 1 else nn.functional.one_hot(y, outputs)
        return (prediction - y).square().mean((1, 2))
    if output_activation == "sigmoid" and outputs == 1:
        each = nn.functional.binary_cross_entropy_with_logits(
            z[..., 0], y.expand(z.shape[:2]), reduction="none"
        )  # (seeds, examples)
        return each.mean(1)
    if output_activation == "softmax" and outputs > 1:
        each = nn.functional.cross_entropy(z.mT, y.expand(z.shape[:2]), reduction="none")
        return each.mean(1)
    raise ValueError(
        "cross_entropy needs a softmax output of several units, or a sigmoid output of one, "
        f"got {output_activation} with {outputs} units"
    )


@dataclass(frozen=True)
class _Piece:
    """Layers first … last between targets.

    Parallel ones each lie between their own two targets of one width: they are one product. Of a
    chain only the two ends have targets.
    """

    first: int
    last: int
    is_parallel: bool


@dataclass(frozen=True)
class RelaxationPlan:
    """Which layers are relaxed, and how the work is laid out.

    Attributes:
        architecture: the circuit.
        layers: numbers of the relaxed layers, ascending, from 1 (the first linear layer) to T.

    Raises:
        ValueError: no layer, a layer twice, a layer that the circuit does not have, skip
            connections, or an activation without a backward rule.
    """

    architecture: Architecture
    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        depth = self.architecture.depth
        layers = whole_numbers(self.layers, "relaxed layers", least=1, most=depth)
        object.__setattr__(self, "layers", layers)
        if self.architecture.skip_connections:
            raise ValueError(
                "a relaxed circuit must be a plain chain (a skip connection passes by the "
                "target), got an architecture with skip connections"
            )
        if self.architecture.activation.backward is None:
            raise ValueError(
                "a relaxed circuit needs an activation with a backward rule, "
                f"got {self.architecture.hidden_activation!r}"
            )
        if not self.layers:
            raise ValueError("at least one layer must be relaxed, got none")
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(
                f"relaxed layers must ascend and be named once each, got {self.layers}"
            )

    @cached_property
    def target_runs(self) -> tuple[tuple[int, ...], ...]:
        """Relaxed layers grouped by width: each group's targets share one tensor."""
        groups = groupby(self.layers, self.architecture.widths.__getitem__)
        return tuple(tuple(layers) for _, layers in groups)

    def locate(self, layer: int) -> tuple[int, int]:
        """Return (which target tensor, position on its layer axis) of a relaxed layer."""
        for index, group in enumerate(self.target_runs):
            if layer in group:
                return index, group.index(layer)
        raise ValueError(f"layer must be one of the relaxed {self.layers}, got {layer}")

    @cached_property
    def pieces(self) -> tuple[_Piece, ...]:
        """Independent pieces of work, from input to output."""
        widths, depth = self.architecture.widths, self.architecture.depth
        pieces: list[_Piece] = []
        below = 0
        for layer in self.layers:
            is_parallel = 0 < below == layer - 1 < depth - 1 and widths[below] == widths[layer]
            if is_parallel and pieces[-1].is_parallel:
                pieces[-1] = _Piece(pieces[-1].first, layer, True)
            else:
                pieces.append(_Piece(below + 1, layer, is_parallel))
            below = layer
        if below < depth:
            pieces.append(_Piece(below + 1, depth, False))
        return tuple(pieces)

    @cached_property
    def longest_stretch(self) -> int:
        """Most layers in a row that lie between two targets of one width, and are one product."""
        stretches = (piece for piece in self.pieces if piece.is_parallel)
        return max((piece.last - piece.first + 1 for piece in stretches), default=0)


def relaxation_plan(
    architecture: Architecture, layers: Iterable[int] | Literal["all"] = "all"
) -> RelaxationPlan:
    """Plan the relaxation of the given layers; ``"all"`` is every linear layer, 1 … T.

    Errors as ``RelaxationPlan``; a TypeError if ``layers`` is neither ``"all"`` nor numbers.
    """
    if isinstance(layers, str) and layers == "all":
        layers = range(1, architecture.depth + 1)
    return RelaxationPlan(architecture, whole_numbers(layers, "relaxed layers"))


@dataclass(frozen=True)
class Targets:
    """Trainable targets z_t of the relaxed layers, for the examples they were made for.

    Attributes:
        plan: which layers.
        values: one tensor per group of ``plan.target_runs``, (layers, seeds, examples, width).
        x: the examples, (examples, l₀), a copy of its own; using the targets with others, or with
            these after a change in place, is refused.
    """

    plan: RelaxationPlan
    values: tuple[Tensor, ...]
    x: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", self.x.clone())

    def at(self, layer: int) -> Tensor:
        """Targets of one relaxed layer, (seeds, examples, l_t)."""
        run, position = self.plan.locate(layer)
        return self.values[run][position]


@dataclass(frozen=True)
class RelaxedLoss:
    """The relaxed loss and its parts. None of them is the network's own loss.

    Attributes:
        total: output + λ Σ_t hidden_t, (seeds,); differentiable.
        output: L_y of the output target, or of the last prediction where layer T is not
            relaxed, (seeds,); for the record, detached.
        hidden: L_h of each relaxed layer, input to output, (relaxed layers, seeds); for the
            record, detached.
    """

    total: Tensor
    output: Tensor
    hidden: Tensor


# Activations that one batched product writes, 33 layers of 100 units and 100 examples. Larger ones
# fall out of the cache, and their temporaries are mapped and cleared anew at every step.
WINDOW = 330_000


class _ParallelTerms(torch.autograd.Function):
    """Weighted sum of the hidden terms of layers that all lie between given targets.

    ẑ = W φ(z_below) + b for many layers and seeds in one batched product. The gradients, two
    more products, are taken in the same sweep while the operands are in the cache. They can be:
    the sum is the end of the graph, and all that can still come from above is one factor a seed.

    Returns λ Σ_t term_t, (seeds,); the terms themselves, (layers, seeds), which are for the
    record and not differentiable; and copies of the lowest and the highest target for the
    neighbouring pieces to read, because autograd would fill a whole tensor for each such slice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        targets: Tensor,
        weight: Tensor,
        bias: Tensor,
        name: str,
        hidden_weight: float,
        into: tuple[Tensor, ...] | None,
        by_c: bool,
    ) -> tuple[Tensor, ...]:
        layers, seeds, width, _ = weight.shape
        examples = targets.shape[2]
        activation = ACTIVATIONS[name]
        norms = weight.new_empty(layers, seeds)
        gradients = into or tuple(torch.empty_like(tensor) for tensor in (targets, weight, bias))
        target_gradient, weight_gradient, bias_gradient = gradients
        factor = 2 * hidden_weight / (examples * width)
        ctx.gradients = gradients
        if by_c:
            native.hidden_terms(targets, weight, bias, name, factor, norms, gradients)
            ctx.mark_non_differentiable(norms)
            return hidden_weight * norms.sum(0), norms, targets[0].clone(), targets[-1].clone()
        residual_below = targets.new_zeros(1, *targets.shape[1:])
        for window in _windows(weight, examples):
            above = slice(window.start + 1, window.stop + 1)
            h, prediction = _window_predictions(targets, weight, bias, name, window)
            # r_t = ẑ_t − z_t, on which all gradients of the window rest.
            residual = prediction.sub_(targets[above])  # (layers, seeds, examples, width)
            torch.linalg.vector_norm(residual, dim=(2, 3), out=norms[window])
            # ∂/∂b_t = c Σ_i r_tⁱ with c = 2λ/(examples · width); c comes at the end, for all.
            torch.sum(residual, 2, keepdim=True, out=bias_gradient[window])
            delta, inputs = (tensor.view(-1, examples, width) for tensor in (residual, h))
            # ∂/∂W_t = c r_tᵀ h_{t−1}
            product = weight_gradient[window].view(-1, width, width)
            torch.baddbmm(product, delta.mT, inputs, beta=0, alpha=factor, out=product)
            # ∂/∂z_{t−1} by the term above it: c (r_t W_t) ⊙ φ'(z_{t−1})
            pulled = torch.empty_like(inputs)
            weights = weight[window].view(-1, width, width)
            torch.baddbmm(pulled, delta, weights, beta=0, alpha=factor, out=pulled)
            kept = activation.kept(targets[window], h)
            pulled = activation.pull_back(pulled.view_as(h), kept)
            # … and by its own term: − c r_{t−1}, whose residual the window before has if t is
            # the first here, and no one if z_{t−1} is the lowest target.
            first, rest = target_gradient[window][:1], target_gradient[window][1:]
            torch.sub(pulled[:1], residual_below, alpha=factor, out=first)
            torch.sub(pulled[1:], residual[:-1], alpha=factor, out=rest)
            residual_below = residual[-1:]
        # The highest target has only its own term.
        torch.mul(residual_below, -factor, out=target_gradient[-1:])
        bias_gradient.mul_(factor)
        terms = norms.square_().div_(examples * width)
        ctx.mark_non_differentiable(terms)
        return hidden_weight * terms.sum(0), terms, targets[0].clone(), targets[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, _: Tensor, lowest: Tensor, highest: Tensor
    ) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(
                "a relaxed loss can be differentiated once: its gradients were handed out"
            )
        # A GPU would have to be waited for to know.
        if gradient.is_cuda or (gradient != 1).any():
            for each in gradients:
                each.mul_(gradient[:, None, None])
        gradients[0][0] += lowest
        gradients[0][-1] += highest
        return (*gradients, None, None, None, None)


def _windows(weight: Tensor, examples: int) -> Iterator[slice]:
    """Split a stretch of layers, (layers, seeds, …), into windows of about ``WINDOW`` numbers.

    On a GPU, which has no such cache and pays for every launch, it stays whole.
    """
    layers, seeds, width = weight.shape[:3]
    size = layers if weight.is_cuda else max(1, WINDOW // (seeds * examples * width))
    return (slice(start, min(start + size, layers)) for start in range(0, layers, size))


def _window_predictions(
    targets: Tensor, weight: Tensor, bias: Tensor, name: str, window: slice
) -> tuple[Tensor, Tensor]:
    """Return φ(z_{t−1}) and ẑ_t for the layers of a window, (layers, seeds, examples, width)."""
    h = ACTIVATIONS[name].function(targets[window])
    return h, affine(h, weight[window], bias[window])


def _parallel_operands(
    plan: RelaxationPlan,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    values: Sequence[Tensor],
    piece: _Piece,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the targets below and above a parallel piece, its weights and its biases."""
    run, start = plan.architecture.locate(piece.first)
    group, position = plan.locate(piece.first - 1)
    layers = piece.last - piece.first + 1
    return (
        _narrow(values[group], position, layers + 1),
        _narrow(weights[run], start, layers),
        _narrow(biases[run], start, layers),
    )


def _narrow(stacked: Tensor, start: int, layers: int) -> Tensor:
    """Slice the layer axis, but return the tensor itself where the slice is all of it."""
    return stacked if layers == stacked.shape[0] else stacked[start : start + layers]


def _by_layer(
    plan: RelaxationPlan, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return a function: layer -> its weight (seeds, l_t, l_{t−1}) and bias (seeds, 1, l_t).

    All layers of a run come from one ``unbind``, made when the first of them is asked for.
    """
    unbound: dict[int, tuple[tuple[Tensor, ...], ...]] = {}

    def parameters(layer: int) -> tuple[Tensor, Tensor]:
        run, offset = plan.architecture.locate(layer)
        if run not in unbound:
            unbound[run] = weights[run].unbind(0), biases[run].unbind(0)
        weight, bias = unbound[run]
        return weight[offset], bias[offset]

    return parameters


def _chain_prediction(
    plan: RelaxationPlan,
    parameters: Callable[[int], tuple[Tensor, Tensor]],
    target: Callable[[int], Tensor],
    x: Tensor,
    piece: _Piece,
) -> Tensor:
    """Return ẑ of the chain's last layer from the target below it, or from x: (seeds, …)."""
    activation = plan.architecture.activation.function
    weight, bias = parameters(piece.first)
    is_lowest = piece.first == 1
    h = x.expand(len(weight), *x.shape) if is_lowest else activation(target(piece.first - 1))
    z = affine(h, weight, bias)
    for layer in range(piece.first + 1, piece.last + 1):
        z = affine(activation(z), *parameters(layer))  # (seeds, examples, l_t)
    return z


def relaxed_loss(
    plan: RelaxationPlan,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    values: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    *,
    hidden_weight: float = 1.0,
    loss: OutputLoss = "cross_entropy",
    into: Sequence[Tensor] | None = None,
    by_c: bool = False,
) -> RelaxedLoss:
    """Relaxed loss of Eq. 4, with λ = ``hidden_weight`` on the hidden terms.

        total = L_y + λ Σ_t mean_{i,j} (ẑ_tⁱ_j − z_tⁱ_j)²

    A hidden term is a mean over examples i and units j, summed over relaxed layers t; L_y is a mean
    over examples. Up to the common factor 1/examples this is Eq. 4 with L_h the mean squared error
    over units and λ = 1, the proposal's choice. Seeds never mix.

    A pure function of its arguments, but for the memory ``into``, and differentiable in weights,
    biases (as in ``StackedMLP``) and values (as in ``Targets``): nothing is stored, nothing is
    drawn.

    Args:
        x: inputs, (examples, l₀).
        y: labels, (examples,).
        hidden_weight: λ, at least 0.
        into: memory of the shapes of weights, biases and values, in this order, that their
            gradients may be written to; None for new memory. It must live as long as the graph.
        by_c: whether stretches of layers are done by ``native``, which must serve them.
    """
    architecture = plan.architecture
    ends: dict[int, Tensor] = {}  # targets that a parallel piece hands on, (seeds, examples, l_t)
    unbound: dict[int, tuple[Tensor, ...]] = {}

    def target(layer: int) -> Tensor:
        group, position = plan.locate(layer)
        if layer not in ends and group not in unbound:
            unbound[group] = values[group].unbind(0)
        return ends[layer] if layer in ends else unbound[group][position]

    hidden: dict[int, Tensor] = {}  # each (layers of the piece, seeds)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for piece in plan.pieces:
        if piece.is_parallel:
            if torch.compiler.is_compiling():
                # The compiler fuses plain operations better than this package can write them.
                targets, weight, bias = _parallel_operands(plan, weights, biases, values, piece)
                h = architecture.activation.function(targets[:-1])
                terms = (affine(h, weight, bias) - targets[1:]).square().mean((2, 3))
                total = total + hidden_weight * terms.sum(0)
                hidden[piece.first] = terms.detach()  # (layers, seeds)
                continue
            memory = None
            if into is not None:
                runs = len(weights)
                parts = into[:runs], into[runs : 2 * runs], into[2 * runs :]
                memory = _parallel_operands(plan, *parts, piece)
            weighted, terms, ends[piece.first - 1], ends[piece.last] = _ParallelTerms.apply(
                *_parallel_operands(plan, weights, biases, values, piece),
                architecture.hidden_activation,
                hidden_weight,
                memory,
                by_c,
            )
            total = total + weighted
            hidden[piece.first] = terms
    parameters = _by_layer(plan, weights, biases)
    output: Tensor | None = None
    for piece in plan.pieces:
        if piece.is_parallel:
            continue
        prediction = _chain_prediction(plan, parameters, target, x, piece)
        if piece.last not in plan.layers:  # the output layer, which has no target
            output = prediction
            continue
        term = (prediction - target(piece.last)).square().mean((1, 2))  # (seeds,)
        total = total + hidden_weight * term
        hidden[piece.last] = term.detach()[None]
    output = target(architecture.depth) if output is None else output
    output_term = output_loss(output, y, architecture.output_activation, loss)
    terms = torch.cat([hidden[layer] for layer in sorted(hidden)])
    return RelaxedLoss(total + output_term, output_term.detach(), terms)


def resting(steps: float, layers: Sequence[int] | None = None) -> Callable[..., RelaxedLoss]:
    """Return the relaxed loss for one fit in which some parameters rest.

    They get a gradient of 0, by which every rule of ``training.UPDATE_RULES`` leaves them where
    they are.

    Args:
        steps: targets rest in so many steps from the start.
        layers: numbers of the layers whose weights and biases are trained; None for all.
    """
    made = count()

    def objective(
        plan: Any, weights: Any, biases: Any, values: Any, x: Tensor, y: Tensor, **options: Any
    ) -> RelaxedLoss:
        if next(made) < steps:
            values = [_masked(value, torch.zeros(len(value))) for value in values]
        if layers is not None:
            runs = plan.architecture.runs
            masks = [
                torch.tensor([run.first + i in layers for i in range(run.layers)]) for run in runs
            ]
            weights = [_masked(*pair) for pair in zip(weights, masks, strict=True)]
            biases = [_masked(*pair) for pair in zip(biases, masks, strict=True)]
        return relaxed_loss(plan, weights, biases, values, x, y, **options)

    return objective


def with_gradients(
    change: Callable[[Tensor, int, str], Tensor], loss: Callable[..., RelaxedLoss] = relaxed_loss
) -> Callable[..., RelaxedLoss]:
    """Return a relaxed loss for one fit whose gradients are changed before an optimiser sees them.

    Args:
        change: (gradient, place, kind) -> gradient. The place counts the tensors of weights, then
            of biases, then of values; the kind is ``"weight"``, ``"bias"`` or ``"target"``.
        loss: whose gradients.
    """
    is_new = True

    def objective(*arguments: Any, **options: Any) -> RelaxedLoss:
        nonlocal is_new
        kinds = zip(("weight", "bias", "target"), arguments[1:4], strict=True)
        leaves = [(kind, leaf) for kind, tensors in kinds for leaf in tensors]
        for place, (kind, leaf) in enumerate(leaves if is_new else []):
            leaf.register_hook(lambda gradient, own=(place, kind): change(gradient, *own))
        is_new = False
        return loss(*arguments, **options)

    return objective


def _masked(stacked: Tensor, mask: Tensor) -> Tensor:
    """Return the same numbers, (layers, …), whose gradient is multiplied by a mask, (layers,)."""
    view = stacked.view_as(stacked)
    own = mask.to(stacked).view(-1, *[1] * (stacked.ndim - 1))
    view.register_hook(lambda gradient: gradient * own)
    return view


@torch.no_grad()
def predictions(
    plan: RelaxationPlan,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    values: Sequence[Tensor],
    x: Tensor,
    by_c: bool = False,
) -> tuple[Tensor, ...]:
    """Predictions ẑ_t of every relaxed layer, of the shapes of ``values``.

    They come from the very products of ``relaxed_loss``, whose arguments these are.
    """
    result = tuple(torch.empty_like(value) for value in values)
    parameters, name = _by_layer(plan, weights, biases), plan.architecture.hidden_activation

    def target(layer: int) -> Tensor:
        group, position = plan.locate(layer)
        return values[group][position]

    for piece in plan.pieces:
        if piece.is_parallel:
            targets, weight, bias = _parallel_operands(plan, weights, biases, values, piece)
            group, position = plan.locate(piece.first)
            predicted = result[group][position : position + len(weight)]
            if by_c:
                predicted.copy_(native.predictions(targets, weight, bias, name))
                continue
            for window in _windows(weight, len(x)):
                _, predicted[window] = _window_predictions(targets, weight, bias, name, window)
        elif piece.last in plan.layers:
            group, position = plan.locate(piece.last)
            result[group][position] = _chain_prediction(plan, parameters, target, x, piece)
    return result


@torch.no_grad()
def settle_targets(
    plan: RelaxationPlan,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    values: Sequence[Tensor],
    x: Tensor,
    by_c: bool = False,
) -> None:
    """Overwrite targets in place by their own predictions until every residual is exactly 0.

    Matters because Rprop uses only the sign of a gradient: a residual of 1e-8, the rounding between
    two kernels that compute the same sum, moves a weight as far as a residual of 1. The iteration
    ends, because once z_{t−1} is fixed ẑ_t is a fixed function of it: layer t is exact after t
    passes at the latest. A network whose forward pass overflows keeps its NaN. Arguments are those
    of ``relaxed_loss``.

    Raises:
        RuntimeError: the products are not deterministic, so that no fixed point exists.
    """
    for _ in range(plan.architecture.depth + 1):
        predicted = predictions(plan, weights, biases, values, x, by_c)
        pairs = list(zip(values, predicted, strict=True))
        if all(torch.equal(v.nan_to_num(), p.nan_to_num()) for v, p in pairs):
            return
        for value, prediction in pairs:
            value.copy_(prediction)
    raise RuntimeError(
        f"targets must settle within {plan.architecture.depth + 1} passes, and did not: "
        "the matrix products of this device are not deterministic"
    )


def forward_targets(model: StackedMLP, x: Tensor, plan: RelaxationPlan) -> Targets:
    """Targets equal to the plain forward pass of ``x``, with residuals that are exactly 0.

    A plan of another architecture, or inputs that do not fit it, are refused with a ValueError.
    """
    if plan.architecture != model.architecture:
        raise ValueError(
            f"the plan must be of the model's architecture {model.architecture}, "
            f"got one of {plan.architecture}"
        )
    z = pre_activations(model, x)
    values = tuple(torch.stack([z[layer - 1] for layer in group]) for group in plan.target_runs)
    settle_targets(plan, [*model.weights], [*model.biases], values, x)
    return Targets(plan, values, x)


def guided_targets(
    model: StackedMLP,
    dataset: Dataset,
    seeds: Sequence[int],
    *,
    path: float = 1.0,
    scale: float = 6.0,
    offset: float = 9.0,
    code: float = 5.0,
    output: float = 4.0,
    labels: Tensor | None = None,
) -> Targets:
    """Targets that lead from random features of an example to a code of its label.

        z_t = (1 − s_t) φ(x) + s_t u(y),    s_t = min(1, (t − 1)/path),
        φ(x) = scale · (x − x̄) A/r + offset · c,    r² = mean over examples of |x − x̄|²,

    for hidden layers t = 1 … T − 1, with standard normal A and c. The code has entries ±``code``
    by the flip of a coin: u(y) is a row of its own for each class, or y times one row where there
    is one output, y being ±1 for two classes and in standard units for a regression. The output
    target is ±``output`` for classes, and the label itself for a regression. One draw serves all
    layers; a narrow one takes its first units.

    A layer of a deep network at its default start maps all examples to one point. From these
    targets it need not carry what it reads any further than to the target above it.

    Args:
        model: the networks, plain chains.
        dataset: what they are trained on.
        seeds: of A, c and u, one for each network.
        path: layers from the features to the code, at least 0; 0 starts at the code, and with
            infinity all targets are features.
        scale: standard deviation of the features over examples, at least 0. What suits points in
            a plane is too much for inputs of many features, where neighbours are further apart.
        offset: standard deviation of the features' own constants over units, at least 0.
        code: of the code, at least 0.
        output: of the output target, at least 0; not used for a regression.
        labels: (examples,), what u is of in place of y: real numbers multiply one row, whole
            numbers from 0 pick one.

    """
    seeds = whole_numbers(seeds, "seeds", most=LAST_SEED)
    if len(seeds) != model.seeds:
        raise ValueError(f"seeds must be one for each of {model.seeds} networks, got {len(seeds)}")
    plan = relaxation_plan(model.architecture)
    check_inputs(model.architecture, dataset.x)
    x, y = dataset.x, dataset.y
    of, top = read_labels(y if dataset.task == "regression" else y.long(), dataset.outputs, output)
    labels = of if labels is None else labels
    widths = model.architecture.widths
    widest = max(widths[1:-1], default=0)
    sizes = {"path": path, "scale": scale, "offset": offset, "code": code}
    starts = [guide(x, labels, widest, seed, **sizes) for seed in seeds]

    def at(layer: int) -> Tensor:
        if layer == plan.architecture.depth:
            return top.to(x).view(len(x), -1).expand(len(seeds), -1, -1)
        return torch.stack([start(layer - 1, widths[layer]) for start in starts]).to(x)

    values = tuple(torch.stack([at(layer) for layer in group]) for group in plan.target_runs)
    return Targets(plan, values, x)


def read_labels(labels: Tensor, units: int, output: float) -> tuple[Tensor, Tensor]:
    """Return what the code of ``guided_targets`` is of, and the targets of so many output units.

    Args:
        labels: (examples,), whole numbers for classes; or real ones for a regression.
        units: 1 for two classes; −1 where there is no output target.
        output: as in ``guided_targets``, which has the errors.
    """
    output = number(output, "output", least=0)
    if labels.is_floating_point():
        of = labels.reshape(len(labels), -1).mean(1)
        return (of - of.mean()) / of.std(correction=0), labels
    if units == 1:
        return 2.0 * labels - 1, output * (2.0 * labels - 1)
    return labels, output * (2.0 * nn.functional.one_hot(labels, units) - 1)


def guide(
    x: Tensor,
    labels: Tensor,
    widest: int,
    seed: int,
    *,
    path: float,
    scale: float,
    offset: float,
    code: float,
) -> Callable[[int, int], Tensor]:
    """Draw the features φ(x) and the code u(y) of ``guided_targets``, ``widest`` units of each.

    Returns what gives the targets of a hidden layer, counted from 0, and its width: (examples,
    width). ``x`` are inputs, (examples, features); ``labels``, the sizes and errors as there.
    """
    path = math.inf if path == math.inf else number(path, "path", least=0)
    sizes = {"scale": scale, "offset": offset, "code": code}
    scale, offset, code = (number(size, name, least=0) for name, size in sizes.items())
    rows = 1 if labels.is_floating_point() else int(labels.max()) + 1
    centred = x - x.mean(0)
    centred /= centred.square().sum(1).mean().sqrt()
    generator = seeded(seed)
    a, c, u = (torch.randn(n, widest, generator=generator) for n in (len(x[0]), 1, rows))
    features = scale * (centred @ a.to(x)) + offset * c.to(x)
    u = code * u.sign().to(x)
    codes = labels[:, None] * u if labels.is_floating_point() else u[labels]

    def start(layer: int, width: int) -> Tensor:
        share = 1.0 if path == 0 else min(1.0, layer / path)
        return (1 - share) * features[:, :width] + share * codes[:, :width]

    return start


def check_examples(made_for: Tensor, x: Tensor) -> None:
    """Refuse, with a ValueError, examples other than those the targets were made for."""
    if made_for.shape != x.shape:
        raise ValueError(
            f"targets were made for examples of shape {tuple(made_for.shape)}, got {tuple(x.shape)}"
        )
    if not torch.equal(made_for, x):
        changed = (made_for != x).reshape(x.shape[0] if x.dim() else 1, -1).any(1)  # (examples,)
        raise ValueError(
            "targets belong to the examples they were made for, "
            f"got {int(changed.sum())} of {len(changed)} examples that differ"
        )
