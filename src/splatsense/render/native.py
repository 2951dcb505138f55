"""The native rasteriser as an autograd function: what `reference.py` defines, for float32 tensors on a CPU."""

import ctypes
import functools
import itertools
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatsense.cameras import Cameras
from splatsense.errors import LimitError, SplatSenseError
from splatsense.native import load_native
from splatsense.render.packed import Layout, Packed
from splatsense.render.reference import Images
from splatsense.render.settings import DEFAULT_SETTINGS, RasterSettings

GRADIENT_BYTES = 256 << 20  # scratch memory of the backward pass; with less it takes more passes


class _Input(ctypes.Structure):
    """SsRasteriseInput of native/splatsense.h."""

    _fields_ = (
        ("objects", c_int64),
        ("gaussians", c_int64),
        ("views", c_int64),
        ("feature_channels", c_int64),
        ("width", c_int64),
        ("height", c_int64),
        ("gaussian_begin", c_void_p),
        ("view_begin", c_void_p),
        ("color_begin", c_void_p),
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
        ("far_plane", c_float),
        ("radius_clip", c_float),
        ("antialiased", c_int32),
        ("median_depth", c_int32),
        ("threads", c_int32),
        ("color_views", c_int64),  # native code's own
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


def _begins(counts: Sequence[int]) -> Any:
    """Where each of parts that lie one after the other begins, and where the last one ends."""
    return (c_int64 * (len(counts) + 1))(0, *itertools.accumulate(counts))


def _input(packed: Packed, settings: RasterSettings) -> Any:
    layout = packed.layout
    begins = [_begins(counts) for counts in (layout.gaussians, layout.views, layout.color_rows)]
    sizes = (len(layout.views), len(packed.means), len(packed.K), packed.features.shape[1], layout.width, layout.height)
    arrays = (tensor.data_ptr() for tensor in packed[:8])
    limits = (settings.eps2d, settings.near_plane, settings.far_plane, settings.radius_clip)
    flags = (settings.antialiased, settings.depth == "median", torch.get_num_threads())
    value = _Input(*sizes, *map(ctypes.addressof, begins), GRADIENT_BYTES, *arrays, *limits, *flags)
    value.begins = begins  # keeps them alive as long as their addresses
    return value


def _check(status: int, packed: Packed) -> None:
    if status:
        raise _too_large(packed)


def _too_large(packed: Packed) -> LimitError:
    return LimitError(
        f"Out of memory rasterising {len(packed.means)} Gaussians into {len(packed.K)} images of {packed.layout.width} x "
        f"{packed.layout.height}; take fewer objects or views at a time, smaller images or fewer Gaussians."
    )


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, settings: RasterSettings, layout: Layout, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        tensors = tuple(tensor.contiguous() for tensor in inputs)
        packed = Packed(*tensors, layout=layout)
        shape = (len(packed.K), layout.height, layout.width)
        channels = ((3,), (packed.features.shape[1],), (), ())
        try:
            images = tuple(packed.means.new_empty(shape + channel) for channel in channels)
        except RuntimeError as error:  # as PyTorch says that memory ran out
            raise _too_large(packed) from error
        native = load_native()
        if native is None:
            raise SplatSenseError("splatsense was installed without its native library; use the reference backend.")
        state = _State(_declare(native))
        kept = ctypes.byref(state.pointer) if any(ctx.needs_input_grad) else None
        status = state.library.ss_rasterise_forward(_input(packed, settings), _addresses(images), kept)
        _check(status, packed)
        if kept:
            ctx.state, ctx.settings, ctx.layout = state, settings, layout
            ctx.save_for_backward(*tensors, *images)
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *image_gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = ctx.saved_tensors  # raises if one of them was changed in place
        tensors, images = saved[:8], saved[8:]
        packed = Packed(*tensors, layout=ctx.layout)
        given = [None if gradient is None else gradient.contiguous() for gradient in image_gradients]
        # The gradients of an object without a view are not written.
        empty = torch.empty_like if all(ctx.layout.views) else torch.zeros_like
        gradients = [empty(tensor) for tensor in packed[:6]]
        of_cameras = empty(packed.world_to_camera) if ctx.needs_input_grad[2 + 6] else None
        status = ctx.state.library.ss_rasterise_backward(
            _input(packed, ctx.settings),
            ctx.state.pointer,
            _addresses(images),
            _addresses(given),
            _addresses([*gradients, of_cameras]),
        )
        _check(status, packed)
        return None, None, *gradients, of_cameras, None


def rasterise_packed(packed: Packed, settings: RasterSettings) -> Images:
    """As `reference.rasterise_packed`, but for float32 tensors on a CPU; differentiable once.

    The result is the same to the last bit for any number of threads, which is `torch.get_num_threads()`, and for objects
    drawn together or one at a time.

    Raises:
        LimitError: memory ran out.
        SplatSenseError: there is no native library.
    """
    return _Rasterise.apply(settings, packed.layout, *packed[:8])


def rasterise(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, features: Tensor, cameras: Cameras,
    settings: RasterSettings = DEFAULT_SETTINGS,
) -> Images:  # fmt: skip
    """As `reference.rasterise`, but for float32 tensors on a CPU: `rasterise_packed` of one object."""
    colors = colors.flatten(0, 1)
    tensors = (means, quats, scales, opacities, colors, features, cameras.world_to_camera, cameras.K)
    layout = Layout(cameras.width, cameras.height, (len(means),), (len(cameras),), (len(colors),))
    return rasterise_packed(Packed(*tensors, layout=layout), settings)
