"""The native library: found, checked and loaded once; `None` when the package was installed without a compiler.

`native/` is built up to three times (AVX-512, AVX2, baseline) and the best one the CPU can run is loaded with ctypes.
Set `SPLATSENSE_NATIVE=off` to use the plain PyTorch paths, or to `avx512`, `avx2` or `baseline` to force one build.
"""

import ctypes
import functools
import logging
import os
from pathlib import Path

import numpy as np
from torch import Tensor

from splatsense.errors import SplatSenseError

log = logging.getLogger("splatsense")

ABI_VERSION = 4
LEVELS = ("baseline", "avx2", "avx512")
LIBRARY_DIR = Path(__file__).parent / "_native"


@functools.cache
def load_native() -> ctypes.CDLL | None:
    """The loaded library, or None (said once in the log) when there is none to load."""
    choice = os.environ.get("SPLATSENSE_NATIVE", "auto")
    if choice == "off":
        return None
    if choice not in ("auto", *LEVELS):
        raise SplatSenseError(f"SPLATSENSE_NATIVE={choice!r}: expected auto, off, {', '.join(LEVELS)}.")
    baseline = _open("baseline")
    if baseline is None:
        log.warning("splatsense was installed without its native library; plain PyTorch serves, more slowly.")
        return None
    runnable = LEVELS[: baseline.ss_cpu_level() + 1]
    if choice == "auto":
        return next(filter(None, map(_open, reversed(runnable))))
    if choice not in runnable:
        raise SplatSenseError(f"SPLATSENSE_NATIVE={choice}: this CPU cannot run it; the best here is {runnable[-1]}.")
    library = _open(choice)
    if library is None:
        raise SplatSenseError(f"SPLATSENSE_NATIVE={choice}: this build is not installed; use auto, or reinstall the package.")
    return library


def native_level() -> str:
    """Which build serves: "avx512", "avx2", "baseline", or "off"."""
    library = load_native()
    return "off" if library is None else LEVELS[library.ss_build_level()]


def _open(level: str) -> ctypes.CDLL | None:
    path = LIBRARY_DIR / f"libsplatsense_{level}.so"
    if not path.is_file():
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise SplatSenseError(f"{path}: cannot be loaded ({error}); reinstall the package.") from error
    if library.ss_abi_version() != ABI_VERSION:
        raise SplatSenseError(f"{path}: built for another version of splatsense; reinstall the package.")
    return library


def pointer(array: Tensor | np.ndarray | None) -> ctypes.c_void_p:
    """The address of a contiguous CPU tensor or array, or a null pointer for None."""
    if array is None:
        return ctypes.c_void_p(None)
    if isinstance(array, Tensor):
        if not array.is_contiguous() or array.device.type != "cpu":
            raise ValueError("native code takes contiguous CPU tensors")
        return ctypes.c_void_p(array.data_ptr())
    if not array.flags.c_contiguous:
        raise ValueError("native code takes contiguous arrays")
    return ctypes.c_void_p(array.ctypes.data)
