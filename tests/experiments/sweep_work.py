"""The work of a made-up sweep, which its processes load in no time."""

import torch


def squares(number, counter=None):
    """A cell that says on disk that it ran."""
    if counter is not None:
        with open(counter, "a") as file:  # noqa: PTH123
            file.write(f"{number}\n")
    if number < 0:
        raise RuntimeError("interrupted")
    return {"square": number**2, "threads": torch.get_num_threads()}
