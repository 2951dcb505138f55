"""What training asks of frozen models: `Teacher` of texts and images, `DenseTeacher` of every place of an image."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from splatsense.teachers.images import ImageLike


@runtime_checkable
class FrozenModel(Protocol):
    """A model whose answers never change, so that they are computed once and kept."""

    @property
    def name(self) -> str:
        """What `load_teacher` or `load_dense_teacher` knows it by."""
        ...

    @property
    def dim(self) -> int:
        """Length of an embedding or a feature."""
        ...

    @property
    def hash(self) -> str:
        """Hex id of its weights and preprocessing; its answers are kept on disk under it."""
        ...


@runtime_checkable
class Teacher(FrozenModel, Protocol):
    """A frozen model that puts texts and images into one space."""

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


@runtime_checkable
class DenseTeacher(FrozenModel, Protocol):
    """A frozen image model with a feature for every location."""

    def encode_dense(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n h2 w2 d"]:
        """Features of images, sRGB in [0, 1], on a regular grid over each."""
        ...
