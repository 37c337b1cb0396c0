"""What the notebook rai-grads measures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.models import (
    StackedMLP,
    pre_activations,
)

Array = NDArray[np.float64]


def spread_across_examples(model: StackedMLP, x: Tensor) -> Array:
    """How far the examples lie apart in each layer of the plain forward pass.

    Standard deviation of z_t across examples, root mean square over units, computed in float64
    from the values that the network's own precision gives: 0 means that the layer no longer
    tells any two examples apart.

    Args:
        model: the networks.
        x: inputs, (examples, features).

    Returns:
        (T, seeds).
    """
    spreads = [
        z.double().var(1, correction=0).mean(1).sqrt() for z in pre_activations(model, x)
    ]  # each (seeds,)
    return torch.stack(spreads).cpu().numpy()
