"""Training checkpoints without pickles: tensors in safetensors, everything else in its metadata as JSON.

A checkpoint is published atomically under `checkpoint.safetensors`; the one before it stays as
`checkpoint-previous.safetensors`, so a disk that fills up or a killed process never leaves a run without one.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from splatsense.errors import CheckpointError
from splatsense.files import atomic_write

CURRENT, PREVIOUS = "checkpoint.safetensors", "checkpoint-previous.safetensors"


def save_checkpoint(
    folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Publish a checkpoint of modules, the optimiser and a JSON-able state."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    with atomic_write(folder / CURRENT) as temporary:
        save_file(
            {key: value.detach().contiguous().clone() for key, value in tensors.items()},
            temporary,
            {"state": json.dumps(state)},
        )
        if (folder / CURRENT).exists():
            os.replace(folder / CURRENT, folder / PREVIOUS)


def load_checkpoint(folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore modules and optimiser in place; the state that was saved, or None when there is no checkpoint.

    Raises:
        CheckpointError: neither the current nor the previous checkpoint can be read, or they are of another model.
    """
    reasons = []
    for name in (CURRENT, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            with safe_open(folder / name, "pt") as opened:
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
                state = json.loads(opened.metadata()["state"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            reasons.append(f"{folder / name}: {error}")
            continue
        _restore(folder / name, tensors, modules, optimizer)
        return state
    if reasons:
        raise CheckpointError("no checkpoint can be read: " + "; ".join(reasons))
    return None


def _restore(path: Path, tensors: dict[str, Tensor], modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    for name, module in modules.items():
        own = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: made by another configuration ({error}); use another --out.") from error
    saved = optimizer.state_dict()
    saved["state"] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, slot = key.split("/")
            saved["state"].setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict(saved)
