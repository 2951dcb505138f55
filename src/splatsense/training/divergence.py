"""What happens when a loss or gradient is no number: the run stops, and the batch that did it is kept to look at."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from splatsense.errors import DataError
from splatsense.files import atomic_write


class DivergedError(DataError):
    """A loss or gradient of a training step is not finite."""


def save_batch(path: Path, batch: Any) -> None:
    """Write every tensor of a batch (tensors in dataclasses, mappings, lists and tuples) into a safetensors file.

    A tensor's name is the way to it, as in `gaussians.means`; strings and numbers are metadata.
    """
    tensors: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    for name, value in _leaves(batch, ""):
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().contiguous().clone()
        else:
            others[name] = str(value)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, others)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, Mapping):
        parts = value
    elif isinstance(value, list | tuple):
        parts = dict(enumerate(value))
    else:
        yield name or "batch", value
        return
    for key, part in parts.items():
        yield from _leaves(part, f"{name}.{key}" if name else str(key))
