"""What counts as a number, a whole number, a sequence and a seed, wherever one is asked for."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from rai_utils.checks import number, numbers, one_each, one_of, seeded, whole_number, whole_numbers


@pytest.mark.parametrize(
    "value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3), torch.tensor(3).short()]
)
def test_a_whole_number_of_numpy_or_torch_is_pythons(value):
    assert whole_number(value, "steps") == 3 and type(whole_number(value, "steps")) is int
    assert number(value, "rate") == 3.0 and type(number(value, "rate")) is float


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_a_number_of_numpy_or_torch_is_pythons(value):
    assert number(value, "rate") == 0.5 and type(number(value, "rate")) is float


@pytest.mark.parametrize(
    "value", [1.5, 2.0, np.float64(2), "2", None, True, np.True_, [2], np.array([2]), 1j]
)
def test_anything_else_is_no_whole_number(value):
    with pytest.raises(ValueError, match=r"steps must be a whole number, got "):
        whole_number(value, "steps")


@pytest.mark.parametrize("value", ["0.1", None, True, [0.1], np.array([0.1]), 1j, Fraction(1, 2)])
def test_anything_else_is_no_number(value):
    with pytest.raises(TypeError, match=r"rate must be a number, got "):
        number(value, "rate")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_number_is_finite(value):
    with pytest.raises(ValueError, match=r"rate must be finite, got (nan|-?inf)"):
        number(value, "rate")
    with pytest.raises(ValueError, match=r"steps must be a whole number, got (nan|-?inf)"):
        whole_number(value, "steps")


def test_limits_are_kept_and_named():
    assert number(0, "decay", least=0) == 0
    assert whole_number(2, "layer", 2, 5) == 2 and whole_number(5, "layer", 2, 5) == 5
    for call, message in (
        (lambda: number(-1e-9, "decay", least=0), "decay must be at least 0, got -1e-09"),
        (lambda: number(0.0, "rate", above=0), "rate must be above 0, got 0.0"),
        (lambda: whole_number(-1, "step"), "step must be at least 0, got -1"),
        (lambda: whole_number(1, "layer", 2, 5), "layer must lie in 2 … 5, got 1"),
        (lambda: whole_number(6, "layer", 2, 5), "layer must lie in 2 … 5, got 6"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            call()


@pytest.mark.parametrize(
    "values",
    [[1, 2], (1, 2), range(1, 3), np.arange(1, 3), np.array([1, 2], np.uint8), torch.arange(1, 3)],
)
def test_any_sequence_or_array_will_do(values):
    assert whole_numbers(values, "seeds") == (1, 2)
    assert numbers(values, "rates", above=0) == (1.0, 2.0)
    assert one_each(values, 2, "rate") == (1.0, 2.0)


@pytest.mark.parametrize("values", ["12", 5, None, np.array(5), torch.tensor(5)])
def test_one_value_is_no_sequence(values):
    for convert in (numbers, whole_numbers):
        with pytest.raises(TypeError, match=r"seeds must be a sequence of numbers, got "):
            convert(values, "seeds")


def test_there_is_one_number_for_each_network():
    with pytest.raises(ValueError, match="one rate for each of the 3 networks, got 2"):
        one_each([0.1, 0.2], 3, "rate")
    with pytest.raises(ValueError, match=r"rate must be above 0, got 0\.0"):
        one_each([0.1, 0.0], 2, "rate", above=0)


def test_a_seed_that_torch_would_fold_is_refused():
    draws = [torch.rand(2, generator=seeded(seed)).tolist() for seed in (0, 1, 2**32 - 1)]
    expected = torch.rand(2, generator=torch.Generator().manual_seed(1)).tolist()
    assert draws[1] == expected
    assert draws[0] != draws[1] != draws[2] != draws[0]
    for seed, message in ((2**32, "lie in 0 … 4294967295"), (-1, "lie in 0"), (1.9, "whole")):
        with pytest.raises(ValueError, match=f"order_seed must .*{message}"):
            seeded(seed, "order_seed")


def test_one_of_several_texts():
    assert one_of("b", {"a": 1, "b": 2}, "letter") == "b"
    with pytest.raises(ValueError, match="letter must be one of a, b, got 'c'"):
        one_of("c", ("a", "b"), "letter")
