"""What a library asks of a model: `splatsense.clip_gs.model.ClipGS` is one, and any object with these members will do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor

from splatsense.gaussians import Gaussians

ImageLike = Path | Image.Image | np.ndarray
"""A picture: a file, a PIL image or an (H, W, 3) uint8 array."""


@runtime_checkable
class EmbeddingModel(Protocol):
    """Splats, pictures and text in one space, as unit-length embeddings on the CPU."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def hash(self) -> str:
        """Identifies the weights: embeddings of different hashes are never compared."""
        ...

    def encode_gaussians(self, objects: Sequence[Gaussians], batch_size: int = 16) -> Tensor:
        """(N, dim) embeddings of Gaussians."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(N, dim) embeddings of texts."""
        ...

    def encode_images(self, images: Sequence[ImageLike]) -> Tensor:
        """(N, dim) embeddings of pictures."""
        ...


def resolve_model(model: str | Path | EmbeddingModel) -> EmbeddingModel:
    """A loaded model as it is; else the bundled model of this name, or the one in this folder."""
    if isinstance(model, (str, Path)):
        from splatsense.clip_gs.model import load_model

        return load_model(model)
    return model
