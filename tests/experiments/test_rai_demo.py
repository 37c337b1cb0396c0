"""What rai-demo measures, its sweeps, and its plots."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.contour import ContourSet
from matplotlib.patches import Polygon

from rai_utils import plotting
from rai_utils.data import moons
from rai_utils.diagnostics import decision_map, disagreement, mean_of_pairs
from rai_utils.experiments import rai_demo, sweep
from rai_utils.experiments.rai_demo import (
    boundaries,
    circuit,
    differing,
    disagreements,
    energy_test,
    loss_by_loops,
    near_the_data,
    pair_distances,
)
from rai_utils.models import Architecture, build_mlp
from rai_utils.publishing.legibility import HALF_PAGE, check_size, collisions
from rai_utils.recording import bare
from rai_utils.relaxation import forward_targets, relaxation_plan, relaxed_loss, resting
from rai_utils.training import Phase, Watch, fit_backprop, fit_relaxed

SMALL = Architecture((2, 4, 4, 1), "relu")


@pytest.fixture
def small(monkeypatch):
    """The cells on small circuits, without a compiler."""
    monkeypatch.setattr(rai_demo, "SHALLOW", SMALL)
    monkeypatch.setattr(rai_demo, "SMALLER", Architecture((2, 3, 1), "relu"))
    monkeypatch.setattr(rai_demo, "DEEP", Architecture((2, 4, 4, 4, 1)))
    monkeypatch.setattr(rai_demo, "AUTHOR_STEPS", {"backprop": 3, "RAI": 5})
    monkeypatch.setattr(rai_demo, "RESOLUTION", 9)
    monkeypatch.setattr(rai_demo, "compile_rprop", lambda: None)


def moved_targets(model, x, plan, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = forward_targets(model, x, plan).values
    return [z + 0.3 * torch.randn(z.shape, generator=generator, dtype=z.dtype) for z in values]


def test_both_forms_of_the_loss_are_the_fast_one_with_other_weights():
    model = build_mlp(SMALL, [3], dtype=torch.float64)
    data = moons(6).to("cpu", torch.float64)
    plan, hidden = relaxation_plan(SMALL), relaxation_plan(SMALL, range(1, SMALL.depth))
    values = moved_targets(model, data.x, plan)
    layers = list(model.as_module(0))[::2]
    targets = [values[run][place, 0] for run, place in map(plan.locate, plan.layers)]
    parameters = [*model.weights], [*model.biases]
    coded = relaxed_loss(plan, *parameters, values, data.x, data.y).total
    # Every hidden layer has 4 units: as written is n times the form of means with λ = 4.
    means = relaxed_loss(hidden, *parameters, values[:-1], data.x, data.y, hidden_weight=4.0).total
    by_loops = {w: loss_by_loops(layers, targets, data.x, data.y, written=w) for w in (True, False)}
    assert by_loops[False] == pytest.approx(coded.item(), rel=1e-12)
    assert by_loops[True] == pytest.approx(len(data.x) * means.item(), rel=1e-12)
    assert by_loops[True] != pytest.approx(by_loops[False], rel=0.1)


def test_frozen_targets_leave_all_but_the_last_layer_as_it_was():
    data, start = moons(20), build_mlp(SMALL, [0, 1])
    options = {"layers": range(1, SMALL.depth), "watch": Watch([0, 30], [0, 30])}
    fit = fit_relaxed(start, data, Phase(30, 0.1), objective=resting(np.inf), **options)
    for before, after in zip(start.weights[:-1], fit.model.weights[:-1], strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(start.weights[-1], fit.model.weights[-1])
    assert (fit.history.hidden_terms == 0).all()
    assert (fit.history.loss[-1] < fit.history.loss[0]).all()
    # Backpropagation of the last layer alone gives the same gradient.
    expected = fit_backprop(start, data, Phase(1, 0.1), watch=Watch([0], [0])).history
    np.testing.assert_allclose(
        fit.history.gradient_norms[0, -1], expected.gradient_norms[0, -1], rtol=1e-4
    )


def test_a_point_is_near_within_a_distance_of_any_example():
    axis, points = np.linspace(-1, 1, 5), np.array([[1.0, 0.5], [-1.0, -1.0]])
    near = near_the_data(axis, points, 0.6)
    for row, second in enumerate(axis):
        for column, first in enumerate(axis):
            gaps = [np.hypot(first - x, second - y) for x, y in points]
            assert near[row, column] == (min(gaps) <= 0.6)


def test_distances_are_shares_of_a_region():
    maps = np.random.default_rng(0).random((4, 5, 5))
    everywhere = np.ones((5, 5), bool)
    shares = differing(maps, everywhere)
    np.testing.assert_allclose(shares, disagreement(maps, maps))
    region = np.zeros((5, 5), bool)
    region[0, :2] = True
    sides = maps[:, 0, :2] > 0.5
    assert differing(maps, region)[1, 3] == (sides[1] != sides[3]).mean()


def points_apart(first, second):
    """Distances of networks that are numbers on a line, by two methods, one draw."""
    places = np.concatenate([first, second])
    return np.abs(places[:, None] - places)[None]


def test_disagreements_leave_out_pairs_of_one_start():
    distances = points_apart([0.0, 1.0], [10.0, 30.0])
    within, other, between = disagreements(distances)
    assert (within[0], other[0], between[0]) == (1, 20, (30 + 9) / 2)
    within, other, between = disagreements(distances, np.array([[True, False]]))
    assert (within[0], other[0], between[0]) == (9, 30, (20 + 1) / 2)


def test_the_energy_test_finds_a_shift_and_not_its_absence():
    generator = np.random.default_rng(0)
    draws = [generator.normal(size=(2, 4)) for _ in range(6)]
    apart = np.concatenate([points_apart(first, second + 3) for first, second in draws])
    alike = np.concatenate([points_apart(first, second) for first, second in draws])
    statistic, p_value, dealt = energy_test(apart, 199)
    assert statistic == pytest.approx(
        np.mean([2 * b - a - c for a, c, b in zip(*disagreements(apart), strict=True)])
    )
    assert p_value == 1 / 200
    assert dealt > 0.01
    assert energy_test(alike, 199)[1] > 0.05


def test_a_draw_is_measured_as_its_parts_are(small):
    chosen = {"backprop": 0.1, "RAI": 0.1}
    found = rai_demo.draw_cell(3, 3, [0.1], chosen, 40)
    data, start = moons(seed=45, held_out_seed=1045), build_mlp(SMALL, range(300, 303))
    fits = {"backprop": fit_backprop, "RAI": fit_relaxed}
    maps = []
    for name, fit in fits.items():
        result = fit(start, data, Phase(40, 0.1))
        axis, own = decision_map(result.model, resolution=9)
        group = found["groups"][f"{name} 0.1"]
        assert group["held_out"] == result.history.held_out_accuracy[-1].tolist()
        mean = mean_of_pairs(disagreement(own, own), range(3))
        assert found["disagreement"]["end"]["whole"][f"{name} 0.1"] == pytest.approx(mean)
        maps.append(own)
    shares = disagreement(np.concatenate(maps), np.concatenate(maps))
    cell = {"networks": 3, **found}
    given = pair_distances([cell], "whole", "backprop 0.1", "RAI 0.1")
    np.testing.assert_allclose(given[0], shares * (1 - np.eye(6)), atol=6e-5)
    near = near_the_data(axis, data.x)
    assert found["near_share"] == near.mean()
    regions = found["disagreement"]["end"]
    for name in found["groups"]:
        whole = near.mean() * regions["near"][name] + (1 - near.mean()) * regions["far"][name]
        assert regions["whole"][name] == pytest.approx(whole)
    untrained = fit_backprop(start, data, Phase(1, 0.1), watch=Watch([0])).history
    assert found["untrained"] == untrained.held_out_accuracy[0].tolist()
    assert found["frozen"] == {"gap_peak": [0, 0, 0], "gap_end": [0, 0, 0]}
    assert all(
        peak >= end > 0 for peak, end in zip(found["gap_peak"], found["gap_end"], strict=True)
    )


def test_networks_are_matched_where_their_loss_first_is_low(small, monkeypatch):
    monkeypatch.setattr(rai_demo, "MATCHED_LOSS", 0.6)
    found = rai_demo.draw_cell(0, 3, [0.1], {"backprop": 0.1, "RAI": 0.1}, 60)
    data, start = moons(), build_mlp(SMALL, range(3))
    history = fit_backprop(
        start, data, Phase(60, 0.1), watch=Watch(rai_demo.schedule(60, 50))
    ).history
    firsts = [own[own <= 0.6][0] for own in history.loss.T if (own <= 0.6).any()]
    assert firsts
    assert found["groups"]["backprop 0.1"]["matched_loss"] == firsts
    monkeypatch.setattr(rai_demo, "MATCHED_LOSS", 0.0)
    found = rai_demo.draw_cell(0, 3, [0.1], {"backprop": 0.1, "RAI": 0.1}, 5)
    assert found["disagreement"]["matched"]["whole"] == {"backprop 0.1": None, "RAI 0.1": None}


def test_the_authors_pair_is_unequal_and_the_forms_are_two(small):
    pair = rai_demo.author_cell(0)
    data = moons()
    expected = fit_backprop(build_mlp(rai_demo.SMALLER, [0]), data, Phase(3, 0.1)).history
    assert pair["backprop"]["held_out"] == expected.held_out_accuracy[-1, 0]
    expected = fit_relaxed(build_mlp(SMALL, [0]), data, Phase(5, 0.1)).history
    assert pair["RAI"]["train"] == expected.accuracy[-1, 0]
    assert np.shape(pair["RAI"]["map"]) == (9, 9)
    assert rai_demo.author_cell(1)["RAI"]["map"] is None
    forms = rai_demo.forms_cell(0, 12)
    written = {"layers": range(1, 4), "hidden_weight": 4.0}
    for name, options in (("as written", written), ("author's code", {})):
        fit = fit_relaxed(build_mlp(rai_demo.DEEP, [0]), data, Phase(12, 0.1), **options)
        assert forms[name]["held_out"] == fit.history.held_out_accuracy[-1, 0]


def test_the_rates_of_the_controls_are_those_that_the_tuner_chose(small):
    chosen = {cell["method"]: cell["chosen"] for cell in sweep.read("demo-tuning").cells}
    assert chosen == rai_demo.CHOSEN_RATE
    found = rai_demo.tuning_cell("RAI", [0.1, 0.01], 3, 5)
    assert len(found["losses"]) == len(found["tried"]) >= 2
    assert found["chosen"] in found["tried"]


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_boundaries_shows_the_vote_and_one_contour_a_network_that_has_one(axes):
    grid = np.linspace(-1, 1, 5)
    left, right, flat = (
        np.where(grid[None, :] < 0, 0.9, 0.1) * np.ones((5, 1)),
        np.where(grid[None, :] > 0, 0.9, 0.1) * np.ones((5, 1)),
        np.full((5, 5), 0.7),
    )
    points, labels = np.array([[0.0, 0.0], [0.5, 0.5]]), np.array([0, 1])
    maps = np.stack([left, right, flat])
    assert boundaries(axes, grid, grid, maps, points, labels, title="three") is axes
    np.testing.assert_allclose(axes.collections[0].get_array().reshape(5, 5), (maps > 0.5).mean(0))
    contours = [artist for artist in axes.collections if isinstance(artist, ContourSet)]
    assert len(contours) == 2
    assert all(contour.levels.tolist() == [0.5] for contour in contours)
    assert axes.get_title() == "three"


def test_boundaries_needs_a_network(axes):
    grid = np.linspace(-1, 1, 5)
    with pytest.raises(ValueError, match="one network or more, got none"):
        boundaries(axes, grid, grid, np.zeros((0, 5, 5)), np.zeros((1, 2)), [0])


def test_plain_circuit_has_one_loss_and_no_hidden_terms(axes):
    circuit(axes, relaxed=False)
    axes.figure.draw_without_rendering()
    written = [text.get_text() for text in axes.texts]
    for symbol in ("$z_0$", "$f_{0}$", r"$\theta_{0}$", "$z_{1}$", r"$f_{T{-}1}$", "$z_{T}$"):
        assert symbol in written
    assert written.count("$L_y$") == 1
    assert "$L_h$" not in written
    assert not any(text.startswith(r"$\hat{z}_{1}") for text in written)
    assert not axes.axison


def test_relaxed_circuit_compares_each_prediction_with_its_target_and_the_last_with_the_label(axes):
    circuit(axes, relaxed=True)
    axes.figure.draw_without_rendering()
    placed = {text.get_text(): text.get_position() for text in axes.texts}
    losses = [text.get_position() for text in axes.texts if text.get_text() == "$L_h$"]
    for name, loss in zip(("1", "T{-}1", "T"), losses, strict=True):
        prediction, target = placed[rf"$\hat{{z}}_{{{name}}}$"], placed[f"$z_{{{name}}}$"]
        assert prediction[0] == target[0] == loss[0]
        assert target[1] < loss[1] < prediction[1]
    assert placed["$L_y$"][1] == placed["$z_{T}$"][1]
    assert placed["$L_y$"][0] == placed["$y$"][0] > placed["$z_{T}$"][0]


def test_what_one_term_sees_is_shaded_and_nothing_else(axes):
    circuit(axes, relaxed=True)
    axes.figure.draw_without_rendering()
    area = max(
        (p for p in axes.patches if isinstance(p, Polygon)), key=lambda p: p.get_extents().height
    )
    inside = [
        text.get_text()
        for text in axes.texts
        if text.get_text() and area.get_path().contains_point(text.get_position())
    ]
    seen = [
        r"$f_{T{-}1}$",
        r"$\theta_{T{-}1}$",
        r"$\hat{z}_{T}$",
        "$z_{T}$",
        "$L_h$",
        "$z_{T{-}1}$",
    ]
    assert sorted(inside) == sorted(seen)


def test_the_two_circuits_have_one_key(axes):
    circuit(axes, relaxed=False)
    without = [text.get_text() for text in axes.texts]
    circuit(axes, relaxed=True)
    words = [text.get_text() for text in axes.texts]
    for word in ("given", "trained", "computed", "gradient", "seen by one term"):
        assert word not in without and words.count(word) == 1


def test_circuit_is_legible_at_half_a_page_and_grows_with_its_panel():
    sizes = []
    for width in (HALF_PAGE, 2 * HALF_PAGE):
        _, axes = plt.subplots(figsize=(width, 0.63 * width), layout="constrained")
        circuit(axes, relaxed=True)
        sizes.append(min(text.get_fontsize() for text in axes.texts if text.get_text()))
    assert sizes[0] > 6
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.1)


@pytest.mark.parametrize("relaxed", [False, True])
def test_circuit_text_stays_inside_the_panel_and_apart(relaxed):
    plotting.use_style()
    figure, axes = plotting.figure(panel_height=0.63 * HALF_PAGE)
    circuit(axes, relaxed=relaxed)
    assert collisions(figure) == []


def test_circuit_is_drawn_legibly_and_the_same_each_time_on_the_axes_given():
    plotting.use_style()
    pictures = []
    for _ in range(2):
        figure, axes = plotting.figure()
        assert circuit(axes, relaxed=True) is axes
        check_size(figure)
        figure.canvas.draw()
        pictures.append(np.array(figure.canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)
    with pytest.raises(TypeError, match="axes must be a matplotlib Axes, got ndarray"):
        circuit(np.array([bare(axes)]), relaxed=True)
