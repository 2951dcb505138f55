"""The native rasteriser as an autograd function: what `reference.py` defines, for float32 tensors on a CPU."""

import ctypes
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


_Images = c_void_p * 4  # SsRasteriseImages: color, features, depth, alpha
_Gradients = c_void_p * 6  # SsRasteriseGradients: means, quats, scales, opacities, colors, features


class _State:
    """What the forward pass keeps for the backward pass; freed with the graph."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.pointer = c_void_p()

    def __del__(self) -> None:
        if self.pointer:
            self.library.ss_rasterise_free(self.pointer)


def _library() -> ctypes.CDLL:
    library = load_native()
    if library is None:
        raise SplatSenseError("The native library is not installed; use the reference backend.")
    library.ss_rasterise_free.argtypes = [c_void_p]
    library.ss_rasterise_free.restype = None
    return library


def _check(status: int, cameras_shape: tuple[int, ...], gaussians: int) -> None:
    if status:
        raise LimitError(
            f"Not enough memory to rasterise {gaussians} Gaussians into images of {cameras_shape}; use smaller images."
        )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, width: int, height: int, world_to_camera: Tensor, K: Tensor, *gaussians: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        library = _library()
        gaussians = tuple(tensor.contiguous() for tensor in gaussians)
        means, colors, features = gaussians[0], gaussians[4], gaussians[5]
        views = len(world_to_camera)
        shape = (views, height, width)
        images = (
            means.new_empty(*shape, 3),
            means.new_empty(*shape, features.shape[1]),
            means.new_empty(shape),
            means.new_empty(shape),
        )
        ctx.input = _Input(
            len(means), views, features.shape[1], width, height, len(colors), GRADIENT_BYTES, *map(Tensor.data_ptr, gaussians),
            world_to_camera.data_ptr(), K.data_ptr(), EPS_2D, NEAR_PLANE, torch.get_num_threads(),
        )  # fmt: skip
        state = _State(library) if any(ctx.needs_input_grad) else None
        pointer = ctypes.byref(state.pointer) if state else None
        _check(
            library.ss_rasterise_forward(ctypes.byref(ctx.input), _Images(*map(_address, images)), pointer), shape, len(means)
        )
        if state:
            ctx.state = state
            ctx.save_for_backward(*gaussians, world_to_camera, K, *images)
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *image_gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = ctx.saved_tensors  # raises if any of them was changed in place
        gaussians, images = saved[:6], saved[8:]
        contiguous = [None if gradient is None else gradient.contiguous() for gradient in image_gradients]
        gradients = tuple(torch.empty_like(tensor) for tensor in gaussians)
        status = ctx.state.library.ss_rasterise_backward(
            ctypes.byref(ctx.input), ctx.state.pointer, _Images(*map(_address, images)), _Images(*map(_address, contiguous)),
            _Gradients(*map(_address, gradients)),
        )  # fmt: skip
        _check(status, tuple(images[2].shape), len(gaussians[0]))
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
