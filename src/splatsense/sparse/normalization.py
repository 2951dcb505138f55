"""Batch normalisation of voxels, with the addition and ReLU that follow it: native for float32 on a CPU, else PyTorch's own.

In PyTorch these are three passes, each over fresh memory, which took a third of a step of the base U-Net. Backward keeps the
input and the output.
"""

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm, relu

from splatsense.errors import LimitError
from splatsense.native import load_native, pointer
from splatsense.training.batch_norm import BatchNorm1d
from splatsense.training.collectives import process_count


class VoxelNorm(BatchNorm1d):
    """Batch normalisation over the voxels of all processes, with Pointcept's constants.

    In training a single voxel, which has no variance, is normalised by the running statistics and leaves them alone; with
    several processes it is normalised with the voxels of the others.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-3, momentum=0.01)

    def forward(
        self, input: Float[Tensor, "m c"], residual: Float[Tensor, "m c"] | None = None, activate: bool = False
    ) -> Float[Tensor, "m c"]:
        """Normalised features, plus `residual`, and through a ReLU if `activate`."""
        if self.training and process_count() > 1:
            result = super().forward(input)
            result = result if residual is None else result + residual
            return relu(result) if activate else result
        training = self.training and len(input) > 1
        library = load_native() if self._fits_native(input, residual) else None
        if library is None:
            statistics = self.running_mean, self.running_var
            if training:
                self.get_buffer("num_batches_tracked").add_(1)
            result = batch_norm(input, *statistics, self.weight, self.bias, training, self.momentum or 0.0, self.eps)
            result = result if residual is None else result + residual
            return relu(result) if activate else result
        return self._native(library, input, residual, activate, training)

    def _fits_native(self, input: Tensor, residual: Tensor | None) -> bool:
        """Whether all is float32 on a CPU and of the same size; of anything else PyTorch says what is wrong."""
        beside = input if residual is None else residual
        tensors = (input, beside, self.weight, self.bias, self.running_mean, self.running_var)
        if any(tensor is None or tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors):
            return False
        return input.shape[1:] == self.weight.shape and input.shape == beside.shape

    def _native(self, library: ctypes.CDLL, input: Tensor, residual: Tensor | None, activate: bool, training: bool) -> Tensor:
        running_mean, running_var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        mean, variance = running_mean.clone(), running_var.clone()
        settings = (library, mean, variance, self.eps, activate, training)
        result = _Norm.apply(input, residual, self.weight, self.bias, settings)
        if training:
            self.get_buffer("num_batches_tracked").add_(1)
            rate = self.momentum or 0.0
            running_mean.lerp_(mean, rate)
            running_var.lerp_(variance * (len(input) / (len(input) - 1)), rate)
        return result


class _Arguments(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("input", "residual", "weight", "bias", "mean", "variance")),
        *((name, c_int64) for name in ("rows", "channels")),
        ("epsilon", c_float),
        *((name, c_int32) for name in ("relu", "training", "threads")),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, c_void_p) for name in ("input", "residual", "weight", "bias")]


class _Norm(torch.autograd.Function):
    """`settings`: the library, mean and variance (which the forward pass overwrites in training), epsilon and two flags."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, settings: tuple) -> Tensor:
        input = input.contiguous()
        residual = None if residual is None else residual.contiguous()
        output = torch.empty_like(input)
        arguments = _arguments(input, residual, weight, bias, settings)
        if settings[0].ss_batch_norm(ctypes.byref(arguments), pointer(output)):
            raise LimitError(f"Out of memory normalising {len(input)} voxels.")
        ctx.settings, ctx.has_residual = settings, residual is not None
        ctx.save_for_backward(input, output if settings[4] else None, weight, bias)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        input, output, weight, bias = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_residual = torch.empty_like(input) if ctx.has_residual else None
        results = torch.empty_like(input), of_residual, torch.empty_like(weight), torch.empty_like(bias)
        arguments, into = _arguments(input, None, weight, bias, ctx.settings), _Gradients(*map(pointer, results))
        library = ctx.settings[0]
        if library.ss_batch_norm_backward(ctypes.byref(arguments), pointer(output), pointer(gradient), ctypes.byref(into)):
            raise LimitError(f"Out of memory normalising {len(input)} voxels.")
        return *results, None


def _arguments(input: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, settings: tuple) -> _Arguments:
    _, mean, variance, epsilon, activate, training = settings
    arrays = map(pointer, (input, residual, weight, bias, mean, variance))
    return _Arguments(*arrays, *input.shape, epsilon, activate, training, torch.get_num_threads())
