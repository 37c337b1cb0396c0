"""Compares what each notebook computed just now with what it published.

``make test`` runs the notebooks through nbval just before: they write into ``build/scratch``.
"""

import pytest

from rai_utils.publishing.claims import read_metrics
from rai_utils.publishing.comparison import disagreements
from rai_utils.publishing.pipeline import ROOT
from rai_utils.publishing.sources import notebook_sources


def test_the_published_numbers_are_what_the_notebook_computes(notebook_name):
    scratch = ROOT / "build" / "scratch" / notebook_name / "metrics.json"
    assert scratch.is_file(), "the notebook has not published in build/scratch: run make test"
    notebook = ROOT / "notebooks" / f"{notebook_name}.ipynb"
    newest = max([notebook, *notebook_sources(notebook, ROOT)], key=modified)
    assert modified(scratch) > modified(newest), f"older than {newest.name}: run make test"
    published = read_metrics(ROOT / "figures" / notebook_name)
    assert disagreements(published, read_metrics(scratch.parent)) == []


def modified(path):
    return path.stat().st_mtime_ns


# --- the comparison itself ---


def record(**changes):
    metric = {"value": 1.0, "tolerance": 0.1, "interval": [0.5, 1.5], "seeds": 3}
    claim = {
        "id": "P8",
        "statement": "s",
        "measured": 0.9,
        "interval": None,
        "seeds": None,
        "rule": "≥ 0.5",
        "verdict": "reproduced",
        "tolerance": 0.05,
        "numbers": {"line": {"value": 0.88, "tolerance": 0.02}},
    }
    return {
        "parameters": {"seeds": 3},
        "metrics": {"loss": metric | changes.get("metric", {})},
        "claims": [claim | changes.get("claim", {})],
        "figures": ["curve"],
    } | changes.get("set", {})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"metric": {"value": 1.09}},
        {"metric": {"interval": [0.45, 1.55]}},
        {"claim": {"measured": 0.86}},
        {"claim": {"numbers": {"line": {"value": 0.895, "tolerance": 0.02}}}},
    ],
)
def test_what_is_within_its_tolerance_agrees(changes):
    assert disagreements(record(), record(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"metric": {"value": 1.11}}, "loss: value published 1.0, computed 1.11, tolerance 0.1"),
        ({"metric": {"value": None}}, "loss: value published 1.0, computed None"),
        ({"metric": {"interval": [0.39, 1.5]}}, "loss: low published 0.5, computed 0.39"),
        ({"metric": {"interval": [0.5, 1.7]}}, "loss: high published 1.5, computed 1.7"),
        ({"metric": {"interval": None}}, "loss: interval published"),
        ({"claim": {"measured": 0.84}}, "P8: value published 0.9, computed 0.84"),
        ({"claim": {"verdict": "partly"}}, "P8: verdict published 'reproduced'"),
        ({"claim": {"rule": "≥ 0.4"}}, "P8: rule published"),
        (
            {"claim": {"numbers": {"line": {"value": 0.91, "tolerance": 0.02}}}},
            "P8, line: value published 0.88, computed 0.91, tolerance 0.02",
        ),
        (
            {"claim": {"numbers": {"line": {"value": None, "tolerance": 0}}}},
            "P8, line: value published 0.88, computed None",
        ),
        ({"claim": {"numbers": {}}}, "P8: numbers published ['line'], computed []"),
        ({"claim": {"id": "P9"}}, "claims: published"),
        ({"set": {"metrics": {}}}, "metrics: published"),
        ({"set": {"figures": []}}, "figures: published"),
        ({"set": {"parameters": {"seeds": 4}}}, "parameters: published"),
    ],
)
def test_what_does_not_agree_is_named(changes, line):
    (found,) = disagreements(record(), record(**changes))
    assert found.startswith(line)


def test_a_number_that_does_not_exist_agrees_with_itself():
    none = record(metric={"value": None})
    assert disagreements(none, none) == []
