"""Training checkpoints without pickles: tensors in safetensors, everything else in its metadata as JSON.

Design
- A checkpoint is published atomically, and flushed to the disk, as `checkpoint.safetensors`; the one before it stays as
  `checkpoint-previous.safetensors`. A killed process or a full disk never leaves a run without one.
- A SHA-256 over all tensors and the state is in the metadata. A newest checkpoint that does not match it is set aside as
  `checkpoint-damaged.safetensors`, which is said, and the previous one serves.
- The optimiser's state goes by the names of its parameters, so that it cannot end up with another parameter when their
  order changes.
- What was made by another version, with other settings or by another network is an error that names the fields.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from splatsense.errors import CheckpointError
from splatsense.files import atomic_write

CURRENT, PREVIOUS, DAMAGED = "checkpoint.safetensors", "checkpoint-previous.safetensors", "checkpoint-damaged.safetensors"
VERSION = "2"
NAMED = 6  # at most so many fields are named in an error

log = logging.getLogger("splatsense")


def save_checkpoint(
    folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Publish a checkpoint of modules, the optimiser and a JSON-able state."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, parameter in _optimized(modules, optimizer):
        slots = optimizer.state.get(parameter, {})
        tensors |= {f"optimizer/{name}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
    text = json.dumps(state)
    with atomic_write(folder / CURRENT, fsync=True) as temporary:
        save_file(tensors, temporary, {"version": VERSION, "state": text, "sha256": _hash(tensors, text)})
        if (folder / CURRENT).exists():
            os.replace(folder / CURRENT, folder / PREVIOUS)


def load_checkpoint(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any] | None = None,
    set_aside: bool = True,
) -> dict[str, Any] | None:
    """Restore modules and optimiser in place; the state that was saved, or None when there is no checkpoint.

    Args:
        folder: of the run.
        modules: by name, as they were saved.
        optimizer: of their parameters.
        settings: what the state's "settings" must be equal to.
        set_aside: rename a damaged newest checkpoint, so that it is never kept as the previous one.

    Raises:
        CheckpointError: neither the current nor the previous checkpoint can be read, or they are of another version, other
            settings or another network.
    """
    reasons = []
    for name in (CURRENT, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            tensors, state = _read(folder / name)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            reasons.append(f"{folder / name}: {error}")
            continue
        if settings is not None:
            check_settings(folder / name, state.get("settings", {}), settings)
        _restore(folder / name, tensors, modules, optimizer)
        if reasons and set_aside:
            os.replace(folder / CURRENT, folder / DAMAGED)
            log.warning("%s; going on from %s, the one before.", reasons[0], folder / name)
        return state
    if reasons:
        raise CheckpointError("no checkpoint can be read: " + "; ".join(reasons) + ". Remove them to start again.")
    return None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Raises CheckpointError for another version; ValueError and others for damage."""
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata() or {}
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # not a dict
    version = metadata.get("version", "1")
    if version != VERSION:
        raise CheckpointError(
            f"{path}: has version {version}, this splatsense reads {VERSION}; finish the run with the splatsense that began "
            "it, or use another --out."
        )
    if metadata["sha256"] != _hash(tensors, metadata["state"]):
        raise ValueError("damaged, its SHA-256 does not match")
    return tensors, json.loads(metadata["state"])


def _hash(tensors: Mapping[str, Tensor], state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _optimized(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """Names of the optimiser's parameters, in its order."""
    names = {id(value): f"{name}/{key}" for name, module in modules.items() for key, value in module.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[id(parameter)], parameter


def check_settings(path: Path, saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming what differs, when a run was begun with other settings. `path` says so."""
    before, now = dict(flat(saved)), dict(flat(settings))
    changed = [name for name in now | before if now.get(name) != before.get(name)]
    if changed:
        shown = [f"{name} was {before.get(name)} and is {now.get(name)}" for name in changed]
        raise CheckpointError(f"{path}: the run had other settings: {_first(shown)}. Set them back, or use another --out.")


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as names with dots and their values."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _restore(
    path: Path, tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Nothing is changed unless every tensor fits."""
    own = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    shapes = {key: tuple(value.shape) for key, value in own.items()}
    found = {key: tuple(value.shape) for key, value in tensors.items() if not key.startswith("optimizer/")}
    wrong = [f"{key} is {found.get(key)} there and {shapes.get(key)} here" for key in shapes | found
             if found.get(key) != shapes.get(key)]  # fmt: skip
    optimized = list(_optimized(modules, optimizer))
    slots: dict[str, dict[str, Tensor]] = {name: {} for name, _ in optimized}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            name, _, slot = key.removeprefix("optimizer/").rpartition("/")
            if name in slots and value.shape in (own[name].shape, ()):
                slots[name][slot] = value.clone()  # the optimiser keeps what it is given: no view of the file
            else:
                wrong.append(f"{key} belongs to no parameter of that shape")
    if wrong:
        raise CheckpointError(
            f"{path}: made by another network: {_first(wrong)}. Use the one it was made by, or another --out."
        )
    for name, module in modules.items():
        module.load_state_dict({key: tensors[f"{name}/{key}"] for key in module.state_dict()})
    saved = optimizer.state_dict()
    saved["state"] = {index: slots[name] for index, (name, _) in enumerate(optimized) if slots[name]}
    optimizer.load_state_dict(saved)


def _first(fields: list[str]) -> str:
    more = f", and {len(fields) - NAMED} more" if len(fields) > NAMED else ""
    return "; ".join(fields[:NAMED]) + more
