"""The hidden terms of deep stacks by a C file, ``relaxation.c``, where there is a C compiler.

Optional: ``relaxation`` does the same with torch's operations, and is the reference that this is
tested against. A step of a deep network takes three quarters to nine tenths of the time
(``make bench``).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("relaxation.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
KINDS = {"sigmoid": 0, "tanh": 1, "relu": 2}  # as in the C file


@cache
def library() -> tuple[Any, ctypes.c_void_p] | None:
    """Compile the C file, or find it compiled; return its function and that of the products.

    The products are those of the BLAS that torch brings. Returns None, with a warning, where there
    is no such BLAS or no compiler; ``CC`` names the compiler, else it is ``cc``.
    """
    try:
        # Loaded by torch already: its symbols are all that is asked for.
        torch_library = next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))
        multiply = ctypes.cast(ctypes.CDLL(str(torch_library)).sgemm_, ctypes.c_void_p)
        return ctypes.CDLL(str(_compiled())).relaxation, multiply
    except (AttributeError, OSError, StopIteration, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        reason = " ".join(said.split())[:200]
        warnings.warn(
            f"relaxation.c does not work here ({reason}): the step runs by torch's operations",
            stacklevel=2,
        )
        return None


def _compiled() -> Path:
    """Return the compiled file; it is kept, by what it was made from."""
    from torch._inductor.codecache import cache_dir

    compiler = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS]
    made_from = repr((compiler, torch.backends.cpu.get_cpu_capability())).encode()
    name = hashlib.sha256(SOURCE.read_bytes() + made_from).hexdigest()[:16]
    path = Path(cache_dir()) / f"relaxation-{name}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [*compiler, str(SOURCE), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            made.replace(path)
    return path


def serves(name: str, tensor: Tensor) -> bool:
    """Whether there is C code for an activation and the numbers of a tensor, and it compiles."""
    is_plain = tensor.dtype == torch.float32 and tensor.device.type == "cpu"
    return is_plain and name in KINDS and library() is not None


def hidden_terms(
    targets: Tensor,
    weight: Tensor,
    bias: Tensor,
    name: str,
    factor: float,
    terms: Tensor,
    gradients: Sequence[Tensor],
) -> None:
    """Write the hidden terms of a stretch of layers, and the gradients times a factor.

    Args:
        targets: (layers + 1, seeds, examples, width).
        weight, bias: (layers, seeds, width, width) and (layers, seeds, 1, width).
        name: of the activation.
        factor: what a residual, whose square the terms have the mean of, is multiplied by.
        terms: memory, (layers, seeds).
        gradients: memory of the shapes of targets, weight and bias.
    """
    _call(targets, weight, bias, name, factor, (None, terms, *gradients))


def predictions(targets: Tensor, weight: Tensor, bias: Tensor, name: str) -> Tensor:
    """Return ẑ of a stretch of layers, (layers, seeds, examples, width), of ``hidden_terms``."""
    predicted = torch.empty_like(targets[1:])
    _call(targets, weight, bias, name, 0.0, (predicted, None, None, None, None))
    return predicted


def _call(
    targets: Tensor,
    weight: Tensor,
    bias: Tensor,
    name: str,
    factor: float,
    written: tuple[Tensor | None, ...],
) -> None:
    arrays = (targets, weight, bias, *written)
    if not all(array is None or array.is_contiguous() for array in arrays):
        raise ValueError("memory must be contiguous, got some that is not")
    loaded = library()
    if loaded is None:
        raise RuntimeError("relaxation.c must compile here, see the warning")
    relaxation, multiply = loaded
    layers, seeds, width, _ = weight.shape
    shape = (KINDS[name], layers, seeds, targets.shape[2], width)
    places = [None if array is None else ctypes.c_void_p(array.data_ptr()) for array in arrays]
    threads = torch.get_num_threads()
    if relaxation(multiply, *shape, ctypes.c_float(factor), threads, *places):
        raise MemoryError(f"there is no memory for {threads} threads of layers")
