"""What rai-grads measures."""

import numpy as np
import pytest
import torch

from rai_utils.data import moons
from rai_utils.experiments import rai_grads
from rai_utils.experiments.rai_grads import spread_across_examples
from rai_utils.models import Architecture, build_mlp
from rai_utils.training import Phase, Watch, fit_backprop, fit_relaxed


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


@pytest.mark.parametrize(("method", "fit"), [("RAI", fit_relaxed), ("backprop", fit_backprop)])
@pytest.mark.parametrize("network", [0, 2])
def test_a_long_run_is_the_fit_of_its_own_network_on_its_own_draw(
    method, fit, network, monkeypatch
):
    monkeypatch.setattr(rai_grads, "HIDDEN_LAYERS", 2)
    monkeypatch.setattr(rai_grads, "WIDTH", 5)
    found = rai_grads.long_cell(method, network, "float64", 12)
    start = build_mlp(Architecture((2, 5, 5, 1)), [network], dtype=torch.float64)
    data = moons(seed=42 + network, held_out_seed=1042 + network)
    watch = Watch(evaluate_at=found["evaluated_at"], inspect_at=[12])
    history = fit(start, data, Phase(12, 0.1), watch=watch, device="cpu").history
    assert (found["evaluated_at"][0], found["evaluated_at"][-1]) == (0, 12)
    assert found["train"] == history.accuracy[:, 0].tolist()
    assert found["held_out"] == history.held_out_accuracy[:, 0].tolist()
    assert found["loss_at_end"] == history.loss[-1, 0]
    np.testing.assert_allclose(found["gradient_norms"], history.gradient_norms[-1, :, 0], rtol=1e-3)
    assert 0 < found["map_range"] <= 1 and found["map"] is None and found["failures"] == 0
    shown = rai_grads.long_cell(method, 0, "float32", 1)["map"]
    assert np.shape(shown) == (rai_grads.RESOLUTION, rai_grads.RESOLUTION)
