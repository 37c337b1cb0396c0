import json

import numpy as np
from PIL import Image

from rai_utils import plotting
from rai_utils.publishing.strip import PICTURE, STRIPS, write_strip
from rai_utils.recording import as_json, record_of


def test_each_map_of_the_figures_is_a_frame(tmp_path):
    write_strip(tmp_path)
    assert not (tmp_path / PICTURE).exists()
    plotting.use_style()
    grid = np.linspace(-1, 1, 4)
    for name in STRIPS:
        figure, panels = plotting.figure(columns=2)
        for axes, level in zip(panels, (0.1, 0.9), strict=True):
            named = {"title": f"step {level}", "key": False}
            plotting.landscape(axes, grid, grid, np.full((4, 4), level), [[0, 0]], [1], **named)
        plotting.landscape_colour_bar(figure, panels)
        data = tmp_path / "figures" / f"{name}.json"
        data.parent.mkdir(parents=True)
        data.write_text(as_json(record_of(figure)))
        assert json.loads(data.read_text())["steps"][0]["named"]["title"] == "step 0.1"
    write_strip(tmp_path)
    written = (tmp_path / PICTURE).read_bytes()
    with Image.open(tmp_path / PICTURE) as moving:
        assert moving.n_frames == 4
        frames = []
        for number in range(4):
            moving.seek(number)
            frames.append(np.asarray(moving.convert("RGB"), dtype=float))
    centre = [frame[frame.shape[0] // 2, frame.shape[1] // 3] for frame in frames]
    assert np.abs(centre[0] - centre[1]).sum() > 100  # another level, another colour
    write_strip(tmp_path)
    assert (tmp_path / PICTURE).read_bytes() == written
