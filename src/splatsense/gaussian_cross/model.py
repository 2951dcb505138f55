"""A pre-trained backbone on disk: what is kept of GaussianCross pre-training (arXiv 2508.02172), `load_backbone(name)`.

A model is a folder as of `model_folder.py`. Features of any point cloud follow from it:
`load_backbone("gaussian-cross-tiny").encode(coord, color, normal)`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import CheckpointError, DataError
from splatsense.gaussian_cross.unet import SpUNet, UNetConfig
from splatsense.model_folder import CONFIG, WEIGHTS, find_model, load_weights, read_card, read_weights, save_model_folder
from splatsense.sparse import voxelize

METHOD = "gaussian-cross"
PREFIX = "backbone."  # of its weights in a segmentation model


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
        """Features of points: those of the voxel each lies in, on the device of the points.

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
        color_mean, normal_mean = voxels.features.split(3, dim=1)
        voxels = voxels.with_features(torch.cat([color_mean, normalize(normal_mean, dim=1)], dim=1))  # as in training
        with torch.inference_mode():
            features = self.network(voxels.to(next(self.network.parameters()).device))
        return features.to(coord.device)[row]


def save_backbone(folder: str | Path, network: SpUNet, name: str, voxel: float, card: dict[str, Any]) -> None:
    """Write a model folder: weights in half precision, configuration and card.

    Args:
        folder: made when missing.
        network: the trained backbone.
        name: of the model.
        voxel: side of its voxels in metres.
        card: JSON-able facts: data, settings, metrics.
    """
    facts = {"name": name, "method": METHOD, "backbone": asdict(network.config), "voxel": voxel}
    save_model_folder(Path(folder), network.state_dict(), facts | card)


def load_backbone(name_or_path: str | Path = "gaussian-cross-tiny") -> Backbone:
    """A backbone by the name of a bundled model, or by the path of a model folder. No network access.

    Args:
        name_or_path: of a pre-trained backbone, or of a segmentation model, whose head is left out.

    Raises:
        CheckpointError: there is no such model, it has no such backbone, or its folder is damaged.
    """
    folder = find_model(name_or_path)
    card = read_card(folder)
    if not isinstance(card.get("backbone"), dict):
        raise CheckpointError(f"{folder / CONFIG}: describes no backbone; give a model of `train gaussian-cross`.")
    voxel = card.get("voxel")
    if not isinstance(voxel, float | int) or not voxel > 0:
        raise CheckpointError(f"{folder / CONFIG}: says no side of a voxel; give a model of `train gaussian-cross`.")
    network = SpUNet(UNetConfig.from_card(card["backbone"], folder / CONFIG))
    weights = read_weights(folder, card)
    prefixed = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
    load_weights(network, prefixed or weights, folder / WEIGHTS)
    return Backbone(network.eval().requires_grad_(False), float(voxel), card)
