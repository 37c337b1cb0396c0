"""Data sets: the proposal's numbers, and what is refused."""

import numpy as np
import pandas
import pytest
import torch
from sklearn.datasets import load_linnerud, make_circles, make_moons
from sklearn.preprocessing import StandardScaler

from rai_utils.data import (
    Dataset,
    circles,
    digits,
    dose_response,
    exclusive_or,
    from_arrays,
    moons,
    moons_draw,
    spirals,
    three_clusters,
    wave,
)


def test_moons_are_the_proposals_training_set_and_another_held_out_set():
    data = moons()
    x, y = make_moons(n_samples=100, noise=0.1, random_state=42)
    assert np.array_equal(data.x.numpy(), x.astype(np.float32))
    assert np.array_equal(data.y.numpy(), y)
    assert data.held_out_x.shape == (2000, 2)
    assert not (data.held_out_x[:, None] == data.x[None]).all(-1).any()
    assert data.outputs == 1


def test_moving_keeps_integer_labels_integer():
    x, y = torch.randn(4, 2), torch.tensor([0, 2, 1, 0])
    data = Dataset("three", "multiclass", x, y, x, y).to("cpu", torch.float64)
    assert data.x.dtype == torch.float64
    assert data.y.dtype == torch.int64
    assert data.outputs == 3


def test_the_dose_curve_is_its_formula_and_noise_is_on_the_training_examples_only():
    data = dose_response(examples=2000, noise=0.05)
    doses = data.held_out_x[:, 0].numpy()
    expected = np.exp(-((doses - 0.5) ** 2) / (2 * 0.15**2))
    np.testing.assert_allclose(data.held_out_y.numpy(), expected, atol=1e-6)
    noise = data.y.numpy() - np.exp(-((data.x[:, 0].numpy() - 0.5) ** 2) / (2 * 0.15**2))
    assert noise.std() == pytest.approx(0.05, rel=0.05)
    assert abs(noise.mean()) < 0.005


def test_the_dose_curve_in_standard_units_leaves_the_unit_interval():
    plain, scaled = dose_response(), dose_response(standard_units=True)
    torch.testing.assert_close(scaled.y, 4 * plain.y - 2)
    torch.testing.assert_close(scaled.held_out_y, 4 * plain.held_out_y - 2)
    noisy = dose_response(held_out_noise=0.5)
    assert (noisy.held_out_y - plain.held_out_y).std() > 0.3
    assert torch.equal(noisy.y, plain.y)


def test_the_wave_is_its_formula_at_other_points_held_out():
    data = wave(examples=11, held_out=10)
    x = data.held_out_x[:, 0].numpy()
    np.testing.assert_allclose(data.held_out_y.numpy(), x * np.sin(4 * np.pi * x), atol=1e-6)
    assert not np.isin(data.x.numpy(), x).any()


def test_spirals_without_noise_lie_on_their_arms_in_equal_shares():
    data = spirals(examples=30, noise=0.0, held_out=9)
    radius = data.x.norm(dim=1)
    angle = 2 * np.pi * data.y / 3 + 2 * radius
    expected = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    torch.testing.assert_close(data.x, expected)
    assert torch.bincount(data.y).tolist() == [10, 10, 10]
    assert data.outputs == 3
    assert radius.min() >= 0.2 and radius.max() <= 2
    assert torch.equal(spirals(30, 0.0, held_out=9).x, data.x)
    assert not torch.equal(spirals(30, 0.0, seed=1, held_out=9).x, data.x)


def dataset(task="binary", x=None, y=None, held_out_y=None):
    x = torch.zeros(3, 2) if x is None else x
    y = torch.tensor([0.0, 1.0, 1.0]) if y is None else y
    held_out_y = torch.tensor([0.0, 1.0, 0.0]) if held_out_y is None else held_out_y
    return Dataset("test", task, x, y, torch.zeros(3, 2), held_out_y)


@pytest.mark.parametrize(
    "kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16]
)
def test_classes_of_any_integer_type_become_int64(kind):
    y = torch.tensor([0, 2, 1])
    data = dataset("multiclass", y=y.to(kind), held_out_y=torch.tensor([2, 0, 0]).to(kind))
    assert data.y.dtype == data.held_out_y.dtype == torch.int64
    assert data.y.tolist() == [0, 2, 1] and data.held_out_y.tolist() == [2, 0, 0]
    assert data.outputs == 3


def test_a_class_between_the_others_may_be_missing_in_either_part():
    data = dataset("multiclass", y=torch.tensor([0, 2, 2]), held_out_y=torch.tensor([1, 1, 0]))
    assert data.outputs == 3


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dataset(task="ranking"), ValueError, "task must be .* got 'ranking'"),
        (lambda: dataset(x=torch.zeros(3)), ValueError, r"\(examples, features\), got \(3,\)"),
        (lambda: dataset(x=torch.zeros(3, 2).long()), TypeError, "floating point, got torch.int64"),
        (lambda: dataset(x=[[1.0]]), TypeError, "must be tensors, got list"),
        (lambda: dataset(y=torch.zeros(2)), ValueError, r"shape \(3,\).* got \(2,\)"),
        (lambda: dataset(y=torch.tensor([0.0, 1.0, 2.0])), ValueError, "must be 0 or 1, got 2.0"),
        (
            lambda: dataset(x=torch.tensor([[0, 0], [torch.nan, 0], [0, torch.inf]])),
            ValueError,
            "2 values that are NaN or infinite",
        ),
        (lambda: dataset(y=torch.tensor([0, 1, 1])), TypeError, "floating point for task 'binary'"),
        (
            lambda: dataset("regression", y=torch.tensor([0.0, torch.nan, 1.0])),
            ValueError,
            "1 value that",
        ),
        (lambda: dataset("multiclass"), TypeError, "must be integers, got torch.float32"),
        (
            lambda: dataset("multiclass", y=torch.tensor([True, False, True])),
            TypeError,
            "training labels of classes must be integers, got torch.bool",
        ),
        (
            lambda: dataset("multiclass", y=torch.tensor([0, 1, 1])),
            TypeError,
            "held-out labels of classes must be integers, got torch.float32",
        ),
        (
            lambda: dataset("binary", y=torch.tensor([True, False, True])),
            TypeError,
            "floating point for task 'binary', got torch.bool",
        ),
        (
            lambda: dataset(
                "multiclass", y=torch.tensor([0, 2, 1]), held_out_y=torch.tensor([0, 1, 3])
            ),
            ValueError,
            "held-out labels must be classes of the training part, 0 … 2, got 3",
        ),
        (
            lambda: dataset(
                "multiclass", y=torch.zeros(3).long(), held_out_y=torch.zeros(3).long()
            ),
            ValueError,
            "2 classes or more, got class 0 alone",
        ),
        (lambda: moons(noise=np.nan), ValueError, "noise must be finite, got nan"),
        (lambda: spirals(noise=np.inf), ValueError, "noise must be finite, got inf"),
        (lambda: dose_response(held_out_noise=np.nan), ValueError, "held_out_noise must be finite"),
        (lambda: moons(examples=20.5), ValueError, "examples must be a whole number, got 20.5"),
        (lambda: wave(held_out=2.5), ValueError, "held_out must be a whole number"),
        (lambda: spirals(classes=2.5), ValueError, "classes must be a whole number"),
        (lambda: spirals(seed=2**32), ValueError, "seed must lie in 0 .* got 4294967296"),
        (lambda: moons(seed=1.9), ValueError, "seed must be a whole number, got 1.9"),
        (lambda: moons(held_out_seed=-1), ValueError, "held_out_seed must lie in 0 .* got -1"),
        (lambda: exclusive_or(seed=2**32), ValueError, "seed must lie in 0 .* got 4294967296"),
        (lambda: dose_response(seed=2**32), ValueError, "seed must lie in 0 .* got 4294967296"),
        (lambda: digits(seed=2**32), ValueError, "seed must lie in 0 .* got 4294967296"),
        (lambda: digits(examples=20.5), ValueError, "examples must be a whole number, got 20.5"),
        (
            lambda: dataset("multiclass", y=torch.tensor([0, -1, 1])),
            ValueError,
            "0 or greater, got -1",
        ),
        (lambda: dataset(x=torch.zeros(3, 4)), ValueError, "same number of features, got 4 and 2"),
        (lambda: moons(examples=1), ValueError, "examples must be at least 2, got 1"),
        (lambda: moons(noise=-1.0), ValueError, "noise must be at least 0, got -1"),
        (lambda: dose_response(examples=1), ValueError, "examples must be at least 2, got 1"),
        (lambda: dose_response(noise=-1.0), ValueError, "noise must be at least 0, got -1"),
        (lambda: dose_response(held_out_noise=-1.0), ValueError, "held_out_noise must be at"),
        (lambda: wave(held_out=1), ValueError, "held_out must be at least 2, got 1"),
        (lambda: spirals(classes=1), ValueError, "classes must be at least 2, got 1"),
        (lambda: spirals(examples=2), ValueError, "examples must be at least 3, got 2"),
        (lambda: spirals(noise=-1.0), ValueError, "noise must be at least 0, got -1"),
        (lambda: spirals(seed=3, held_out_seed=3), ValueError, "must differ from seed, got 3"),
        (lambda: moons(seed=3, held_out_seed=3), ValueError, "must differ from seed, got 3"),
    ],
)
def test_wrong_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("draw", [circles, exclusive_or, three_clusters])
def test_drawn_sets_repeat_and_keep_their_parts_apart(draw):
    first, again, other = draw(60, held_out=90), draw(60, held_out=90), draw(60, seed=7)
    assert first.x.shape == (60, 2) and first.held_out_x.shape == (90, 2)
    assert first.x.dtype == torch.float32
    torch.testing.assert_close(first.x, again.x, rtol=0, atol=0)
    assert not torch.equal(first.x, other.x)
    assert not torch.equal(first.x, first.held_out_x[:60])
    for wrong in ({"examples": 1}, {"noise": -1.0}, {"held_out_seed": 42}):
        with pytest.raises(ValueError, match="must"):
            draw(**wrong)


def test_exclusive_or_without_noise_is_the_truth_table():
    data = exclusive_or(8, noise=0.0)
    assert torch.equal(data.y, (data.x[:, 0] * data.x[:, 1] < 0).float())
    assert data.x.abs().eq(1).all()


def test_circles_without_noise_have_their_radii():
    data = circles(20, noise=0.0)
    torch.testing.assert_close(data.x.norm(dim=1), torch.where(data.y == 1, 0.5, 1.0))


def test_circles_are_scikit_learns_in_both_parts():
    data = circles(40, 0.2, seed=3, held_out=30, held_out_seed=4)
    for x, y, count, state in ((data.x, data.y, 40, 3), (data.held_out_x, data.held_out_y, 30, 4)):
        expected = make_circles(n_samples=count, noise=0.2, factor=0.5, random_state=state)
        assert np.array_equal(x.numpy(), expected[0].astype(np.float32))
        assert np.array_equal(y.numpy(), expected[1])


@pytest.mark.parametrize("draw", [exclusive_or, three_clusters])
def test_clusters_are_their_centres_plus_the_noise_asked_for(draw):
    data, centres = (draw(6000, noise=noise, held_out=6000) for noise in (0.5, 0.0))
    for with_noise, without in ((data.x, centres.x), (data.held_out_x, centres.held_out_x)):
        assert (with_noise - without).std().item() == pytest.approx(0.5, rel=0.03)
    assert torch.equal(data.y, centres.y)


def test_three_clusters_are_corners_of_an_equilateral_triangle():
    data = three_clusters(6, noise=0.0)
    assert data.outputs == 3
    distances = torch.cdist(data.x, data.x)
    torch.testing.assert_close(distances[data.y[:, None] != data.y], torch.full((24,), 2.0))


def test_digits_are_scaled_by_the_training_part():
    data = digits(200, 100)
    assert data.outputs == 10 and data.x.shape == (200, 64)
    varying = data.x.std(0, correction=0) > 0
    torch.testing.assert_close(data.x.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        data.x[:, varying].std(0, correction=0), torch.ones(int(varying.sum()))
    )
    assert torch.equal(data.held_out_x[:, ~varying], torch.zeros(100, int((~varying).sum())))
    with pytest.raises(ValueError, match="1797 examples for both parts together"):
        digits(1000, 1000)


def test_each_draw_of_moons_has_random_states_of_its_own():
    for number, expected in ((0, moons()), (3, moons(seed=45, held_out_seed=1045))):
        found = moons_draw(number)
        for name in ("x", "y", "held_out_x", "held_out_y"):
            assert torch.equal(getattr(found, name), getattr(expected, name))


# --- a person's own data ---


def test_data_frames_are_scaled_by_their_training_part():
    x, y = load_linnerud(return_X_y=True, as_frame=True)
    x["same"] = 3.0
    y = y[["Weight", "Pulse"]]
    data = from_arrays("Fitness", "regression", (x[:15], y[:15]), (x[15:], y[15:]), scaled=True)
    for table, training, held_out in ((x, data.x, data.held_out_x), (y, data.y, data.held_out_y)):
        scaler = StandardScaler().fit(table[:15].to_numpy())
        for part, found in ((table[:15], training), (table[15:], held_out)):
            expected = torch.from_numpy(scaler.transform(part.to_numpy())).float()
            torch.testing.assert_close(found, expected)
    assert data.outputs == 2
    assert (data.x[:, -1] == 0).all()


def test_labels_of_classes_are_not_scaled_and_lists_are_arrays():
    frame = pandas.DataFrame({"a": [1.0, 2.0, 6.0], "b": [0.0, 1.0, 2.0]})
    data = from_arrays("three", "multiclass", (frame, [0, 2, 1]), ([[3.0, 1.0]], [2]), scaled=True)
    assert data.y.tolist() == [0, 2, 1] and data.y.dtype == torch.int64
    torch.testing.assert_close(data.held_out_x, torch.zeros(1, 2))
    plain = from_arrays("three", "multiclass", (frame, [0, 2, 1]), ([[3.0, 1.0]], [2]))
    assert plain.x.tolist() == frame.to_numpy().tolist()


def test_labels_of_several_numbers_must_fit():
    x, y = torch.zeros(4, 2), torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"same number of outputs, got shapes \(4, 2\) and \(4,\)"):
        Dataset("two", "regression", x, y, x, y[:, 0])
    for task, labels in (("regression", y[:3]), ("binary", y), ("regression", y[:, :1])):
        with pytest.raises(ValueError, match=r"training labels must have shape \(4,\)"):
            Dataset("two", task, x, labels, x, labels)
