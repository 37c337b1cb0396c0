"""The ten problems: how they are split, scaled and drawn."""

import numpy as np
import pytest
import torch

from rai_utils.experiments.rai_questions_generalisation.benchmarks import BENCHMARKS, benchmark


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_are_split_in_three_and_scaled_by_the_training_part(name):
    split = benchmark(name, 1)
    data, judged = split.validation, split.test
    assert data.task == BENCHMARKS[name].task
    assert torch.equal(data.x, judged.x) and torch.equal(data.y, judged.y)
    x, y = BENCHMARKS[name].draw(1)
    parts = [data.x, data.held_out_x, judged.held_out_x]
    assert sum(map(len, parts)) == len(y)
    assert len(data.held_out_y) == len(judged.held_out_y) == len(y) // 5
    # Undo the scaling of the training part: every example comes back, once.
    spread = data.x.double().std(0, correction=0)
    assert torch.allclose(data.x.double().mean(0), torch.zeros(x.shape[1]).double(), atol=1e-5)
    assert torch.allclose(spread[spread > 0], torch.ones(()).double(), atol=1e-4)
    together = torch.cat(parts).double().numpy()
    kept = (x.std(0) > 0) & (spread > 0).numpy()
    for ours, theirs in zip(np.sort(together[:, kept].T), np.sort(x[:, kept].T), strict=True):
        a, b = np.polyfit(ours, theirs, 1)
        np.testing.assert_allclose(a * ours + b, theirs, atol=1e-4 * np.abs(theirs).max())
    if data.task == "regression":
        assert data.y.mean().abs() < 1e-5
        assert data.y.std(correction=0) == pytest.approx(1, abs=1e-5)
    else:
        shares = [torch.bincount(part.long()) / len(part) for part in (data.y, judged.held_out_y)]
        assert (shares[0] - shares[1]).abs().max() < 0.05


def test_a_benchmark_depends_on_its_split_alone():
    for name in ("iris", "friedman2"):
        again, first, other = benchmark(name, 3), benchmark(name, 3), benchmark(name, 4)
        assert torch.equal(again.test.held_out_x, first.test.held_out_x)
        assert not torch.equal(other.test.held_out_x, first.test.held_out_x)
    assert len(benchmark("digits", 0, 250).validation.x) == 150


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist", 0), "benchmark must be one of .* got 'mnist'"),
        (("iris", -1), "split must lie in 0 … .* got -1"),
        (("iris", 0, 151), "examples of iris must lie in 30 … 150, got 151"),
        (("iris", 0, 29), "got 29"),
        (("iris", 1.5), "split must be a whole number, got 1.5"),
        (("iris", 0, 40.5), "examples of iris must be a whole number, got 40.5"),
    ],
)
def test_impossible_benchmarks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        benchmark(*arguments)


FRIEDMAN = {
    "friedman1": lambda x: (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
    ),
    "friedman2": lambda x: np.hypot(x[:, 0], x[:, 1] * x[:, 2] - 1 / (x[:, 1] * x[:, 3])),
    "friedman3": lambda x: np.arctan((x[:, 1] * x[:, 2] - 1 / (x[:, 1] * x[:, 3])) / x[:, 0]),
}


@pytest.mark.parametrize("name", FRIEDMAN)
def test_the_noise_of_the_friedman_problems_is_what_is_said(name):
    draws = [BENCHMARKS[name].draw(split) for split in range(20)]
    clean = np.concatenate([FRIEDMAN[name](x) for x, _ in draws])
    noise = np.concatenate([y for _, y in draws]) - clean
    assert abs(noise.mean()) < 0.05 * noise.std()
    expected = 1.0 if name == "friedman1" else clean.std() / 3
    assert noise.std() == pytest.approx(expected, rel=0.1)
