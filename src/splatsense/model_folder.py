"""Trained models on disk: a folder with `model.safetensors`, weights in half precision, and `config.json`, the model card.

The card holds the sha256 of the weights, so that a copy that went wrong is found out. Nothing is a pickle.
"""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splatsense.errors import CheckpointError
from splatsense.files import atomic_write, sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, CONFIG = "model.safetensors", "config.json"
BUNDLED = Path(str(resources.files("splatsense").joinpath("weights")))


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model: the name of a bundled one, or a path. Raises CheckpointError when there is none."""
    for folder in (BUNDLED / str(name_or_path), Path(name_or_path)):
        if (folder / CONFIG).is_file():
            return folder
    names = sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))
    raise CheckpointError(f"{name_or_path}: neither a bundled model ({', '.join(names) or 'none'}) nor a folder with {CONFIG}.")


def read_card(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder. Raises CheckpointError when it cannot be read."""
    try:
        card = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG}: cannot be read ({error}); copy the model folder again.") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{folder / CONFIG}: holds no JSON object; copy the model folder again.")
    return card


def read_weights(folder: Path, card: Mapping[str, Any]) -> "dict[str, Tensor]":
    """Tensors of a model folder. Raises CheckpointError when they cannot be read or are not those of the card."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        if sha256_of(path) != card.get("sha256"):
            raise CheckpointError(f"{path}: sha256 is not the one in {CONFIG}; copy the model folder again.")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy the model folder again.") from error


def load_weights(network: "nn.Module", weights: "Mapping[str, Tensor]", path: Path | str) -> None:
    """Copy tensors into a network that has exactly these. Raises CheckpointError that names those which differ."""
    own = network.state_dict()
    names = dict.fromkeys((*own, *weights))
    wrong = [name for name in names if name not in own or name not in weights or own[name].shape != weights[name].shape]
    if wrong:
        raise CheckpointError(f"{path}: is of another network; {len(wrong)} tensors differ, such as {', '.join(wrong[:4])}.")
    network.load_state_dict(weights)


def halved(weights: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Weights as they are stored: on the CPU, numbers that are not whole in half precision, where that can hold them."""
    stored = {name: value.cpu().contiguous() for name, value in weights.items()}
    halves = {name: value.half() for name, value in stored.items() if value.is_floating_point()}
    return stored | {name: value for name, value in halves.items() if not bool(value.isinf().any())}


def save_model_folder(folder: Path, weights: "Mapping[str, Tensor]", facts: dict[str, Any]) -> None:
    """Write a model folder: `weights` in half precision, and the card: `facts` and the hash of the weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(halved(weights), temporary)
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps({**facts, "sha256": sha256_of(folder / WEIGHTS)}, indent=2) + "\n", "utf-8")
