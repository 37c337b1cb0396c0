"""Draw published figures again in another style, width or format, from their published data.

``python -m rai_utils.publishing.restyle --style my.mplstyle --width 5.5 --format svg rai-grads``
draws every figure of a set, or ``rai-grads/deep-training`` for one; without names, all there are.
Nothing is trained: a figure is drawn from the JSON beside it, by the steps that drew it first
(:mod:`rai_utils.recording`). What `plotting` gives to a method or an activation stays.
``--style slides`` is the one style that comes with the study.
"""

import argparse
import difflib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib import style as styles

from rai_utils.plotting import use_style
from rai_utils.publishing.catalogue import published_sets
from rai_utils.publishing.claims import root, save_figure
from rai_utils.publishing.pipeline import replace_unprintable
from rai_utils.recording import redraw

SLIDES = Path(__file__).with_name("slides.mplstyle")
FORMATS = ("pdf", "png", "svg")
LEAST_WIDTH, GREATEST_WIDTH = 2.0, 12.0  # inches


def restyle(
    figures: Sequence[str] = (),
    *,
    style: str = "",
    width: str = "",
    format: str = "",
    folder: Path | None = None,
) -> Iterator[Path]:
    """Draw published figures into ``build/restyled/``, and yield each file when it is written.

    Args:
        figures: names of sets, or of figures as ``set/figure``; all without any.
        style: a matplotlib style, by file or by name, on top of the study's; none if empty. One
            that sets ``figure.figsize`` gives each figure that shape, or more height.
        width: width in inches, from 2 to 12; the style's if empty.
        format: pdf, png or svg; pdf if empty.
        folder: the checkout.

    Raises:
        ValueError: an unknown figure, style or format, or a width out of range; before any drawing.
    """
    folder = root() if folder is None else folder
    chosen = _chosen(figures, folder)
    if style == SLIDES.stem:
        style = str(SLIDES)
    if style and style not in styles.available and not Path(style).is_file():
        raise ValueError(f"STYLE must be a file or a style of matplotlib, got {style!r}")
    if format and format not in FORMATS:
        raise ValueError(f"FORMAT must be {', '.join(FORMATS)}, got {format!r}")
    inches = _inches(width) if width else None
    plt.switch_backend("agg")
    use_style()
    study = mpl.rcParams["figure.figsize"]
    if style:
        styles.use(style)
    across, up = mpl.rcParams["figure.figsize"]
    shape = 0.0 if [across, up] == study else up / across
    if inches is not None:
        mpl.rcParams["figure.figsize"] = inches, up
    for name in chosen:
        data = folder / "figures" / f"{name}.json"
        target = folder / "build" / "restyled" / f"{name}.{format or 'pdf'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        figure = redraw(json.loads(data.read_text(encoding="utf-8")))
        figure.set_figheight(max(figure.get_figheight(), shape * figure.get_figwidth()))
        save_figure(figure, target)
        plt.close("all")
        yield target


def _chosen(figures: Sequence[str], folder: Path) -> list[str]:
    sets = published_sets(folder)
    known = {name: [f"{name}/{figure}" for figure in sets[name]["figures"]] for name in sets}
    every = [figure for own in known.values() for figure in own]
    chosen = []
    for name in figures:
        if name not in every and name not in known:
            near = difflib.get_close_matches(name, [*known, *every], n=3, cutoff=0.4)
            raise ValueError(
                f"FIGURES must name sets or set/figure, got {name!r}"
                + (f"; the nearest are {', '.join(near)}" if near else "")
            )
        chosen += known.get(name, [name])
    return chosen or every


def _inches(width: str) -> float:
    try:
        inches = float(width)
    except ValueError:
        inches = float("nan")
    if not LEAST_WIDTH <= inches <= GREATEST_WIDTH:
        raise ValueError(
            f"WIDTH must be {LEAST_WIDTH:g} to {GREATEST_WIDTH:g} inches, got {width!r}"
        )
    return inches


def main(arguments: Sequence[str] | None = None, folder: Path | None = None) -> int:
    """Run the command line; return 0, or 2 where it was refused."""
    parser = argparse.ArgumentParser(prog="python -m rai_utils.publishing.restyle")
    parser.add_argument("figures", nargs="*")
    for option in ("style", "width", "format"):
        parser.add_argument(f"--{option}", default="")
    chosen = vars(parser.parse_args(arguments))
    replace_unprintable()
    start = time.monotonic()
    try:
        files = list(restyle(chosen.pop("figures"), **chosen, folder=folder))
    except (ValueError, OSError) as error:
        print(f"restyle: {error}", file=sys.stderr)
        return 2
    place = os.path.commonpath([file.parent for file in files])
    print(f"restyle  {len(files)} figures in {time.monotonic() - start:.0f} s -> {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
