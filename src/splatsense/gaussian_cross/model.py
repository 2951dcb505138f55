"""A pre-trained backbone on disk: what is kept of GaussianCross pre-training (arXiv 2508.02172), `load_backbone(name)`.

A model is a folder with `model.safetensors` (half precision) and `config.json`, which is also the model card. Features of
any point cloud follow from it: `load_backbone("gaussian-cross-tiny").encode(coord, color, normal)`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from splatsense.errors import CheckpointError, DataError
from splatsense.files import atomic_write
from splatsense.gaussian_cross.unet import SpUNet, UNetConfig
from splatsense.sparse import voxelize

WEIGHTS, CONFIG = "model.safetensors", "config.json"
METHOD = "gaussian-cross"
METHODS = (METHOD, "scene-contrast")  # whose backbones this reads


@dataclass(frozen=True, eq=False)
class Backbone:
    """A trained sparse U-Net.

    Attributes:
        network: in evaluation mode; takes voxels with colour in [-1, 1] and normal, six channels.
        voxel: side of the voxels it was trained on, in metres.
        card: what it was trained on and how it measures.
    """

    network: SpUNet
    voxel: float
    card: dict[str, Any]

    def encode(
        self, coord: Float[Tensor, "n 3"], color: UInt8[Tensor, "n 3"], normal: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n c"]:
        """Features of points: those of the voxel each lies in.

        Args:
            coord: in metres, z up.
            color: 8-bit sRGB.
            normal: of unit length, or zero where it is not known.

        Raises:
            DataError: no points, or points that are not finite.
        """
        if len(coord) == 0:
            raise DataError("Backbone.encode: no points.")
        inputs = torch.cat([color.float() / 127.5 - 1, normal], dim=1)
        voxels, row = voxelize(coord - coord.amin(0), self.voxel, inputs)
        with torch.inference_mode():
            return self.network(voxels)[row]


def save_backbone(folder: str | Path, network: SpUNet, name: str, voxel: float, card: dict[str, Any]) -> None:
    """Write a model folder: weights in half precision, configuration and card.

    Args:
        folder: made when missing.
        network: the trained backbone.
        name: of the model.
        voxel: side of its voxels in metres.
        card: JSON-able facts: data, settings, metrics.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in network.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    facts = {"name": name, "method": METHOD, "backbone": asdict(network.config), "voxel": voxel}
    described = facts | {"sha256": _sha256(folder / WEIGHTS)} | card
    with atomic_write(folder / CONFIG) as temporary:
        Path(temporary).write_text(json.dumps(described, indent=2) + "\n")


def load_backbone(name_or_path: str | Path = "gaussian-cross-tiny") -> Backbone:
    """A bundled backbone by name, or any model folder by path. No network access.

    Raises:
        CheckpointError: there is no such model, it is of another method, or its folder is damaged.
    """
    bundled = Path(str(resources.files("splatsense").joinpath("weights")))
    folders = [folder for folder in (bundled / str(name_or_path), Path(name_or_path)) if (folder / CONFIG).is_file()]
    if not folders:
        raise CheckpointError(f"{name_or_path}: neither a bundled model nor a folder with {CONFIG}.")
    folder = folders[0]
    try:
        card = json.loads((folder / CONFIG).read_text("utf-8"))
        if card.get("method") not in METHODS:
            raise CheckpointError(f"{folder}: is a model of another method; a backbone of {' or '.join(METHODS)} is needed.")
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in card["backbone"].items()
        }
        network = SpUNet(UNetConfig(**fields))
        if _sha256(folder / WEIGHTS) != card["sha256"]:
            raise CheckpointError(f"{folder / WEIGHTS}: sha256 is not the one in {CONFIG}; copy the model folder again.")
        weights = load_file(folder / WEIGHTS)
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
        return Backbone(network.eval().requires_grad_(False), float(card["voxel"]), card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: missing or damaged ({error!r}); copy the model folder again.") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
