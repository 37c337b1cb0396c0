"""Checks of arguments, and the plain numbers they give.

Callers may hold the numbers of numpy and torch, and any sequence or array of them; what is kept is
Python's own. A number that is not finite, or a fraction where a whole number is meant, is refused:
what is no number with a TypeError, what is none of those asked for with a ValueError. ``name`` is
what the message calls it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

# torch's generators keep 32 bits of a seed on the CPU: 2³² would draw what 0 draws.
LAST_SEED = 2**32 - 1


def number(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
) -> float:
    """Return a number of Python, or of numpy or torch without an axis, as a float within limits.

    It must be above ``above`` and ``least`` at least, where these are given.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(plain):
        raise ValueError(f"{name} must be finite, got {plain}")
    if above is not None and plain <= above:
        raise ValueError(f"{name} must be above {above:g}, got {plain}")
    if least is not None and plain < least:
        raise ValueError(f"{name} must be at least {least:g}, got {plain}")
    return float(plain)


def numbers(values: Any, name: str, **limits: float) -> tuple[float, ...]:
    """Return a sequence or array of numbers as floats, each as by ``number``."""
    return tuple(number(item, name, **limits) for item in _items(values, name))


def one_of(value: Any, known: Iterable[str], name: str) -> str:
    """Return ``value`` if it is one of the known texts."""
    known = tuple(known)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return value


def one_each(values: Any, networks: int, name: str, **limits: float) -> tuple[float, ...]:
    """Return numbers, one for each of so many networks, as floats; limits as in ``number``."""
    each = numbers(values, name, **limits)
    if len(each) != networks:
        raise ValueError(
            f"there must be one {name} for each of the {networks} networks, got {len(each)}"
        )
    return each


def whole_number(value: Any, name: str, least: int = 0, most: int | None = None) -> int:
    """Return a whole number of Python, or of numpy or torch without an axis, as an int.

    It must lie in ``least`` … ``most``, or be at least ``least``. What is no whole number is
    refused with a ValueError, whatever it is.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, int):
        raise ValueError(f"{name} must be a whole number, got {plain!r}")
    if plain < least or (most is not None and plain > most):
        limits = f"be at least {least}" if most is None else f"lie in {least} … {most}"
        raise ValueError(f"{name} must {limits}, got {plain}")
    return plain


def whole_numbers(
    values: Any, name: str, least: int = 0, most: int | None = None
) -> tuple[int, ...]:
    """Return a sequence or array of whole numbers as ints, each as by ``whole_number``."""
    return tuple(whole_number(item, name, least, most) for item in _items(values, name))


def seeded(seed: Any, name: str = "seed") -> torch.Generator:
    """Return a generator of torch for a seed of 0 … 2³² − 1."""
    return torch.Generator().manual_seed(whole_number(seed, name, most=LAST_SEED))


def _plain(value: Any) -> Any:
    """Return what a scalar of numpy or a tensor without an axis holds, anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _items(values: Any, name: str) -> Sequence[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}")
    try:
        return list(values)
    except TypeError:  # an array without an axis
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}") from None
