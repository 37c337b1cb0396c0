"""What rai-grads measures."""

import pytest
import torch

from rai_utils.experiments.rai_grads import (
    spread_across_examples,
)
from rai_utils.models import Architecture, build_mlp


def test_spread_is_the_deviation_across_examples_and_0_where_they_fall_together():
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = build_mlp(Architecture((2, 3, 3, 1)), [0], dtype=torch.float64)
    z = x @ model.weights[0][0, 0].detach().T
    spread = spread_across_examples(model, x)
    assert spread.shape == (3, 1)
    assert spread[0, 0] == pytest.approx(z.var(0, correction=0).mean().sqrt().item())
    with torch.no_grad():
        model.weights[1].zero_()
    assert spread_across_examples(model, x)[1:].tolist() == [[0.0], [0.0]]
