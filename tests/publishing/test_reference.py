import html
import importlib
import re

import pytest

from rai_utils import relaxation
from rai_utils.publishing.reference import modules_in_order, public_members, reference


def test_modules_come_after_what_they_import():
    order = modules_in_order()
    assert order.index("models") < order.index("relaxation") < order.index("training")
    assert order.index("chapters") < order.index("report")
    assert len(set(order)) == len(order)
    assert "__init__" not in order


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
