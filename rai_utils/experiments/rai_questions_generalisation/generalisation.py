"""How well backpropagation and RAI do, from two starts, on data that they were not trained on.

Both have the same networks, the same updates and the same number of settings to try; the
validation part of each split chooses, and the test part, which chose nothing, judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from rai_utils.checks import one_of
from rai_utils.data import Task
from rai_utils.experiments.rai_questions_generalisation.benchmarks import (
    BENCHMARKS,
    Split,
    benchmark,
)
from rai_utils.experiments.sweep import Sweep
from rai_utils.models import Architecture, StackedMLP, build_mlp, confirmation_seeds, stack
from rai_utils.training import Fit, Phase, Watch, evaluate, fit_backprop, fit_relaxed

OUTPUT_ACTIVATIONS: dict[Task, str] = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "regression": "identity",
}
NOTHING = Watch(evaluate_at=())


def score(model: StackedMLP, x: Tensor, y: Tensor, task: Task) -> NDArray[np.float64]:
    """Accuracy of the plain forward pass, (seeds,); NaN where it is not finite.

    For regression R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²: 1 is perfect, 0 as good as the mean of these
    labels.
    """
    loss, accuracy = evaluate(model, x, y, task)
    return 1 - loss / y.double().var(correction=0).item() if task == "regression" else accuracy


@dataclass(frozen=True)
class Trial:
    """What every setting of one method scored on one split; settings in the order of its grid.

    Attributes:
        settings: the grid, (settings,).
        training: score on the training part, (settings,).
        validation: on the validation part, (settings,).
        validation_loss: mean error there, which decides between equal scores, (settings,).
        test: on the test part, (settings,).
    """

    settings: tuple[dict[str, float], ...]
    training: NDArray[np.float64]
    validation: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    test: NDArray[np.float64]

    @property
    def chosen(self) -> int:
        """Position of the setting with the best validation score; a NaN never is."""
        scores = np.where(np.isnan(self.validation), -np.inf, self.validation)
        return int(np.lexsort((self.validation_loss, -scores))[0])


METHODS: dict[str, Callable[..., Fit]] = {"backprop": fit_backprop, "RAI": fit_relaxed}
# The default of torch, and the one that Glorot & Bengio (2010) derived for tanh.
STARTS = {"default": "torch_default", "Xavier": "xavier"}


def try_method(
    split: Split,
    method: str,
    start: str,
    hidden_layers: int,
    width: int,
    steps: int,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    seed: int,
) -> Trial:
    """Train one network by Adam for each setting of a grid, and score all of them.

    Args:
        split: of a problem.
        method: a key of ``METHODS``.
        start: a key of ``STARTS``.
        hidden_layers, width: shape, of tanh.
        steps: updates of each setting, at least 1.
        learning_rates, weight_decays: the grid: every rate with every decay.
        seed: of the one draw of weights that all settings start from.
    """
    fit = METHODS[one_of(method, METHODS, "method")]
    initialisation = STARTS[one_of(start, STARTS, "start")]
    data, grid = split.validation, [*product(learning_rates, weight_decays)]
    widths = (data.x.shape[1], *[width] * hidden_layers, data.outputs)
    architecture = Architecture(widths, "tanh", OUTPUT_ACTIVATIONS[data.task])
    drawn = build_mlp(architecture, [seed], initialisation)
    rates, decays = zip(*grid, strict=True)
    phase = Phase(steps, rates, "adam", decays)
    model = fit(stack([drawn] * len(grid)), data, phase, watch=NOTHING, device="cpu").model
    return Trial(
        tuple({"learning_rate": rate, "weight_decay": decay} for rate, decay in grid),
        score(model, data.x, data.y, data.task),
        score(model, data.held_out_x, data.held_out_y, data.task),
        evaluate(model, data.held_out_x, data.held_out_y, data.task)[0],
        score(model, split.test.held_out_x, split.test.held_out_y, data.task),
    )


# An estimator of scikit-learn, and the settings to try.
Reference = tuple[Callable[..., Any], list[dict[str, float]]]
INVERSE_PENALTIES = tuple(float(c) for c in np.logspace(-3, 3, 7))
SHRINKAGES, TREE_DEPTHS = (0.03, 0.1, 0.3), (1, 3)


def _linear(task: Task) -> Reference:
    if task == "regression":
        return Ridge, [{"alpha": 1 / c} for c in INVERSE_PENALTIES]
    return partial(LogisticRegression, max_iter=1000), [{"C": c} for c in INVERSE_PENALTIES]


def _boosting(task: Task) -> Reference:
    kind = GradientBoostingRegressor if task == "regression" else GradientBoostingClassifier
    settings = product(SHRINKAGES, TREE_DEPTHS)
    grid = [{"learning_rate": rate, "max_depth": depth} for rate, depth in settings]
    return partial(kind, n_estimators=50, random_state=0), grid


REFERENCES: dict[str, Callable[[Task], Reference]] = {
    "linear model": _linear,
    "gradient boosting": _boosting,
}


def try_reference(split: Split, reference: str) -> Trial:
    """Fit one of ``REFERENCES``, models of scikit-learn, with each setting of its grid; score all.

    - ``"linear model"``: logistic regression, or ridge for regression, over 7 penalties.
    - ``"gradient boosting"``: 50 trees, over 3 rates and 2 depths (Friedman 2001).

    Of equal validation scores the first setting counts.
    """
    one_of(reference, REFERENCES, "reference")
    data, test = split.validation, split.test
    make, grid = REFERENCES[reference](data.task)
    examples = (
        (data.x, data.y),
        (data.held_out_x, data.held_out_y),
        (test.held_out_x, test.held_out_y),
    )
    parts = [(x.numpy(), y.numpy()) for x, y in examples]
    fitted = [make(**setting).fit(*parts[0]) for setting in grid]
    scores = np.array([[model.score(x, y) for x, y in parts] for model in fitted])
    training, validation, judged = scores.T  # each (settings,)
    return Trial(tuple(grid), training, validation, np.zeros(len(grid)), judged)


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """What the chosen setting of each trial scored, as plain lists over the trials."""
    picked = [trial.chosen for trial in trials]
    result: dict[str, Any] = {
        "settings": len(trials[0].settings),
        "chosen": [trial.settings[i] for trial, i in zip(trials, picked, strict=True)],
    }
    for part in ("training", "validation", "test"):
        result[part] = [float(getattr(t, part)[i]) for t, i in zip(trials, picked, strict=True)]
    return result


def compare(
    problem: str,
    examples: int | None,
    splits: Sequence[int],
    method: str,
    start: str,
    hidden_layers: int,
    width: int,
    steps: int,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
) -> dict[str, Any]:
    """One cell of the comparison, see ``summary``: a method on splits of a problem.

    Split k starts from weights of seed k; the arguments are those of ``benchmark`` and
    ``try_method``.
    """
    networks = (hidden_layers, width, steps, learning_rates, weight_decays)
    return summary(
        [
            try_method(benchmark(problem, split, examples), method, start, *networks, seed=split)
            for split in splits
        ]
    )


def compare_reference(
    problem: str, examples: int | None, splits: Sequence[int], reference: str
) -> dict[str, Any]:
    """One cell of the sanity line, as ``compare``: a model of scikit-learn on every split."""
    return summary(
        [try_reference(benchmark(problem, split, examples), reference) for split in splits]
    )


def differences(
    cells: Sequence[dict[str, Any]], start: str, hidden_layers: int
) -> dict[str, NDArray[np.float64]]:
    """Test score of RAI less that of backpropagation, on the same splits from the same weights.

    The cells are arguments and results of ``compare`` in one mapping each; of them those count that
    have this key of ``STARTS`` and so many hidden layers. Returns problem to differences,
    (splits,), in the order of the cells.
    """
    scores = {
        (cell["problem"], cell["method"]): np.array(cell["test"])
        for cell in cells
        if (cell["start"], cell["hidden_layers"]) == (start, hidden_layers)
    }
    problems = dict.fromkeys(problem for problem, _ in scores)
    return {name: scores[name, "RAI"] - scores[name, "backprop"] for name in problems}


# Those before were used while the comparison was made.
SPLITS = [*confirmation_seeds(3, 10)]
# As many examples of each problem as it has, up to 250.
EXAMPLES = {"iris": 150, "wine": 178}
PROBLEMS = tuple(
    {"problem": name, "examples": EXAMPLES.get(name, 250), "splits": SPLITS} for name in BENCHMARKS
)
SHALLOW, DEEP = 3, 10
NETWORKS = {
    "width": 16,
    "steps": 400,
    "learning_rates": [0.003, 0.01, 0.03, 0.1, 0.3],
    "weight_decays": [0.0, 1e-4, 1e-3, 1e-2, 1e-1],
}
SWEEPS = (
    Sweep(
        "generalisation",
        tuple(
            {**problem, "method": method, "start": start, "hidden_layers": depth, **NETWORKS}
            for problem, depth, start, method in product(PROBLEMS, (SHALLOW, DEEP), STARTS, METHODS)
        ),
        compare,
    ),
    Sweep(
        "generalisation-references",
        tuple(
            {**problem, "reference": reference}
            for problem, reference in product(PROBLEMS, REFERENCES)
        ),
        compare_reference,
    ),
)
