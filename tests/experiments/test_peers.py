"""What the peers are given, and that nothing is timed that is not the same; jax is not needed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from rai_utils.experiments import peers
from rai_utils.models import Architecture


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_file_holds_the_networks_whose_energy_is_computed(tmp_path, activation):
    case = peers.make_case(Architecture((2, 4, 4, 3, 1), activation), 2, 0.1)
    peers.write_case(case, tmp_path / "case.npz")
    held = np.load(tmp_path / "case.npz")
    function = {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "relu": lambda z: np.maximum(z, 0)}
    for seed, energy in enumerate(peers.energies(case)):
        h, total = held["x"], 0.0
        for t in range(4):
            z = held[f"z{seed}_{t}"]
            total += ((z - h @ held[f"w{seed}_{t}"].T - held[f"b{seed}_{t}"]) ** 2).sum() / 2
            h = function[activation](z)
        np.testing.assert_array_equal(z, held["y"])
        assert energy == pytest.approx(total / len(held["x"]), rel=1e-5)


def test_networks_one_after_the_other_are_timed_as_one_step():
    run = peers.in_turn([lambda steps: [1.0] * steps, lambda steps: [2.0, 3.0]])
    assert run(2) == [3.0, 4.0]


def test_a_peer_with_another_energy_is_not_timed(tmp_path, monkeypatch):
    def wrong(peer, case, steps):
        return {"seconds": [1.0] * steps, "energies": [1.0]}

    monkeypatch.setitem(peers.CASES, "tiny", (Architecture((2, 3, 1)), 1, 0.1))
    with pytest.raises(RuntimeError, match="jpc must have the energies"):
        peers.measure("tiny", wrong, tmp_path)


def test_without_its_environment_the_process_is_missed(tmp_path):
    with (
        pytest.raises((RuntimeError, BrokenPipeError)),
        peers.start(Path(sys.executable)) as worker,  # which has no jax
    ):
        peers.ask(worker, "pcx", tmp_path / "none.npz", 1)
