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
    # One experiment runs in an environment of its own, with packages that this one has not.
    experiments = import_module("rai_utils.experiments")
    names = (module.name for module in iter_modules(experiments.__path__))
    vars(experiments)["__all__"] = [name for name in names if name != "peers_jax"]
    pdoc.pdoc(package.__name__, output_directory=target)


if __name__ == "__main__":
    build(root() / "build" / "docs")
    print("docs  build/docs/index.html")
