"""Runs the work of every sweep of ``make study`` as it stands, at its smallest settings."""

import json
import sys
import warnings
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest

from rai_utils import training
from rai_utils.experiments import rai_grads, rai_optimizers, relax_your_own
from rai_utils.experiments.rai_questions_generalisation import regularisers
from rai_utils.experiments.rai_questions_initialisation import SCHEDULES
from rai_utils.experiments.study import SWEEPS
from rai_utils.experiments.sweep import read
from rai_utils.models import Architecture, development_seeds
from rai_utils.publishing.claims import plain
from rai_utils.tuning import search

SMALLEST = {
    "demo-tuning": {"learning_rates": [0.1, 0.01], "networks": 2, "steps": 2},
    "demo": {"learning_rates": [0.01], "networks": 3, "steps": 3},
    "demo-author": {},
    "demo-forms": {"steps": 2},
    "proposal": {"steps": 3},
    "methods": {"steps": 3, "relaxed_steps": 1, "networks": 1, "tuning_steps": 1},
    "handover-steps": {"relaxed_steps": 2, "steps": 2, "networks": 1},
    "deep-activations": {"steps": 2, "networks": 1},
    "mechanism-networks": {"hidden_layers": 9, "width": 4, "second_steps": 2},
    "mechanism-balance": {"hidden_layers": 3, "width": 4},
    "mechanism-window": {"hidden_layers": 3, "width": 4},
    "mechanism-fresh-window": {"hidden_layers": 3, "width": 4},
    "mechanism-partial": {"hidden_layers": 10, "width": 4},
    "mechanism-residuals": {"hidden_layers": 3, "width": 4},
    "mechanism-judges": {"hidden_layers": 3, "width": 4},
    "handover": {"hidden_layers": 3, "width": 4, "backprop_steps": 3},
    "fresh-handover": {"hidden_layers": 3, "backprop_steps": 3},
    "handover-parts": {"hidden_layers": 3, "parts": [[1, 2], [4, 4]], "backprop_steps": 3},
    "initialisations": {
        "hidden_layers": 3,
        "width": 4,
        "seeds": [0],
        "steps": 3,
        "learning_rates": [0.1, 0.3],
    },
    "alternatives": {
        "hidden_layers": 3,
        "width": 4,
        "seeds": [0],
        "learning_rates": [0.01],
        "tuning_steps": 2,
        "steps": 3,
    },
    "residuals": {"hidden_layers": 3, "width": 4, "seeds": [0], "steps": 3},
    "schedules": {"hidden_layers": 11, "width": 4},
    "sequential": {"hidden_layers": 3, "width": 4, "steps": 3},
    "smallest-steps": {"hidden_layers": 3, "width": 4, "backprop_steps": 3},
    "generalisation": {
        "splits": [0],
        "hidden_layers": 2,
        "width": 3,
        "steps": 3,
        "learning_rates": [0.01],
        "weight_decays": [0.01],
    },
    "generalisation-references": {"splits": [0]},
    "regularisers": {"draws": 1, "seeds": 3, "hidden_layers": 2, "width": 3, "steps": 8},
    "minibatches": {"work": 0.1, "batch": 256},
    "minibatches-spirals": {"work": 0.1, "batch": 256},
    "minibatch-durations": {"rounds": 1, "work": 0.1, "rows": [100, 200]},
    "relax-your-own": {"passes": 2, "networks": 2, "rates": [0.01, 0.03]},
    "relax-costs": {"rounds": 1, "repeats": 1},
    "convergence": {"networks": 2, "most_steps": 4},
    "convergence-usual": {"networks": 2, "most_steps": 4},
    "softmax-curves": {"widths": [2], "tuned_at": 2, "draws": 1, "starts": 2, "steps": 2},
    "softmax-outputs": {"networks": 1, "steps": 2},
    "softmax-depth": {"width": 4, "draws": 1, "networks": 2, "steps": 2},
    "learned-features": {"networks": 1, "steps": 1},
    "overfitting": {"steps": 10},
    "zig-zag": {"most_steps": 4},
    "dying-units": {"steps": 4},
    "activation-costs": {"rounds": 1},
    "krizhevsky": {"networks": 1, "tuning_networks": 1, "most_steps": 1},
    "guided-depths": {"hidden_layers": 3, "steps": 2},
    "guided-solved": {"hidden_layers": 3, "steps": 2},
    "guided-controls": {"hidden_layers": 3, "steps": 2},
    "guided-rests": {"hidden_layers": 3, "steps": 2},
    "guided-pays": {"hidden_layers": 3, "steps": 2},
    "guided-digits": {"hidden_layers": 3, "steps": 2},
    "guided-null": {"hidden_layers": 3, "steps": 2},
    "guided-splices": {"hidden_layers": 3, "steps": 2},
    "guided-tasks": {"hidden_layers": 3, "steps": 2},
    "guided-shallow": {"steps": 2},
    "guided-disturbed": {"hidden_layers": 3, "steps": 2},
    "guided-arithmetic": {"networks": [0], "steps": 1},
    "optimizers-depths": {
        "hidden_layers": 2,
        "width": 4,
        "steps": 2,
        "tuning_networks": 2,
        "networks": 1,
    },
    "optimizers-apart": {
        "hidden_layers": 2,
        "width": 4,
        "steps": 2,
        "tuning_networks": 2,
        "networks": 1,
    },
    "optimizers-curvature": {"hidden_layers": 2, "width": 4, "marks": [2]},
}
# Settings that are constants of the module.
CONSTANTS = {
    "demo-author": {"AUTHOR_STEPS": {"backprop": 2, "RAI": 3}},
    "methods": {"DEEP": Architecture((2, 4, 4, 1)), "TUNING_NETWORKS": 2},
    "learned-features": {"GAINS": (1.0, 4.0), "RATES": (0.01, 0.1)},
    "convergence": {"GAINS": (1.0,), "RATES": (0.1, 1.0), "TUNING_NETWORKS": 2},
    "convergence-usual": {"RATES": (0.1, 1.0), "TUNING_NETWORKS": 2},
    "schedules": {
        "SCHEDULES": {
            name: tuple(replace(each, steps=2) for each in rounds)
            for name, rounds in SCHEDULES.items()
        }
    },
}


def smallest_cells():
    """The first cell of each kind: with each text that a parameter of the sweep takes.

    Of the arithmetics, whose cells differ in variables of a process alone, it is the last, which
    has all of these.
    """
    for sweep in SWEEPS.values():
        if sweep.name == "guided-arithmetic":
            yield pytest.param(sweep, sweep.cells[-1] | SMALLEST[sweep.name], id=sweep.name)
            continue
        seen = set()
        for cell in sweep.cells:
            texts = {(name, value) for name, value in cell.items() if isinstance(value, str)}
            if not seen or not texts <= seen:
                name = "-".join([sweep.name, *(value for _, value in sorted(texts))])
                yield pytest.param(sweep, cell | SMALLEST[sweep.name], id=name)
            seen |= texts or {None}


def test_no_sweep_is_left_out():
    assert SMALLEST.keys() == SWEEPS.keys() >= CONSTANTS.keys()
    for name, changes in SMALLEST.items():
        assert changes.keys() <= signature(SWEEPS[name].work).parameters.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("sweep", "cell"), list(smallest_cells()))
def test_a_cell_runs_and_gives_what_json_holds(sweep, cell, monkeypatch):
    monkeypatch.setitem(training._compiled, "cpu", training.rprop_step)  # with the same numbers
    for name, value in CONSTANTS.get(sweep.name, {}).items():
        monkeypatch.setattr(sys.modules[sweep.work.__module__], name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few steps converge nowhere
        result = sweep.work(**cell)
    assert result
    assert json.loads(json.dumps(plain(result, sweep.name), allow_nan=False))


def test_the_durations_are_those_of_every_method_and_table():
    work = SWEEPS["minibatch-durations"].work
    result = work(rounds=1, work=0.1, batch=32, rows=[100, 200])
    assert result["time_ratio"].keys() >= {"backprop", "table", "fresh targets"}
    assert result["traffic_ratio"].keys() == {"100", "200"}
    assert result["traffic_ratio"]["100"] == [1, 1, 1]
    for ratios in (*result["time_ratio"].values(), *result["traffic_ratio"].values()):
        median, low, high = ratios
        assert 0 < low <= median <= high


@pytest.mark.parametrize(
    ("sweep", "wrong", "message"),
    [
        ("demo-tuning", {"method": "lion"}, "method must be one of backprop, RAI, got 'lion'"),
        ("proposal", {"method": "lion"}, "method must be one of RAI, backprop, got 'lion'"),
        ("proposal", {"precision": "half"}, "precision must be one of"),
        ("handover", {"dataset": "suns"}, "dataset must be one of moons, circles, spirals"),
        ("alternatives", {"way": "magic"}, "way must be one of default"),
        ("schedules", {"schedule": "none"}, "schedule must be one of as proposed"),
        ("regularisers", {"problem": "suns"}, "problem must be one of"),
        ("regularisers", {"regulariser": "hope"}, "regulariser must be one of"),
        ("regularisers", {"seeds": 1}, "seeds must be at least 2, got 1"),
        ("minibatches", {"method": "lion"}, "method must be one of"),
        ("convergence", {"recipe": "step"}, "recipe must be one of sigmoid"),
        ("optimizers-depths", {"optimizer": "lion"}, "optimizer must be one of SGD, momentum"),
        ("optimizers-depths", {"objective": "magic"}, "objective must be one of plain, relaxed"),
        ("learned-features", {"problem": "suns"}, "problem must be one of circles, XOR"),
        ("overfitting", {"steps": 5}, "steps must be at least 10, got 5"),
        ("zig-zag", {"activation": "relu"}, "activation must be one of sigmoid"),
        ("dying-units", {"activation": "tanh"}, "activation must be one of relu"),
        ("activation-costs", {"place": "disk"}, "place must be one of in cache"),
        ("krizhevsky", {"start": "zero"}, "start must be one of 0.01, tuned"),
        ("softmax-depth", {"optimizer": "lion"}, "optimizer must be one of sgd, adam"),
    ],
)
def test_a_cell_that_makes_no_sense_is_refused_before_any_fit(sweep, wrong, message):
    with pytest.raises(ValueError, match=message):
        SWEEPS[sweep].work(**SWEEPS[sweep].cells[0] | wrong)


# --- what was tuned ---

# Sweep -> tie margin and limits of its search, and the names of its tables: the rates, their mean
# losses, the one taken, and whether it is the outermost.
TUNED = {
    "demo-tuning": (0.001, (1e-6, 1.0), [("tried", "losses", "chosen", "at_limit")]),
    "initialisations": (
        0.01,
        (1e-7, 10.0),
        [
            tuple(f"{method}_{name}" for name in ("rates", "losses", "rate", "at_limit"))
            for method in ("rai", "backprop")
        ],
    ),
    "methods": (
        rai_grads.TIE_MARGIN,
        rai_grads.RATE_LIMITS,
        [("learning_rates", "losses", "learning_rate", "at_limit")],
    ),
    "optimizers-depths": (
        rai_optimizers.TIE_MARGIN,
        None,
        [("learning_rates", "losses", "learning_rate", "at_limit")],
    ),
    "relax-your-own": (
        relax_your_own.TIE,
        relax_your_own.LIMITS,
        [("rates", "losses", "rate", "at_limit")],
    ),
}


def against_the_rule(rates, losses, taken, at_limit, margin, limits):
    """Return what ``search`` does not do with these losses, or None.

    Losses are means over networks. So a rate that is not the best may be a tie within the noise of
    its networks, which no mean shows; then it has at most twice the best loss, and lies nearer to
    the middle.
    """
    table = dict(zip(rates, [np.inf if loss is None else loss for loss in losses], strict=True))

    def look_up(tried):
        found = np.repeat([[table[rate]] for rate in tried], 2, axis=1)
        return found, np.zeros_like(found)

    try:
        found = search(look_up, rates, development_seeds(2), margin, limits)
    except KeyError as error:
        return f"it tries {error} too"
    if found.at_limit != at_limit:
        return f"at_limit is {found.at_limit}"
    middle = (len(rates) - 1) / 2
    best = min(table, key=table.__getitem__)
    off, off_by_rule = (abs(rates.index(rate) - middle) for rate in (taken, found.rate))
    tied = table[taken] <= 2 * table[best] and off <= off_by_rule
    return None if taken == found.rate or tied else f"it takes {found.rate}"


def test_every_published_table_of_a_search_keeps_to_its_rule():
    wrong = []
    for name, (margin, limits, tables) in TUNED.items():
        for cell in read(name).cells:
            own = rai_optimizers.METHODS[cell["optimizer"]].limits if limits is None else limits
            for keys in tables:
                if cell.get(keys[0]):
                    fault = against_the_rule(*(cell[key] for key in keys), margin, own)
                    wrong += [f"{name} {keys[0]} {cell}: {fault}"[:300]] if fault else []
    assert wrong == []


@pytest.mark.parametrize(
    ("rates", "losses", "taken", "at_limit", "fault"),
    [
        ([0.1, 0.01, 0.001], [0.48, 0.78, 0.69], 0.01, False, "it tries 1.0 too"),
        ([1.0, 0.1, 0.01, 0.001], [11, 0.48, 0.78, 0.69], 0.01, False, None),
        ([1.0, 0.1, 0.01, 0.001], [11, 0.48, 0.78, 0.69], 0.01, True, "at_limit is False"),
        ([1.0, 0.1, 0.01, 0.001], [0.2, 0.48, 0.78, 0.69], 0.1, True, "it takes 1.0"),
        ([1.0, 0.1, 0.01, 0.001], [0.2, 0.48, 0.78, None], 1.0, True, None),
        ([1.0, 0.1, 0.01, 0.001], [0.9, 0.1, 0.78, 0.69], 0.01, False, "it takes 0.1"),
    ],
)
def test_a_table_that_does_not_keep_to_the_rule_is_found(rates, losses, taken, at_limit, fault):
    assert against_the_rule(rates, losses, taken, at_limit, 0.001, (1e-3, 1.0)) == fault


def test_no_published_strength_lies_at_an_edge_that_is_not_an_end():
    chosen = regularisers.chosen_strengths(read("regularisers").cells)
    assert regularisers.at_edges(chosen) == []
    chosen["noisy moons"]["target decay"]["strength"] = 1e-5
    chosen["noisy XOR"]["multipliers"]["strength"] = 2
    assert regularisers.at_edges(chosen) == [("noisy moons", "target decay", 1e-5)]
