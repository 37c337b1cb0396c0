"""The boundary of two deep networks while they train, as a moving picture for the README.

``figures/boundaries.gif`` is drawn from the data of two published figures, frame by frame, as
`make restyle` draws them: RAI from its usual start, and from a guided one.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from rai_utils.plotting import use_style
from rai_utils.recording import bare, redraw

STRIPS = {"rai-mechanism/boundary-strip": "", "rai-guided-starts/maps": "guided start, "}
"""The figures whose maps are shown, and what is set before their titles."""

MAP = "rai_utils.plotting.landscape"
PICTURE = Path("figures", "boundaries.gif")
WIDTH, DOTS_PER_INCH = 3.0, 130
MILLISECONDS = 1100


def write_strip(folder: Path) -> None:
    """Write the moving picture, if the two figures are published with their data."""
    files = {folder / "figures" / f"{name}.json": words for name, words in STRIPS.items()}
    if not all(file.is_file() for file in files):
        return
    frames = []
    with mpl.rc_context():
        use_style(WIDTH)
        for file, words in files.items():
            record = json.loads(file.read_text(encoding="utf-8"))
            maps = [step for step in record["steps"] if step.get("call") == MAP]
            frames += [_frame(step, words) for step in maps]
    first, *others = frames
    loop: dict[str, Any] = {"save_all": True, "append_images": others, "loop": 0}
    first.save(folder / PICTURE, duration=MILLISECONDS, optimize=True, **loop)


def _frame(step: dict[str, Any], words: str) -> Image.Image:
    """Draw one map of a figure as a figure of its own, with few colours."""
    made = {"call": "rai_utils.plotting.figure", "named": {"panel_height": 0.9 * WIDTH}}
    title = words + step["named"]["title"]
    alone = {**step, "named": {**step["named"], "axes": {"is": "panel 1"}, "title": title}}
    figure = bare(redraw({"figure": made, "steps": [alone]}))
    figure.set_dpi(DOTS_PER_INCH)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    plt.close(figure)
    return Image.fromarray(pixels).quantize(96, dither=Image.Dither.NONE)
