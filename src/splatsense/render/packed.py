"""`Packed`: the Gaussians and cameras of many objects, one after the other; what every backend takes.

An object is drawn by its own cameras only. One object is a batch of one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Packed(NamedTuple):
    """B objects of N Gaussians and V views together."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    colors: Float[Tensor, "rows 3"]
    """Each object's: one per Gaussian, or one per Gaussian for each of its views, view after view."""
    features: Float[Tensor, "n c"]
    world_to_camera: Float[Tensor, "v 4 4"]
    K: Float[Tensor, "v 3 3"]
    width: int
    height: int
    gaussians: tuple[int, ...]
    """(B,) how many Gaussians each object has."""
    views: tuple[int, ...]
    """(B,) how many views each object has."""
    color_rows: tuple[int, ...]
    """(B,) how many rows of `colors` each object has."""

    def objects(self) -> "Iterator[Packed]":
        """Each object as a batch of one."""
        of_gaussians = [tensor.split(list(self.gaussians)) for tensor in (*self[:4], self.features)]
        of_views = [tensor.split(list(self.views)) for tensor in (self.world_to_camera, self.K)]
        colors = self.colors.split(list(self.color_rows))
        sizes = zip(self.gaussians, self.views, self.color_rows, strict=True)
        for *four, features, color, transforms, K, counts in zip(*of_gaussians, colors, *of_views, sizes, strict=True):
            gaussians, views, rows = ((count,) for count in counts)
            yield Packed(*four, color, features, transforms, K, self.width, self.height, gaussians, views, rows)
