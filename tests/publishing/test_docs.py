import html
import inspect
import re
import subprocess
import sys
from pkgutil import walk_packages

import pytest

import rai_utils
from rai_utils import relaxation
from rai_utils.publishing.pipeline import ROOT

# The source is not coloured, which would take as long as all else.
BUILD = """\
import pathlib, sys
from pdoc import render_helpers
from pygments.lexers import TextLexer
from rai_utils.publishing import docs
render_helpers.lexer = TextLexer()
docs.build(pathlib.Path(sys.argv[1]))"""


@pytest.mark.slow
def test_the_pages_show_everything_public_and_need_no_network(tmp_path):
    # In a process of its own: the package gets names that are imported on demand elsewhere.
    ran = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    for module in walk_packages(rai_utils.__path__, "rai_utils."):
        written = tmp_path.joinpath(*module.name.split(".")).with_suffix(".html").is_file()
        # One module runs in an environment of its own and cannot be read in this one.
        assert written == (module.name != "rai_utils.experiments.peers_jax")
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert not any(re.search(r'(?:src|<link[^>]*href)="http', page) for page in pages.values())

    front = pages[tmp_path / "rai_utils.html"]
    assert all(f'id="{name}"' in front for name in rai_utils.__all__)
    rooms = re.findall(r'<a href="rai_utils/(\w+)\.html">', front)
    assert {"relaxation", "training"} < set(rooms[:-2])  # the core first
    assert rooms[-2:] == ["experiments", "publishing"]

    page = pages[tmp_path / "rai_utils" / "relaxation.html"]
    own = [
        (name, member)
        for name, member in vars(relaxation).items()
        if getattr(member, "__module__", "") == relaxation.__name__ and inspect.isroutine(member)
    ]
    for name, member in own:
        assert (f'id="{name}"' in page) == (not name.startswith("_"))
        if not name.startswith("_"):
            words = html.unescape(re.sub("<[^>]+>", "", page)).replace("`", "")
            assert member.__doc__.splitlines()[0].replace("`", "") in words
    assert 'id="Architecture"' not in page  # of another module
    assert re.search(r'<code><a href="[^"]*#relaxed_loss">', page)  # a name in prose is a link
    assert "ẑ_{t+1}ⁱ = f_t(z_tⁱ, θ_t)" in page
