"""Ten problems of scikit-learn, each split in three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_friedman1,
    make_friedman2,
    make_friedman3,
    make_moons,
)
from sklearn.model_selection import train_test_split

from rai_utils.checks import LAST_SEED, one_of, whole_number
from rai_utils.data import Dataset, Task, from_arrays, spirals

Arrays = tuple[np.ndarray, np.ndarray]


def _two_spirals(examples: int, noise: float, seed: int) -> Arrays:
    drawn = spirals(examples, noise, seed, held_out=2, held_out_seed=seed + 1, classes=2)
    return drawn.x.numpy().astype(float), drawn.y.numpy()


@dataclass(frozen=True)
class Benchmark:
    """A problem of scikit-learn, or drawn by it.

    Attributes:
        title: what it is called in figures and tables.
        task: what the labels mean.
        draw: split -> inputs (examples, features) and labels (examples,); the same ones for every
            split where the data are bundled.
    """

    title: str
    task: Task
    draw: Callable[[int], Arrays]


BENCHMARKS: dict[str, Benchmark] = {
    "iris": Benchmark("Iris", "multiclass", lambda split: load_iris(return_X_y=True)),
    "wine": Benchmark("Wine", "multiclass", lambda split: load_wine(return_X_y=True)),
    "breast_cancer": Benchmark(
        "Breast cancer", "binary", lambda split: load_breast_cancer(return_X_y=True)
    ),
    "digits": Benchmark("Digits", "multiclass", lambda split: load_digits(return_X_y=True)),
    "noisy_moons": Benchmark(
        "Noisy moons", "binary", lambda split: make_moons(400, noise=0.3, random_state=split)
    ),
    "two_spirals": Benchmark(
        "Two spirals", "binary", lambda split: _two_spirals(400, 0.15, 2 * split)
    ),
    "diabetes": Benchmark("Diabetes", "regression", lambda split: load_diabetes(return_X_y=True)),
    "friedman1": Benchmark(
        "Friedman 1", "regression", lambda split: make_friedman1(400, noise=1.0, random_state=split)
    ),
    "friedman2": Benchmark(
        "Friedman 2",
        "regression",
        lambda split: make_friedman2(400, noise=125.0, random_state=split),
    ),
    "friedman3": Benchmark(
        "Friedman 3", "regression", lambda split: make_friedman3(400, noise=0.1, random_state=split)
    ),
}


@dataclass(frozen=True)
class Split:
    """One problem in three parts that share no example.

    Attributes:
        validation: the training part, with the validation part held out: for choosing.
        test: the same training part, with the test part held out: for judging.
    """

    validation: Dataset
    test: Dataset


def benchmark(name: str, split: int, examples: int | None = None) -> Split:
    """One of ``BENCHMARKS``, split at random into 3/5 training, 1/5 validation, 1/5 test.

    Generated problems are drawn anew for each split; bundled ones are only split anew. Classes are
    shared out evenly over the parts. Inputs, and the labels of regression, are scaled to mean 0 and
    standard deviation 1 by the training part alone; an input that is the same in every training
    example becomes 0. float32.

    The noise of the Friedman problems (Friedman 1991) is a third of the standard deviation that the
    function itself has in the second and third, and 1 in the first, as in its paper.

    Args:
        name: a key of ``BENCHMARKS``.
        split: random state of the draw and of the split, at least 0.
        examples: how many to keep, 30 or more, for all three parts together; None for all.
    """
    one_of(name, BENCHMARKS, "benchmark")
    split = whole_number(split, "split", most=LAST_SEED // 4)
    chosen = BENCHMARKS[name]
    x, y = chosen.draw(split)
    count = len(y) if examples is None else examples
    count = whole_number(count, f"examples of {name}", 30, len(y))
    fifth = count // 5
    parts: list[Arrays] = []
    rest = (x, y)
    for position, size in enumerate((fifth, fifth, count - 2 * fifth)):
        if size == len(rest[1]):
            parts.append(rest)
            continue
        kept_x, part_x, kept_y, part_y = train_test_split(
            *rest,
            test_size=size,
            stratify=None if chosen.task == "regression" else rest[1],
            random_state=3 * split + position,
        )
        parts.append((part_x, part_y))
        rest = kept_x, kept_y
    test, validation, training = parts
    return Split(
        from_arrays(chosen.title, chosen.task, training, validation, scaled=True),
        from_arrays(chosen.title, chosen.task, training, test, scaled=True),
    )
