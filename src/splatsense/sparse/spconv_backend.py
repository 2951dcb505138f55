"""spconv's matrix products behind our neighbour maps (extra `spconv`); SPLATSENSE_SPARSE=spconv chooses them.

They are meant for CUDA, where they gather, multiply and scatter in one kernel; on a CPU they work too, more slowly than ours.
spconv is imported at the first convolution that is asked of it. Its sums on a GPU are atomic, so last bits differ from run to
run. It takes float32 and float16; other types are left to our own code, which the log says.
"""

import importlib
import logging
import os
import warnings
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.errors import DataError, SplatSenseError
from splatsense.sparse.kernel_map import KernelMap

VARIABLE = "SPLATSENSE_SPARSE"
DTYPES = (torch.float32, torch.float16)

log = logging.getLogger("splatsense")


def is_chosen(dtype: torch.dtype) -> bool:
    """Whether spconv is asked for and has this type.

    Raises:
        DataError: the variable names something else.
    """
    name = os.environ.get(VARIABLE, "")
    if name not in ("", "spconv"):
        raise DataError(f"{VARIABLE}={name}: there is no such backend of sparse convolution; unset it, or choose spconv.")
    if name == "spconv" and dtype not in DTYPES:
        _say_once(f"{VARIABLE}=spconv: it does not take {dtype}; our own convolutions take its place.")
    return name == "spconv" and dtype in DTYPES


@cache
def _say_once(message: str) -> None:
    log.warning(message)


def convolve(features: Float[Tensor, "m c"], weight: Float[Tensor, "d k c"], kernel_map: KernelMap) -> Float[Tensor, "n d"]:
    """`convolve_reference`."""
    ops, native = _spconv()
    arguments = (features.contiguous(), _cubic(weight), *_pairs(kernel_map), kernel_map.output_count)
    return ops.indice_conv(*arguments, False, kernel_map.submanifold, native)


def gradients(
    features: Float[Tensor, "m c"], gradient: Float[Tensor, "n d"], weight: Float[Tensor, "d k c"], kernel_map: KernelMap
) -> tuple[Float[Tensor, "m c"], Float[Tensor, "d k c"]]:
    """`input_gradient_reference` and `weight_gradient_reference`, which spconv computes together."""
    ops, native = _spconv()
    arguments = (features.contiguous(), _cubic(weight), gradient.contiguous(), *_pairs(kernel_map))
    of_features, of_weight = ops.indice_conv_backward(*arguments, False, kernel_map.submanifold, native)
    return of_features, of_weight.reshape(weight.shape)


def _cubic(weight: Tensor) -> Tensor:
    """(out, K, 1, 1, in): spconv wants three axes of the kernel and takes their product."""
    return weight.contiguous()[:, :, None, None]


def _pairs(kernel_map: KernelMap) -> tuple[Tensor, Tensor]:
    """(2, K, longest) pairs of each offset, filled up with -1, and (K) how many there are."""
    found = kernel_map.kept.get("spconv")
    if found is None:
        counts = kernel_map.starts.diff()
        offset = torch.arange(kernel_map.volume).repeat_interleave(counts)
        place = torch.arange(len(offset)) - kernel_map.starts[offset]
        device = kernel_map.inputs.device
        table = kernel_map.inputs.new_full((2, kernel_map.volume, int(counts.max())), -1)
        table[:, offset.to(device), place.to(device)] = torch.stack([kernel_map.inputs, kernel_map.outputs])
        found = kernel_map.kept["spconv"] = (table, counts.int().to(device))
    return found


@cache
def _spconv() -> tuple[Any, Any]:
    """spconv's operators and its algorithm of gathering, multiplying and scattering."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spconv = importlib.import_module("spconv.pytorch")
            return importlib.import_module("spconv.pytorch.ops"), spconv.ConvAlgo.Native
    except ImportError as error:
        raise SplatSenseError(
            f"{VARIABLE}=spconv: spconv cannot be imported ({error}); install the extra with "
            "pip install 'splatsense[spconv]', or unset the variable."
        ) from error
