"""Checks of arguments, and the plain numbers they give.

Callers may hold the numbers of numpy and torch, and any sequence or array of them; what is kept is
Python's own. A number that is not finite, or a fraction where a whole number is meant, is refused.
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
    """Return ``value`` as a float.

    Args:
        value: a number of Python, or of numpy or torch without an axis.
        name: what the message calls it.
        above: the limit that it must be above; None for none.
        least: the least that it may be; None for no limit.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN or infinite, or out of range.
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


def numbers(
    values: Any,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
) -> tuple[float, ...]:
    """Return a sequence or array of numbers as floats; arguments and errors as ``number``."""
    items = _items(values, name)
    return tuple(number(item, name, above=above, least=least) for item in items)


def one_of(value: Any, known: Iterable[str], name: str) -> str:
    """Return ``value`` if it is one of the known texts.

    Raises:
        ValueError: it is not.
    """
    known = tuple(known)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return value


def one_each(values: Any, networks: int, name: str, **limits: float) -> tuple[float, ...]:
    """Return numbers, one for each of so many networks, as floats.

    Args:
        values: a sequence or array.
        networks: how many there must be.
        name: of one of them.
        limits: as in ``number``.

    Raises:
        TypeError: as ``number``.
        ValueError: as ``number``, or another count.
    """
    each = numbers(values, name, **limits)
    if len(each) != networks:
        raise ValueError(
            f"there must be one {name} for each of the {networks} networks, got {len(each)}"
        )
    return each


def whole_number(value: Any, name: str, least: int = 0, most: int | None = None) -> int:
    """Return ``value`` as an int.

    Args:
        value: a whole number of Python, or of numpy or torch without an axis.
        name: what the message calls it.
        least: the least that it may be.
        most: the greatest that it may be; None for no limit.

    Raises:
        ValueError: it is no whole number, or out of range.
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
    """Return a sequence or array of whole numbers as ints.

    Arguments and errors as ``whole_number``.

    Raises:
        TypeError: ``values`` is no sequence of numbers.
    """
    return tuple(whole_number(item, name, least, most) for item in _items(values, name))


def seeded(seed: Any, name: str = "seed") -> torch.Generator:
    """Return a generator of torch for a seed of 0 … 2³² − 1.

    Raises:
        ValueError: another seed.
    """
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
