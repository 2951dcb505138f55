"""Which code draws: the native library, gsplat or plain PyTorch."""

import functools
import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from splatsense.errors import DataError, SplatSenseError
from splatsense.native import load_native
from splatsense.render import cuda, native, reference
from splatsense.render.packed import Packed
from splatsense.render.reference import Images
from splatsense.render.settings import RasterSettings

log = logging.getLogger("splatsense")

Backend = Literal["auto", "native", "gsplat", "reference"]


def rasteriser(backend: str, means: Tensor, settings: RasterSettings) -> Callable[[Packed, RasterSettings], Images]:
    """The function that draws Gaussians like these.

    Raises:
        DataError: there is no such backend, or it does not take such tensors or settings.
        SplatSenseError: the backend is not installed.
    """
    match backend:
        case "auto" if _refusal("native", means, settings) is None:
            return native.rasterise_packed
        case "auto" if _refusal("gsplat", means, settings) is None:
            return cuda.rasterise_packed
        case "auto":
            if means.device.type == "cuda":
                _say_once(f"render: plain PyTorch draws, slowly: {_refusal('gsplat', means, settings)}")
            return reference.rasterise_packed
        case "reference":
            return reference.rasterise_packed
        case "native" | "gsplat":
            refusal = _refusal(backend, means, settings)
            if refusal:
                raise refusal
            return native.rasterise_packed if backend == "native" else cuda.rasterise_packed
        case _:
            raise DataError(f'render: backend must be "auto", "native", "gsplat" or "reference", got {backend!r}.')


def _refusal(backend: Literal["native", "gsplat"], means: Tensor, settings: RasterSettings) -> SplatSenseError | None:
    """Why a backend cannot draw this."""
    device = "CPU" if backend == "native" else "CUDA"
    if means.device.type != device.lower() or means.dtype != torch.float32:
        return DataError(f'render: backend="{backend}" takes float32 on {device}, got {means.dtype} on {means.device}.')
    if backend == "native" and load_native() is None:
        return SplatSenseError('render: backend="native", but splatsense was installed without its native library.')
    if backend == "gsplat" and settings.depth == "median":
        return DataError('render: backend="gsplat" has no median depth; use backend="reference", or depth="expected".')
    if backend == "gsplat" and (problem := cuda.problem()):
        return SplatSenseError(f'render: backend="gsplat" does not work here: {problem}')
    return None


@functools.cache
def _say_once(message: str) -> None:
    log.warning(message)
