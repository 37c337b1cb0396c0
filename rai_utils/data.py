"""Data sets as tensors: a training part, a held-out part, and what the labels mean.

Everything is generated or bundled with scikit-learn; nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import Tensor

Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class Dataset:
    """Examples for training and held-out examples of the same distribution.

    Attributes:
        name: what the data set is called in figures and tables.
        task: ``"binary"`` (labels 0 or 1, floating point), ``"multiclass"`` (labels
            0 … classes − 1, integer) or ``"regression"`` (real numbers).
        x: training inputs, shape (examples, features).
        y: training labels, shape (examples,).
        held_out_x: held-out inputs, shape (held-out examples, features).
        held_out_y: held-out labels, shape (held-out examples,).

    Raises:
        TypeError: inputs are not floating point, or labels have the wrong kind of number.
        ValueError: shapes do not fit, a value is NaN or infinite, or a label is out of range.
    """

    name: str
    task: Task
    x: Tensor
    y: Tensor
    held_out_x: Tensor
    held_out_y: Tensor

    def __post_init__(self) -> None:
        if self.task not in ("binary", "multiclass", "regression"):
            raise ValueError(
                f"task must be 'binary', 'multiclass' or 'regression', got {self.task!r}"
            )
        _check_examples("training", self.task, self.x, self.y)
        _check_examples("held-out", self.task, self.held_out_x, self.held_out_y)
        if self.x.shape[1] != self.held_out_x.shape[1]:
            raise ValueError(
                "training and held-out inputs must have the same number of features, "
                f"got {self.x.shape[1]} and {self.held_out_x.shape[1]}"
            )

    @property
    def outputs(self) -> int:
        """Number of output units a network needs: one per class, or one."""
        return int(self.y.max()) + 1 if self.task == "multiclass" else 1

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Dataset:
        """Return the same data on another device or in another floating-point precision."""

        def move(values: Tensor) -> Tensor:
            return values.to(device, dtype if values.is_floating_point() else None)

        return Dataset(
            self.name,
            self.task,
            move(self.x),
            move(self.y),
            move(self.held_out_x),
            move(self.held_out_y),
        )


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
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"{part} labels must have shape ({x.shape[0]},), one for each example, "
            f"got {tuple(y.shape)}"
        )
    if not torch.isfinite(x).all():
        raise ValueError(f"{part} inputs must be finite, got {_not_finite(x)}")
    if task == "multiclass":
        if y.is_floating_point():
            raise TypeError(f"{part} labels of classes must be integers, got {y.dtype}")
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
        examples: training examples, at least 2.
        noise: standard deviation of the Gaussian noise on each coordinate, at least 0.
        seed: random state of the training set.
        held_out: held-out examples, at least 2.
        held_out_seed: random state of the held-out set, different from ``seed``.

    Raises:
        ValueError: a count or the noise is out of range, or the two seeds are equal.
    """
    for name, count in (("examples", examples), ("held_out", held_out)):
        if count < 2:
            raise ValueError(f"{name} must be at least 2, got {count}")
    if noise < 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    if seed == held_out_seed:
        raise ValueError(f"held_out_seed must differ from seed, got {seed} for both")
    x, y = make_moons(n_samples=examples, noise=noise, random_state=seed)
    held_out_x, held_out_y = make_moons(n_samples=held_out, noise=noise, random_state=held_out_seed)
    return Dataset(
        "Moons",
        "binary",
        torch.from_numpy(x.astype(np.float32)),
        torch.from_numpy(y.astype(np.float32)),
        torch.from_numpy(held_out_x.astype(np.float32)),
        torch.from_numpy(held_out_y.astype(np.float32)),
    )


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
    on the effectiveness; the held-out ones are the curve itself, unless told otherwise.

    Args:
        examples: training examples, at least 2.
        noise: standard deviation of the noise, at least 0.
        seed: of the noise.
        held_out: held-out examples, at least 2.
        held_out_noise: standard deviation of their noise, at least 0.
        standard_units: whether the effectiveness is given as 4 · effectiveness − 2, a scale that
            leaves [0, 1], as any standardised target does.

    Raises:
        ValueError: a count or the noise is out of range.
    """
    _check_counts(examples=examples, held_out=held_out)
    for name, deviation in (("noise", noise), ("held_out_noise", held_out_noise)):
        if deviation < 0:
            raise ValueError(f"{name} must be at least 0, got {deviation}")

    def curve(dose: Tensor) -> Tensor:
        return torch.exp(-((dose - 0.5) ** 2) / (2 * 0.15**2))

    generator = torch.Generator().manual_seed(seed)
    x, held_out_x = torch.linspace(0, 1, examples), torch.linspace(0, 1, held_out)
    y = curve(x) + noise * torch.randn(examples, generator=generator)
    held_out_y = curve(held_out_x) + held_out_noise * torch.randn(held_out, generator=generator)
    if standard_units:
        y, held_out_y = 4 * y - 2, 4 * held_out_y - 2
    return Dataset("Dose curve", "regression", x[:, None], y, held_out_x[:, None], held_out_y)


def wave(examples: int = 101, held_out: int = 1000) -> Dataset:
    """A smooth curve to approximate, y = x sin(4πx) on [0, 1], without noise.

    Training examples lie evenly from 0 to 1, held-out ones evenly in the middle of as many cells.

    Args:
        examples: training examples, at least 2.
        held_out: held-out examples, at least 2.

    Raises:
        ValueError: a count is out of range.
    """
    _check_counts(examples=examples, held_out=held_out)
    x = torch.linspace(0, 1, examples, dtype=torch.float64)
    held_out_x = (torch.arange(held_out, dtype=torch.float64) + 0.5) / held_out
    y, held_out_y = (values * torch.sin(4 * torch.pi * values) for values in (x, held_out_x))
    return Dataset(
        "Wave",
        "regression",
        x[:, None].float(),
        y.float(),
        held_out_x[:, None].float(),
        held_out_y.float(),
    )


def spirals(
    examples: int = 300,
    noise: float = 0.15,
    seed: int = 42,
    held_out: int = 1500,
    held_out_seed: int = 1042,
    classes: int = 3,
) -> Dataset:
    """Interleaved spiral arms, one a class, that no straight line tells apart.

    On arm c of C a point at r = 0.2 … 2 has the angle 2π c/C + 2 r, in radians, plus Gaussian
    noise on both coordinates. r is drawn uniformly.

    Args:
        examples: training examples, shared out evenly over the classes, at least ``classes``.
        noise: standard deviation of the noise on each coordinate, at least 0.
        seed: of the training set.
        held_out: held-out examples, at least ``classes``.
        held_out_seed: of the held-out set, different from ``seed``.
        classes: arms, at least 2.

    Raises:
        ValueError: a count or the noise is out of range, or the two seeds are equal.
    """
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    _check_counts(least=classes, examples=examples, held_out=held_out)
    if noise < 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    if seed == held_out_seed:
        raise ValueError(f"held_out_seed must differ from seed, got {seed} for both")

    def draw(count: int, random_state: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(random_state)
        labels = torch.arange(count) % classes
        radius = 0.2 + 1.8 * torch.rand(count, generator=generator)
        angle = 2 * torch.pi * labels / classes + 2 * radius
        arm = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
        return arm + noise * torch.randn(count, 2, generator=generator), labels

    return Dataset("Spirals", "multiclass", *draw(examples, seed), *draw(held_out, held_out_seed))


def _check_counts(least: int = 2, **counts: int) -> None:
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")
