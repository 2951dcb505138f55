"""Segmentation models on disk: a folder with `model.safetensors` and `config.json`, its card; and backbones to start from.

Nothing is a pickle. The card names the label set with all its classes in order, so that a head is never read with another set.
"""

import json
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from splatsense.clip_gs.model import sha256
from splatsense.errors import CheckpointError, DataError
from splatsense.files import atomic_write
from splatsense.gaussian_cross.unet import UNetConfig
from splatsense.labels import LabelSet
from splatsense.segmentation.config import ClusterConfig
from splatsense.segmentation.network import Segmenter
from splatsense.segmentation.points import LABEL_SETS

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KIND = "segmentation"
BACKBONE = "backbone."


@dataclass(frozen=True, eq=False)
class SegmentationModel:
    """A trained network and what it needs to be used.

    Attributes:
        network: in evaluation mode.
        labels_name: of its label set in `points.LABEL_SETS`.
        voxel: side of a voxel in metres.
        cluster: how instances are found.
        leave_out: classes that are no instances.
        card: everything else that is known of it.
    """

    network: Segmenter
    labels_name: str
    voxel: float
    cluster: ClusterConfig
    leave_out: tuple[str, ...]
    card: dict[str, Any]

    @property
    def labels(self) -> LabelSet:
        """Its classes."""
        return LABEL_SETS[self.labels_name]

    @property
    def has_instances(self) -> bool:
        """Whether it predicts instances."""
        return self.network.offsets is not None

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.card.get("name", KIND))


def save_segmentation_model(folder: Path, model: SegmentationModel) -> None:
    """Write a model folder, weights in half precision; the card gets label set, backbone and hash beside `model.card`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = model.network.state_dict().items()
    weights = {name: (value.half() if value.is_floating_point() else value).cpu().contiguous() for name, value in state}
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    described = {
        "kind": KIND,
        "name": model.name,
        "task": "instance" if model.has_instances else "semantic",
        "labels": model.labels_name,
        "classes": list(model.labels.names),
        "voxel": model.voxel,
        "backbone": asdict(model.network.backbone.config),
        "cluster": asdict(model.cluster),
        "leave_out": list(model.leave_out),
        **{key: value for key, value in model.card.items() if key not in ("kind", "sha256")},
        "sha256": sha256(folder / WEIGHTS),
    }
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(described, indent=2) + "\n", "utf-8")


def load_segmentation_model(name_or_path: str | Path) -> SegmentationModel:
    """A model of `save_segmentation_model` by its folder, or a bundled one by name; in evaluation mode, on the CPU.

    Raises:
        CheckpointError: it is missing or damaged, is no segmentation model, or has other classes than its label set here.
    """
    folder = find_model(name_or_path)
    card = read_card(folder)
    try:
        if card.get("kind") != KIND:
            raise CheckpointError(
                f"{folder}: is no segmentation model but {card.get('kind') or card.get('name')!r}. A backbone needs a head: "
                "`splatsense train segmentation --backbone ...`."
            )
        labels_name = card["labels"]
        known = LABEL_SETS.get(labels_name)
        if known is None or list(known.names) != card["classes"]:
            raise CheckpointError(
                f"{folder / CONFIG}: its head has {len(card['classes'])} classes called {labels_name}, which do not match the "
                "label set of that name here; use the version of splatsense that trained it."
            )
        network = Segmenter(unet_config(card["backbone"], folder / CONFIG), len(known), card["task"] == "instance")
        cluster = ClusterConfig(**card["cluster"])
        voxel, leave_out = float(card["voxel"]), tuple(card["leave_out"])
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise CheckpointError(f"{folder / CONFIG}: is damaged or of another version ({error!r}).") from error
    load_weights(network, read_weights(folder, card), folder / WEIGHTS)
    network.eval().requires_grad_(False)
    return SegmentationModel(network, labels_name, voxel, cluster, leave_out, card)


def load_backbone(name_or_path: str | Path) -> tuple[UNetConfig, dict[str, Tensor]]:
    """Configuration and weights of a SpUNet: of a pre-trained model, or of a segmentation model, whose head is left out.

    Raises:
        CheckpointError: it is missing or damaged, or holds no such backbone.
    """
    folder = find_model(name_or_path)
    card = read_card(folder)
    weights = read_weights(folder, card)
    if not isinstance(card.get("backbone"), dict):
        raise CheckpointError(f"{folder / CONFIG}: describes no backbone; give a model of `train gaussian-cross`.")
    config = unet_config(card["backbone"], folder / CONFIG)
    prefixed = {name.removeprefix(BACKBONE): value for name, value in weights.items() if name.startswith(BACKBONE)}
    return config, prefixed or weights


def backbone_voxel(name_or_path: str | Path) -> float:
    """Side in metres of the voxels that a backbone was trained on. Raises CheckpointError as `load_backbone` does."""
    folder = find_model(name_or_path)
    voxel = read_card(folder).get("voxel")
    if not isinstance(voxel, float | int) or not voxel > 0:
        raise CheckpointError(f"{folder / CONFIG}: says no side of a voxel; give a model of `train gaussian-cross`.")
    return float(voxel)


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model: a path, or the name of a bundled one. Raises CheckpointError when there is none."""
    bundled = Path(str(resources.files("splatsense").joinpath("weights")))
    for folder in (Path(name_or_path), bundled / str(name_or_path)):
        if (folder / CONFIG).is_file():
            return folder
    names = sorted(path.parent.name for path in bundled.glob(f"*/{CONFIG}"))
    raise CheckpointError(f"{name_or_path}: neither a folder with {CONFIG} nor a bundled model ({', '.join(names) or 'none'}).")


def read_card(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder. Raises CheckpointError when it cannot be read."""
    try:
        card = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG}: cannot be read ({error}); copy the model folder again.") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{folder / CONFIG}: holds no JSON object; copy the model folder again.")
    return card


def read_weights(folder: Path, card: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors of a model folder. Raises CheckpointError when they cannot be read or are not those of the card."""
    path = folder / WEIGHTS
    try:
        if sha256(path) != card.get("sha256"):
            raise CheckpointError(f"{path}: sha256 is not the one in {CONFIG}; copy the model folder again.")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy the model folder again.") from error


def load_weights(network: torch.nn.Module, weights: dict[str, Tensor], path: Path | str) -> None:
    """Copy tensors into a network that has exactly these. Raises CheckpointError that names those which differ."""
    own = network.state_dict()
    wrong = [name for name in own | weights if name not in own or name not in weights or own[name].shape != weights[name].shape]
    if wrong:
        raise CheckpointError(f"{path}: is of another network; {len(wrong)} tensors differ, such as {', '.join(wrong[:4])}.")
    network.load_state_dict(weights)


def unet_config(entry: dict[str, Any], where: Path) -> UNetConfig:
    """A `UNetConfig` from a card. Raises CheckpointError when it does not fit this version."""
    names = {field.name for field in fields(UNetConfig)}
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    try:
        return UNetConfig(**values)
    except (TypeError, AttributeError, DataError) as error:
        raise CheckpointError(f"{where}: its backbone has other settings than {', '.join(sorted(names))} ({error}).") from error
