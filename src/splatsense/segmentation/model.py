"""Segmentation models on disk: a folder as of `model_folder.py`.

The card names the label set with all its classes in order, so that a head is never read with another set.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splatsense.errors import CheckpointError, DataError
from splatsense.gaussian_cross.unet import UNetConfig
from splatsense.labels import LabelSet
from splatsense.model_folder import CONFIG, WEIGHTS, find_model, load_weights, read_card, read_weights, save_model_folder
from splatsense.segmentation.config import ClusterConfig
from splatsense.segmentation.network import Segmenter
from splatsense.segmentation.points import LABEL_SETS

KIND = "segmentation"


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
    facts = {
        "kind": KIND,
        "name": model.name,
        "task": "instance" if model.has_instances else "semantic",
        "labels": model.labels_name,
        "classes": list(model.labels.names),
        "voxel": model.voxel,
        "backbone": asdict(model.network.backbone.config),
        "cluster": asdict(model.cluster),
        "leave_out": list(model.leave_out),
    }
    save_model_folder(folder, model.network.state_dict(), facts | {key: model.card[key] for key in model.card if key != "kind"})


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
        network = Segmenter(UNetConfig.from_card(card["backbone"], folder / CONFIG), len(known), card["task"] == "instance")
        cluster = ClusterConfig(**card["cluster"])
        voxel, leave_out = float(card["voxel"]), tuple(card["leave_out"])
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise CheckpointError(f"{folder / CONFIG}: is damaged or of another version ({error!r}).") from error
    load_weights(network, read_weights(folder, card), folder / WEIGHTS)
    network.eval().requires_grad_(False)
    return SegmentationModel(network, labels_name, voxel, cluster, leave_out, card)
