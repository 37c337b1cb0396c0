"""Ways to make one processor compute as others would."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A way to compute: variables that torch and its libraries read when they load.

    Attributes:
        name: how tables call it.
        variables: the environment that brings it about.
        needs: the processor flag without which the setting means nothing; empty for none.
    """

    name: str
    variables: Mapping[str, str]
    needs: str = ""


SETTINGS = (
    Setting("default", {}),
    Setting("torch default", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("torch avx2", {"ATEN_CPU_CAPABILITY": "avx2"}, "avx2"),
    Setting("mkl compatible", {"MKL_CBWR": "COMPATIBLE"}),
    Setting("mkl avx2", {"MKL_CBWR": "AVX2"}, "avx2"),
    Setting("mkl avx512", {"MKL_CBWR": "AVX512,STRICT"}, "avx512f"),
    Setting("onednn sse41", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Setting("oldest", {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}),
    Setting("four threads", {"OMP_NUM_THREADS": "4"}),
)
# What the notebooks run under; a notebook sets its own number of threads.
NOTEBOOK_SETTINGS = ("default", "torch default", "mkl compatible", "oldest")
