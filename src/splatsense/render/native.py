"""The native rasteriser as an autograd function: what `reference.py` defines, for float32 tensors on a CPU."""

import ctypes
import functools
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatsense.cameras import Cameras
from splatsense.errors import LimitError, SplatSenseError
from splatsense.native import load_native
from splatsense.render.reference import EPS_2D, NEAR_PLANE

GRADIENT_BYTES = 256 << 20  # scratch memory of the backward pass; with less it takes more passes


class _Input(ctypes.Structure):
    """SsRasteriseInput of native/splatsense.h."""

    _fields_ = (
        ("gaussians", c_int64),
        ("views", c_int64),
        ("feature_channels", c_int64),
        ("width", c_int64),
        ("height", c_int64),
        ("color_views", c_int64),
        ("gradient_bytes", c_int64),
        ("means", c_void_p),
        ("quats", c_void_p),
        ("scales", c_void_p),
        ("opacities", c_void_p),
        ("colors", c_void_p),
        ("features", c_void_p),
        ("world_to_camera", c_void_p),
        ("K", c_void_p),
        ("eps2d", c_float),
        ("near_plane", c_float),
        ("threads", c_int32),
    )


class _State:
    """What the forward pass keeps for the backward pass; freed with the graph."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.pointer = c_void_p()

    def __del__(self) -> None:
        if self.pointer:
            self.library.ss_rasterise_free(self.pointer)


@functools.cache
def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointers = ctypes.POINTER(c_void_p)
    inputs = ctypes.POINTER(_Input)
    library.ss_rasterise_forward.argtypes = [inputs, pointers, pointers]
    library.ss_rasterise_backward.argtypes = [inputs, c_void_p, pointers, pointers, pointers]
    library.ss_rasterise_free.argtypes = [c_void_p]
    library.ss_rasterise_free.restype = None
    return library


def _addresses(tensors: Sequence[Tensor | None]) -> Any:
    """`SsRasteriseImages` or `SsRasteriseGradients`: structs of pointers, laid out like an array of them."""
    return (c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def _input(gaussians: Sequence[Tensor], cameras: Sequence[Tensor], width: int, height: int) -> Any:
    means, colors, features = gaussians[0], gaussians[4], gaussians[5]
    sizes = (len(means), len(cameras[0]), features.shape[1], width, height, len(colors), GRADIENT_BYTES)
    arrays = (tensor.data_ptr() for tensor in (*gaussians, *cameras))
    return ctypes.byref(_Input(*sizes, *arrays, EPS_2D, NEAR_PLANE, torch.get_num_threads()))


def _check(status: int, gaussians: int, images: tuple[int, ...]) -> None:
    if status:
        views, height, width = images
        raise LimitError(
            f"Out of memory rasterising {gaussians} Gaussians into {views} images of {width} x {height}; "
            "take fewer views at a time, smaller images or fewer Gaussians."
        )


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, width: int, height: int, world_to_camera: Tensor, K: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        gaussians = tuple(tensor.contiguous() for tensor in inputs)
        cameras = (world_to_camera, K)
        shape = (len(K), height, width)
        channels = ((3,), (gaussians[5].shape[1],), (), ())
        images = tuple(gaussians[0].new_empty(shape + channel) for channel in channels)
        native = load_native()
        if native is None:
            raise SplatSenseError("splatsense was installed without its native library; use the reference backend.")
        state = _State(_declare(native))
        kept = ctypes.byref(state.pointer) if any(ctx.needs_input_grad) else None
        status = state.library.ss_rasterise_forward(_input(gaussians, cameras, width, height), _addresses(images), kept)
        _check(status, len(gaussians[0]), shape)
        if kept:
            ctx.state = state
            ctx.save_for_backward(*gaussians, *cameras, *images)
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *image_gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = ctx.saved_tensors  # raises if one of them was changed in place
        gaussians, cameras, images = saved[:6], saved[6:8], saved[8:]
        views, height, width = shape = tuple(images[2].shape)
        given = [None if gradient is None else gradient.contiguous() for gradient in image_gradients]
        gradients = tuple(torch.empty_like(tensor) if views else torch.zeros_like(tensor) for tensor in gaussians)
        status = ctx.state.library.ss_rasterise_backward(
            _input(gaussians, cameras, width, height),
            ctx.state.pointer,
            _addresses(images),
            _addresses(given),
            _addresses(gradients),
        )
        _check(status, len(gaussians[0]), shape)
        return None, None, None, None, *gradients


def rasterise(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, features: Tensor, cameras: Cameras
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images of Gaussians; arguments and result as `reference.rasterise`, but float32 on a CPU.

    Differentiable once in everything but the cameras. The result is the same to the last bit for any number of threads,
    which is `torch.get_num_threads()`.

    Raises:
        LimitError: memory ran out.
        SplatSenseError: there is no native library.
    """
    transforms, K = cameras.world_to_camera.contiguous(), cameras.K.contiguous()
    return _Rasterise.apply(cameras.width, cameras.height, transforms, K, means, quats, scales, opacities, colors, features)  # type: ignore[return-value]
