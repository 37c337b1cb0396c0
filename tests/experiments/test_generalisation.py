"""The comparison against scikit-learn's scores, separate fits, and ordinary networks."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score

from rai_utils.experiments.rai_questions_generalisation import generalisation
from rai_utils.experiments.rai_questions_generalisation.benchmarks import Split, benchmark
from rai_utils.experiments.rai_questions_generalisation.generalisation import (
    METHODS,
    REFERENCES,
    STARTS,
    SWEEPS,
    Trial,
    compare,
    compare_reference,
    differences,
    score,
    summary,
    try_method,
    try_reference,
)
from rai_utils.models import Architecture, build_mlp
from rai_utils.training import Phase, fit_backprop, fit_relaxed

SMALL = (2, 4, 12, (0.03, 0.01), (0.0, 0.1), 3)


@pytest.mark.parametrize("name", ["iris", "noisy_moons", "friedman1"])
def test_scores_are_those_of_scikit_learn(name):
    data = benchmark(name, 0, 100).test
    outputs = {"binary": "sigmoid", "multiclass": "softmax", "regression": "identity"}
    model = build_mlp(
        Architecture((data.x.shape[1], 3, data.outputs), "tanh", outputs[data.task]), [0, 1]
    )
    ours = score(model, data.held_out_x, data.held_out_y, data.task)
    for position in range(2):
        z = model.as_module(position)(data.held_out_x).detach()
        if data.task == "regression":
            expected = r2_score(data.held_out_y, z[:, 0])
        else:
            label = z.argmax(1) if z.shape[1] > 1 else (z[:, 0] > 0).float()
            expected = (label == data.held_out_y).double().mean().item()
        assert ours[position] == pytest.approx(expected, abs=1e-6)


FITS = {"backprop": fit_backprop, "RAI": fit_relaxed}
NAMES = {"default": "torch_default", "Xavier": "xavier"}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("method", METHODS)
def test_a_trial_scores_what_separate_fits_score(method, start, monkeypatch):
    # In double precision: in single, Adam makes 0.003 of the rounding that tells the two apart.
    build = partial(build_mlp, dtype=torch.float64)
    monkeypatch.setattr(generalisation, "build_mlp", build)
    drawn = benchmark("friedman1", 1, 60)
    split = Split(*(part.to("cpu", torch.float64) for part in (drawn.validation, drawn.test)))
    data = split.validation
    trial = try_method(split, method, start, *SMALL)
    architecture = Architecture((10, 4, 4, 1), "tanh", "identity")
    for position, setting in enumerate(trial.settings):
        phase = Phase(12, setting["learning_rate"], "adam", setting["weight_decay"])
        model = FITS[method](build(architecture, [3], NAMES[start]), data, phase).model
        for ours, x, y in (
            (trial.training, data.x, data.y),
            (trial.validation, data.held_out_x, data.held_out_y),
            (trial.test, split.test.held_out_x, split.test.held_out_y),
        ):
            with torch.no_grad():
                expected = r2_score(y, model.as_module(0)(x)[:, 0])
            assert ours[position] == pytest.approx(expected, abs=1e-5)
    assert len({s.tobytes() for s in trial.validation}) == 4, "settings that change nothing"


def trial(validation, loss, test=(0.0, 0.1, 0.2)):
    return Trial(
        ({"a": 0.0}, {"a": 1.0}, {"a": 2.0}), *map(np.array, (test, validation, loss, test))
    )


def test_validation_chooses_and_the_loss_decides_between_equals():
    assert trial((0.5, 0.9, 0.7), (1, 9, 1)).chosen == 1
    assert trial((0.9, 0.9, 0.7), (2, 1, 0)).chosen == 1
    assert trial((np.nan, -2.0, np.nan), (np.nan, 9, 0)).chosen == 1
    result = summary([trial((0.5, 0.9, 0.7), (1, 9, 1)), trial((0.5, 0.6, 0.7), (1, 9, 1))])
    assert result["chosen"] == [{"a": 1.0}, {"a": 2.0}]
    assert result["test"] == [0.1, 0.2]
    assert result["validation"] == [0.9, 0.7]
    assert result["settings"] == 3


def test_references_are_scikit_learns_with_the_penalty_that_validation_chose():
    for name, kind, key in (("wine", LogisticRegression, "C"), ("diabetes", Ridge, "alpha")):
        split = benchmark(name, 2, 100)
        trial = try_reference(split, "linear model")
        data, test = split.validation, split.test
        for position, setting in enumerate(trial.settings):
            fitted = kind(**setting).fit(data.x.numpy(), data.y.numpy())
            expected = fitted.score(test.held_out_x.numpy(), test.held_out_y.numpy())
            assert trial.test[position] == pytest.approx(expected, abs=0.02)
        assert {key} == set(trial.settings[0])
    assert len(try_reference(split, "gradient boosting").settings) == 6


def test_a_cell_holds_one_result_a_split():
    arguments = {"width": 3, "steps": 4, "learning_rates": [0.03], "weight_decays": [0.0, 0.1]}
    result = compare("iris", 60, [0, 1], "RAI", "Xavier", 2, **arguments)
    networks = (2, 3, 4, (0.03,), (0.0, 0.1), 1)
    first = try_method(benchmark("iris", 1, 60), "RAI", "Xavier", *networks)
    assert result["test"][1] == first.test[first.chosen]
    assert result == compare("iris", 60, [0, 1], "RAI", "Xavier", 2, **arguments)
    assert len(compare_reference("iris", 60, [0, 1], "linear model")["test"]) == 2


def test_differences_are_paired_by_problem_start_depth_and_split():
    cells = [
        {"problem": p, "method": m, "start": s, "hidden_layers": d, "test": [x, x + y]}
        for p, m, s, d, x, y in (
            ("iris", "RAI", "Xavier", 3, 0.5, 0.25),
            ("iris", "RAI", "Xavier", 10, 9.0, 9.0),
            ("iris", "RAI", "default", 3, 7.0, 7.0),
            ("wine", "RAI", "Xavier", 3, 0.75, 0.0),
            ("wine", "backprop", "Xavier", 3, 1.0, 0.0),
            ("iris", "backprop", "Xavier", 3, 0.25, 0.0),
        )
    ]
    found = differences(cells, "Xavier", 3)
    assert {name: values.tolist() for name, values in found.items()} == {
        "iris": [0.25, 0.5],
        "wine": [-0.25, -0.25],
    }


def test_the_sweeps_give_both_methods_every_problem_start_and_setting():
    networks, references = SWEEPS
    names = ("problem", "method", "start", "hidden_layers")
    cells = {tuple(c[name] for name in names) for c in networks.cells}
    assert len(cells) == len(networks.cells) == 10 * 2 * 2 * 2
    shared = ("examples", "splits", "width", "steps", "learning_rates", "weight_decays")
    for problem in {c["problem"] for c in networks.cells}:
        settings = [[c[key] for key in shared] for c in networks.cells if c["problem"] == problem]
        assert all(s == settings[0] for s in settings)
    assert len(references.cells) == 10 * len(REFERENCES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: try_method(benchmark("iris", 0), "ADMM", "Xavier", *SMALL),
            "method must be .* 'ADMM'",
        ),
        (lambda: try_method(benchmark("iris", 0), "RAI", "He", *SMALL), "start must be .* 'He'"),
        (lambda: try_reference(benchmark("iris", 0), "SVM"), "reference must be .* 'SVM'"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
