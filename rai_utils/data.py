"""Data sets as tensors: a training part, a held-out part, and what the labels mean.

Everything is generated or bundled with scikit-learn; nothing is downloaded. Counts of examples are
at least 2 where nothing else is said, noises (standard deviations) at least 0, and the two seeds of
a data set differ; all else is refused with a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rai_utils.checks import LAST_SEED, number, one_of, seeded, whole_number

Task = Literal["binary", "multiclass", "regression"]
Examples = tuple[ArrayLike, ArrayLike]
"""Inputs (examples, features) and labels (examples,) of one part; also (examples, outputs)."""


@dataclass(frozen=True)
class Dataset:
    """Examples for training and held-out examples of the same distribution.

    Attributes:
        name: what the data set is called in figures and tables.
        task: ``"binary"`` (labels 0 or 1, floating point), ``"multiclass"`` (labels
            0 … classes − 1, of any integer type, kept as int64) or ``"regression"`` (real
            numbers, one or several for each example).
        x: training inputs, shape (examples, features).
        y: training labels, shape (examples,), or (examples, outputs) for a regression.
        held_out_x: held-out inputs, shape (held-out examples, features).
        held_out_y: held-out labels, as the training ones.

    Raises:
        TypeError: inputs are not floating point, or labels have the wrong kind of number.
        ValueError: shapes do not fit, a value is NaN or infinite, a label is out of range, or
            the training part has one class alone, or not the greatest one of the held-out part.
    """

    name: str
    task: Task
    x: Tensor
    y: Tensor
    held_out_x: Tensor
    held_out_y: Tensor

    def __post_init__(self) -> None:
        one_of(self.task, get_args(Task), "task")
        _check_examples("training", self.task, self.x, self.y)
        _check_examples("held-out", self.task, self.held_out_x, self.held_out_y)
        if self.task == "multiclass":
            for name in ("y", "held_out_y"):
                object.__setattr__(self, name, getattr(self, name).long())
            greatest, held_out = int(self.y.max()), int(self.held_out_y.max())
            if greatest < 1:
                raise ValueError("training labels must name 2 classes or more, got class 0 alone")
            if held_out > greatest:
                raise ValueError(
                    f"held-out labels must be classes of the training part, 0 … {greatest}, "
                    f"got {held_out}"
                )
        if self.x.shape[1] != self.held_out_x.shape[1]:
            raise ValueError(
                "training and held-out inputs must have the same number of features, "
                f"got {self.x.shape[1]} and {self.held_out_x.shape[1]}"
            )
        if self.y.shape[1:] != self.held_out_y.shape[1:]:
            raise ValueError(
                "training and held-out labels must have the same number of outputs, "
                f"got shapes {tuple(self.y.shape)} and {tuple(self.held_out_y.shape)}"
            )

    @property
    def outputs(self) -> int:
        """Number of output units a network needs: one per class or per number, or one."""
        if self.task == "multiclass":
            return int(self.y.max()) + 1
        return self.y.shape[1] if self.y.ndim == 2 else 1

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Dataset:
        """Return the same data on another device or in another floating-point precision."""
        parts = (self.x, self.y, self.held_out_x, self.held_out_y)
        moved = [part.to(device, dtype if part.is_floating_point() else None) for part in parts]
        return Dataset(self.name, self.task, *moved)


def _check_examples(part: str, task: Task, x: Tensor, y: Tensor) -> None:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise TypeError(
            f"{part} inputs and labels must be tensors, got {type(x).__name__} "
            f"and {type(y).__name__}"
        )
    if not x.is_floating_point():
        raise TypeError(f"{part} inputs must be floating point, got {x.dtype}")
    if x.ndim != 2 or x.numel() == 0:
        raise ValueError(
            f"{part} inputs must have shape (examples, features), got {tuple(x.shape)}"
        )
    several = task == "regression" and y.ndim == 2 and y.shape[1] > 1
    if y.shape != (x.shape[:1] + y.shape[1:] if several else x.shape[:1]):
        raise ValueError(
            f"{part} labels must have shape ({x.shape[0]},), one for each example, "
            f"got {tuple(y.shape)}"
        )
    if not torch.isfinite(x).all():
        raise ValueError(f"{part} inputs must be finite, got {_not_finite(x)}")
    if task == "multiclass":
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise TypeError(f"{part} labels of classes must be integers, got {y.dtype}")
        y = y.long()
        if int(y.min()) < 0:
            raise ValueError(f"{part} labels must be 0 or greater, got {int(y.min())}")
        return
    if not y.is_floating_point():
        raise TypeError(f"{part} labels must be floating point for task {task!r}, got {y.dtype}")
    if not torch.isfinite(y).all():
        raise ValueError(f"{part} labels must be finite, got {_not_finite(y)}")
    if task == "binary" and not ((y == 0) | (y == 1)).all():
        wrong = y[(y != 0) & (y != 1)][0].item()
        raise ValueError(f"{part} labels must be 0 or 1, got {wrong}")


def _not_finite(values: Tensor) -> str:
    count = int((~torch.isfinite(values)).sum())
    return f"{count} value{'s' if count > 1 else ''} that are NaN or infinite"


def moons(
    examples: int = 100,
    noise: float = 0.1,
    seed: int = 42,
    held_out: int = 2000,
    held_out_seed: int = 1042,
) -> Dataset:
    """Two interleaved half circles (scikit-learn's ``make_moons``) in float32.

    The defaults are the proposal's training set. The held-out set is drawn from the same
    distribution with another random state; the proposal had none.

    Args:
        examples: training examples.
        noise: standard deviation of the Gaussian noise on each coordinate.
        seed: random state of the training set.
        held_out: held-out examples.
        held_out_seed: random state of the held-out set.
    """
    from sklearn.datasets import make_moons

    def draw(count: int, state: int) -> Examples:
        return make_moons(n_samples=count, noise=noise, random_state=state)

    return _two_draws("Moons", "binary", draw, examples, noise, seed, held_out, held_out_seed)


def moons_draw(number: int) -> Dataset:
    """Return the draw of Moons that goes with network ``number``, by random states of its own.

    Draw 0 is the proposal's. Numbers from 1100 up are for tuning: their random states are none of
    the first hundred draws'.
    """
    return moons(seed=42 + number, held_out_seed=1042 + number)


def dose_response(
    examples: int = 30,
    noise: float = 0.05,
    seed: int = 42,
    held_out: int = 201,
    *,
    held_out_noise: float = 0.0,
    standard_units: bool = False,
) -> Dataset:
    """Effectiveness of a dose: one input, one output, too little and too much do not help.

    effectiveness(dose) = exp(−(dose − ½)² / (2 · 0.15²)), dose in [0, 1], so that the curve runs
    from 0.004 up to 1 and back. Doses lie evenly on [0, 1]. Training examples have Gaussian noise
    on the effectiveness; the held-out ones are the curve itself, unless ``held_out_noise`` is
    given. ``standard_units`` give 4 · effectiveness − 2, a scale that leaves [0, 1], as any
    standardised target does.
    """
    _check_counts(examples=examples, held_out=held_out)
    noise = number(noise, "noise", least=0)
    held_out_noise = number(held_out_noise, "held_out_noise", least=0)

    def curve(dose: Tensor) -> Tensor:
        return torch.exp(-((dose - 0.5) ** 2) / (2 * 0.15**2))

    generator = seeded(seed)
    x, held_out_x = torch.linspace(0, 1, examples), torch.linspace(0, 1, held_out)
    y = curve(x) + noise * torch.randn(examples, generator=generator)
    held_out_y = curve(held_out_x) + held_out_noise * torch.randn(held_out, generator=generator)
    if standard_units:
        y, held_out_y = 4 * y - 2, 4 * held_out_y - 2
    return Dataset("Dose curve", "regression", x[:, None], y, held_out_x[:, None], held_out_y)


def wave(examples: int = 101, held_out: int = 1000) -> Dataset:
    """A smooth curve to approximate, y = x sin(4πx) on [0, 1], without noise.

    Training examples lie evenly from 0 to 1, held-out ones evenly in the middle of as many cells.
    """
    _check_counts(examples=examples, held_out=held_out)
    x = torch.linspace(0, 1, examples, dtype=torch.float64)
    held_out_x = (torch.arange(held_out, dtype=torch.float64) + 0.5) / held_out
    y, held_out_y = (values * torch.sin(4 * torch.pi * values) for values in (x, held_out_x))
    training, held_out_part = (x[:, None], y), (held_out_x[:, None], held_out_y)
    return from_arrays("Wave", "regression", training, held_out_part)


def spirals(
    examples: int = 300,
    noise: float = 0.15,
    seed: int = 42,
    held_out: int = 1500,
    held_out_seed: int = 1042,
    classes: int = 3,
) -> Dataset:
    """Interleaved spiral arms, one a class, that no straight line tells apart.

    On arm c of C a point at r = 0.2 … 2 has the angle 2π c/C + 2 r, in radians, plus Gaussian noise
    on both coordinates. r is drawn uniformly. Arguments as :func:`moons`; the examples of each part
    are shared out evenly over the classes, 2 or more, so there are at least ``classes`` of them.
    """
    _check_counts(classes=classes)

    def draw(count: int, state: int) -> Examples:
        generator = seeded(state)
        labels = torch.arange(count) % classes
        radius = 0.2 + 1.8 * torch.rand(count, generator=generator)
        angle = 2 * torch.pi * labels / classes + 2 * radius
        arm = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
        points = arm + noise * torch.randn(count, 2, generator=generator)
        return points, labels

    counts = examples, noise, seed, held_out, held_out_seed
    return _two_draws("Spirals", "multiclass", draw, *counts, least=classes)


def circles(
    examples: int = 200,
    noise: float = 0.1,
    seed: int = 42,
    held_out: int = 2000,
    held_out_seed: int = 1042,
) -> Dataset:
    """Two circles around one centre, radii 1 and ½ (scikit-learn's ``make_circles``), float32.

    No straight line separates an inner from an outer circle. Arguments as :func:`moons`.
    """
    from sklearn.datasets import make_circles

    def draw(count: int, state: int) -> Examples:
        return make_circles(n_samples=count, noise=noise, factor=0.5, random_state=state)

    return _two_draws("Circles", "binary", draw, examples, noise, seed, held_out, held_out_seed)


def exclusive_or(
    examples: int = 200,
    noise: float = 0.35,
    seed: int = 42,
    held_out: int = 2000,
    held_out_seed: int = 1042,
) -> Dataset:
    """Four Gaussian clusters at (±1, ±1), class 1 where the two signs differ, in float32.

    The best straight line gets three of the four clusters right. Arguments as :func:`moons`, the
    noise being the standard deviation of each cluster.
    """

    def draw(count: int, state: int) -> Examples:
        generator = np.random.default_rng(state)
        corner = np.arange(count) % 4  # as many examples in each cluster
        centres = np.array([[-1, -1], [1, 1], [-1, 1], [1, -1]])[corner]
        return centres + noise * generator.normal(size=(count, 2)), corner // 2

    return _two_draws("XOR", "binary", draw, examples, noise, seed, held_out, held_out_seed)


def three_clusters(
    examples: int = 300,
    noise: float = 1.0,
    seed: int = 42,
    held_out: int = 2000,
    held_out_seed: int = 1042,
) -> Dataset:
    """Three Gaussian clusters that overlap, corners of a triangle with sides 2, in float32.

    The overlap keeps the coefficients of greatest likelihood finite. Arguments as :func:`moons`,
    the noise being the standard deviation of each cluster; at least 3 examples in each part.
    """

    def draw(count: int, state: int) -> Examples:
        generator = np.random.default_rng(state)
        label = np.arange(count) % 3
        centres = np.array([[-1, 0], [1, 0], [0, 3**0.5]])[label]
        return centres + noise * generator.normal(size=(count, 2)), label

    counts = examples, noise, seed, held_out, held_out_seed
    return _two_draws("three clusters", "multiclass", draw, *counts, least=3)


def digits(examples: int = 300, held_out: int = 500, seed: int = 42) -> Dataset:
    """Handwritten digits, 8 × 8 pixels, ten classes (bundled with scikit-learn), in float32.

    Each pixel is scaled to mean 0 and standard deviation 1 by the training part; a pixel that is
    the same in every training example becomes 0. The split is stratified, and drawn by ``seed``;
    each part has at least 10 examples, both together at most 1797.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    _check_counts(10, examples=examples, held_out=held_out)
    if examples + held_out > len(labels):
        raise ValueError(
            f"digits has {len(labels)} examples for both parts together, "
            f"got {examples} and {held_out}"
        )
    whole_number(seed, "seed", most=LAST_SEED)
    x, held_out_x, y, held_out_y = train_test_split(
        images,
        labels,
        train_size=examples,
        test_size=held_out,
        stratify=labels,
        random_state=seed,
    )
    return from_arrays("Digits", "multiclass", (x, y), (held_out_x, held_out_y), scaled=True)


def _check_counts(least: int = 2, **counts: int) -> None:
    for name, count in counts.items():
        whole_number(count, name, least)


def _two_draws(
    name: str,
    task: Task,
    draw: Callable[[int, int], Examples],
    examples: int,
    noise: float,
    seed: int,
    held_out: int,
    held_out_seed: int,
    least: int = 2,
) -> Dataset:
    """Check the arguments, then draw both parts: ``draw(count, state)`` gives inputs and labels."""
    _check_counts(least, examples=examples, held_out=held_out)
    number(noise, "noise", least=0)
    for state, of in ((seed, "seed"), (held_out_seed, "held_out_seed")):
        whole_number(state, of, most=LAST_SEED)
    if seed == held_out_seed:
        raise ValueError(f"held_out_seed must differ from seed, got {seed} for both")
    return from_arrays(name, task, draw(examples, seed), draw(held_out, held_out_seed))


def from_arrays(
    name: str, task: Task, training: Examples, held_out: Examples, *, scaled: bool = False
) -> Dataset:
    """Return a data set of arrays, lists or data frames, in float32; classes are int64.

    Args:
        name, task: as of :class:`Dataset`.
        training, held_out: inputs, (examples, features), and labels, (examples,) or, for a
            regression, (examples, outputs).
        scaled: whether inputs, and the labels of a regression, are brought to mean 0 and standard
            deviation 1 by the training part alone; what is the same in every training example
            becomes 0.
    """
    parts = [np.asarray(values) for values in (*training, *held_out)]
    parts[::2] = _scaled(*parts[::2]) if scaled else parts[::2]
    parts[1::2] = _scaled(*parts[1::2]) if scaled and task == "regression" else parts[1::2]
    types = [np.float32, np.int64 if task == "multiclass" else np.float32] * 2
    tensors = [
        torch.from_numpy(values.astype(kind)) for values, kind in zip(parts, types, strict=True)
    ]
    return Dataset(name, task, *tensors)


def _scaled(training: np.ndarray, held_out: np.ndarray) -> list[np.ndarray]:
    centre, scale = training.mean(0), training.std(0)
    scale = np.where(scale == 0, np.inf, scale)
    return [(values - centre) / scale for values in (training, held_out)]
