"""``make docs``: pages of every public function, class and module, read off their docstrings.

They need no network: equations are plain text, and the search runs in the page.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pdoc

from rai_utils.publishing.claims import root


def build(target: Path) -> None:
    """Write the pages into a folder: first what the package offers, then its modules."""
    package = import_module("rai_utils")
    offered = {name: getattr(package, name) for name in vars(package)["__all__"]}
    modules = sorted(iter_modules(package.__path__), key=lambda module: module.ispkg)
    # What is imported only when it is asked for has to be there, and the core stands first.
    vars(package).update(offered, __all__=[*offered, *(module.name for module in modules)])
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(package.__name__, output_directory=target)


if __name__ == "__main__":
    build(root() / "build" / "docs")
    print("docs  build/docs/index.html")
