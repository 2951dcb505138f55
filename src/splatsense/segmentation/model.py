"""Segmentation models on disk: a folder as of `model_folder.py`.

The card names the label set with all its classes in order, so that a head is never read with another set. Of a user's own
label set it also holds the colours: the model is used without the file it was trained with.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from splatsense.errors import CheckpointError, DataError
from splatsense.gaussian_cross.unet import UNetConfig
from splatsense.label_files import as_json, label_set_of
from splatsense.labels import LABEL_SETS, LabelSet
from splatsense.model_folder import CONFIG, WEIGHTS, find_model, load_weights, read_card, read_weights, save_model_folder
from splatsense.segmentation.config import ClusterConfig
from splatsense.segmentation.network import Segmenter

KIND = "segmentation"


@dataclass(frozen=True, eq=False)
class SegmentationModel:
    """A trained network and what it needs to be used.

    Attributes:
        network: in evaluation mode.
        labels: its classes, and which of them are no instances.
        voxel: side of a voxel in metres.
        cluster: how instances are found.
        card: everything else that is known of it.
    """

    network: Segmenter
    labels: LabelSet
    voxel: float
    cluster: ClusterConfig
    card: dict[str, Any]

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
    labels = as_json(model.labels)
    facts = {
        "kind": KIND,
        "name": model.name,
        "task": "instance" if model.has_instances else "semantic",
        "labels": labels.pop("name"),
        **labels,
        "voxel": model.voxel,
        "backbone": asdict(model.network.backbone.config),
        "cluster": asdict(model.cluster),
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
        labels = _labels(card, folder / CONFIG)
        network = Segmenter(UNetConfig.from_card(card["backbone"], folder / CONFIG), len(labels), card["task"] == "instance")
        cluster, voxel = ClusterConfig(**card["cluster"]), float(card["voxel"])
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise CheckpointError(f"{folder / CONFIG}: is damaged or of another version ({error!r}).") from error
    load_weights(network, read_weights(folder, card), folder / WEIGHTS)
    network.eval().requires_grad_(False)
    return SegmentationModel(network, labels, voxel, cluster, card)


def _labels(card: dict[str, Any], path: Path) -> LabelSet:
    """The label set of a card: one that is known by name, which must have the same classes here, or a user's own."""
    known = LABEL_SETS.get(card["labels"])
    if known is None:
        keys = ("classes", "colors", "leave_out")
        return label_set_of({"name": card["labels"]} | {key: card[key] for key in keys}, str(path))
    if list(known.names) != card["classes"]:
        raise CheckpointError(
            f"{path}: its head has {len(card['classes'])} classes called {known.name}, which do not match the "
            "label set of that name here; use the version of splatsense that trained it."
        )
    return replace(known, leave_out=tuple(card["leave_out"]))
