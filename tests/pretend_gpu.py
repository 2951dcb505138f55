"""A device that computes on the CPU and behaves like another one: what forgets to move a tensor fails on it as on a GPU.

Design
- PyTorch's PrivateUse1 key is registered as the device "pretend". Its tensors hold CPU tensors, all operators are run on these.
- As on a GPU, operators refuse tensors of two devices, but for numbers, indices and copies; NumPy and native code take none.
- It is registered for the whole process and before its first backward pass: `device_steps.py` is a process of its own.

What it cannot show: results and types of CUDA kernels, their support of a type, streams, memory, and gsplat.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"
IS_POSSIBLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
aten = torch.ops.aten
JOINING = (aten.cat.default, aten.stack.default)  # which take no numbers from the CPU, as other operators do
COPIES = (aten.copy_.default, aten._to_copy.default)
AUTOCAST = "AutocastPrivateUse1"
LOWERED = ("linear", "matmul", "mm", "bmm", "addmm", "conv1d", "conv3d", "scaled_dot_product_attention")  # as CUDA's autocast
RAISED = ("layer_norm", "softmax.int", "log_softmax.int", "cumsum", "prod", "sum", "norm.ScalarOpt_dim")
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)


class PretendTensor(Tensor):
    """A tensor on the device; `held` is the CPU tensor behind it."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendTensor":
        result = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=NAME + ":0"
        )
        result.held = held
        return result

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, *args, **(kwargs or {}))

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.held})"

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy.")


class _Module:
    """What PyTorch asks of `torch.pretend`."""

    is_initialized = is_available = staticmethod(lambda: True)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])


def register() -> torch.device:
    """Make the device known to PyTorch."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) makes its tensor first and moves it then
    torch.inference_mode = torch.no_grad  # in which no views of such tensors can be made
    everything, operators = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, AUTOCAST)
    for name in LOWERED:
        operators.impl(name, _cast(name, torch.bfloat16), AUTOCAST)
    for name in RAISED:
        operators.impl(name, _cast(name, torch.float32), AUTOCAST)
    _KEPT.extend((everything, operators))
    return torch.device(NAME, 0)


_KEPT: list[torch.library.Library] = []  # what they register lasts as long as they do


def _cast(name: str, dtype: torch.dtype) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(aten, packet), overload or "default")

    def call(*args: Any, **kwargs: Any) -> Any:
        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, AUTOCAST))):
            return operator(*tree_map(cast, args), **tree_map(cast, kwargs))

    return call


class PretendMode(TorchDispatchMode):
    """While it lasts, what is made on the device in this thread is made."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, *args, **(kwargs or {}))


def compute(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """An operator by the CPU, after a look at where its tensors are."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [each for each in tensors if isinstance(each, PretendTensor)]
    _check(func, args, kwargs, [each for each in tensors if not isinstance(each, PretendTensor)], bool(ours))
    stays = isinstance(args[0], PretendTensor) if func is aten.copy_.default else bool(ours)
    if kwargs.get("device") is not None:
        stays = torch.device(kwargs["device"]).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu")}
    given = {id(each.held): each for each in ours}
    args, kwargs = tree_map(_held, (args, kwargs))
    result = func(*args, **kwargs)
    return tree_map(lambda value: _wrapped(value, given), result) if stays else result


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendTensor) else value


def _wrapped(value: Any, given: dict[int, PretendTensor]) -> Any:
    if not isinstance(value, Tensor):
        return value
    own = given.get(id(value))
    return PretendTensor(value) if own is None else own


def _check(func: Any, args: Sequence[Any], kwargs: dict[str, Any], elsewhere: list[Tensor], any_here: bool) -> None:
    """Raise RuntimeError where CUDA would."""
    if kwargs.get("generator") is not None and (any_here or NAME in str(kwargs.get("device"))):
        raise RuntimeError(f"{func}: expected a '{NAME}' device type for generator but found 'cpu'")
    if not any_here or func in COPIES:
        return
    if func in INDEXING:
        if not isinstance(args[0], PretendTensor):
            raise RuntimeError(f"{func}: a tensor on the CPU takes no indices and values of another device")
        elsewhere = [each for each in args[2:3] if not isinstance(each, PretendTensor)]  # values; indices are moved
    refused = [tuple(each.shape) for each in elsewhere if each.ndim or func in JOINING]
    if refused:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but some are on the CPU: {refused}")
