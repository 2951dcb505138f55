"""`SceneModels`: which models look into scenes: a backbone for likeness, a segmentation model for classes and instances.

Design
- `--scene-model` and `--segmentation-model` name them; otherwise bundled ones are taken where there are any. Where there is
  none, `Choice.reason` says so and what to do, and the page shows that. A model that was named must exist; it is loaded at
  once.
- Any model with a SpUNet can measure likeness, so without a backbone of its own that of the segmentation model does.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

from splatsense.errors import CheckpointError
from splatsense.files import sha256_of
from splatsense.gaussian_cross.model import Backbone, load_backbone
from splatsense.model_folder import CONFIG, find_model, read_card
from splatsense.segmentation.model import SegmentationModel, load_segmentation_model

BACKBONES = ("gaussian-cross-tiny",)
HEADS = ("rooms20-tiny",)
"""Bundled models, the preferred ones first."""


@dataclass(frozen=True)
class Choice:
    """A model, or why there is none.

    Attributes:
        name: what people call it.
        hash: of its card, which holds that of its weights and all that they are used with.
        folder: of the model; None when there is none.
        reason: why there is none, and what to do.
    """

    name: str = ""
    hash: str = ""
    folder: Path | None = None
    reason: str = ""


class SceneModels:
    """The models of one server.

    Args:
        backbone: name or folder of a model for likeness; None for a bundled one.
        segmentation: of a segmentation model; None for a bundled one.

    Raises:
        CheckpointError: a model that was named is missing, damaged or of another kind.
    """

    def __init__(self, backbone: str | None = None, segmentation: str | None = None) -> None:
        self._lock = threading.Lock()
        self._backbone: Backbone | None = None
        self._head: SegmentationModel | None = None
        self.segmentation = _choice(segmentation, HEADS, "segmentation model", "--segmentation-model")
        self.similarity = _choice(backbone, BACKBONES, "backbone", "--scene-model")
        if self.similarity.folder is None and self.segmentation.folder is not None:
            self.similarity = self.segmentation
        if segmentation is not None:
            self.head()
        if backbone is not None:
            self.backbone()

    def backbone(self) -> Backbone:
        """The network for likeness, loaded on first use. Raises CheckpointError when there is none or it is damaged."""
        with self._lock:
            if self._backbone is None:
                self._backbone = load_backbone(_folder(self.similarity))
            return self._backbone

    def head(self) -> SegmentationModel:
        """The segmentation model, loaded on first use. Raises CheckpointError when there is none or it is damaged."""
        with self._lock:
            if self._head is None:
                self._head = load_segmentation_model(_folder(self.segmentation))
            return self._head


def _choice(named: str | None, bundled: tuple[str, ...], what: str, option: str) -> Choice:
    for name in (named,) if named is not None else bundled:
        try:
            folder = find_model(name)
        except CheckpointError:
            if named is not None:
                raise
            continue
        card = read_card(folder)
        return Choice(str(card.get("name", folder.name)), sha256_of(folder / CONFIG), folder)
    return Choice(reason=f"This server has no {what}: none is bundled. Start it with {option} FOLDER.")


def _folder(choice: Choice) -> Path:
    if choice.folder is None:
        raise CheckpointError(choice.reason)
    return choice.folder
