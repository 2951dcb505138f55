"""Frozen text+image models that say what training should agree with. All share one small interface, `Teacher`."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from splatsense.errors import CheckpointError
from splatsense.teachers.images import ImageLike
from splatsense.teachers.mini import MiniTeacher

TEACHERS = {"mini": MiniTeacher}


@runtime_checkable
class Teacher(Protocol):
    """A frozen model that puts texts and images into one space."""

    @property
    def name(self) -> str:
        """What `load_teacher` knows it by."""
        ...

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    @property
    def hash(self) -> str:
        """Hex id of its weights and preprocessing; embeddings are kept on disk under it."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit-length embeddings of texts."""
        ...

    def encode_images(self, images: Sequence[ImageLike] | np.ndarray | Tensor) -> Float[Tensor, "n d"]:
        """Unit-length embeddings of PIL images, image files, or (H, W, 3 or 4) arrays."""
        ...


@runtime_checkable
class FeatureTeacher(Teacher, Protocol):
    """A teacher whose image embeddings are a function of pooled features, to which another map can be fitted."""

    def encode_image_features(self, images: Sequence[ImageLike] | np.ndarray | Tensor) -> Float[Tensor, "n f"]:
        """Pooled, non-negative features."""
        ...

    def embed_features(self, features: Float[Tensor, "*n f"]) -> Float[Tensor, "*n d"]:
        """Unit-length embeddings of pooled features: the second half of `encode_images`."""
        ...


def load_teacher(name: str = "mini") -> Teacher:
    """A teacher by name: "mini", or one of open_clip as `teachers.open_clip` says. Its weights are read at first use.

    Raises:
        CheckpointError: There is no teacher of this name, or open_clip is not installed.
    """
    if name.startswith("open_clip:"):
        from splatsense.teachers.open_clip import OpenClipTeacher

        return OpenClipTeacher.from_name(name)
    if name not in TEACHERS:
        raise CheckpointError(f"There is no teacher {name!r}; choose from {', '.join(TEACHERS)}, open_clip:MODEL:TAG.")
    return TEACHERS[name]()
