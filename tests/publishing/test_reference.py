import html
import importlib
import re

import pytest

from rai_utils import relaxation
from rai_utils.publishing.reference import modules_in_order, public_members, reference


def test_modules_come_after_what_they_import():
    """Which is not possible where two of them import each other."""
    order = modules_in_order()
    assert order.index("models") < order.index("relaxation") < order.index("training")
    assert order.index("publishing.chapters") < order.index("publishing.report")
    assert order.index("experiments.sweep") < order.index(
        "experiments.rai_questions_initialisation"
    )
    rooms = [name.rpartition(".")[0].partition(".")[0] for name in order]
    assert list(dict.fromkeys(rooms)) == ["", "publishing", "experiments"]
    assert rooms == sorted(rooms, key=["", "publishing", "experiments"].index)
    assert len(set(order)) == len(order)
    assert not any(name.endswith("__init__") for name in order)


def test_only_own_public_members_are_listed():
    names = [name for name, _ in public_members(relaxation)]
    assert "relax" in names
    assert "Targets" in names
    assert "Architecture" not in names
    assert not any(name.startswith("_") for name in names)


@pytest.mark.slow
def test_the_reference_shows_signature_and_docstring_of_everything_public():
    text = html.unescape(reference())
    for name in modules_in_order():
        module = importlib.import_module(f"rai_utils.{name}")
        assert f'id="api-{name}"' in text
        for label, member in public_members(module):
            assert re.search(rf"{name}\.{label}\b", text), label
            assert member.__doc__.strip().splitlines()[0].strip() in text, label
    assert "relaxation.relax(module" in text
