"""`Packed`: the Gaussians and cameras of many objects, one after the other; what every backend takes.

An object is drawn by its own cameras only. One object is a batch of one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Layout(NamedTuple):
    """What lies where in `Packed`, of B objects."""

    width: int
    height: int
    gaussians: tuple[int, ...]
    """(B,) how many Gaussians each object has."""
    views: tuple[int, ...]
    """(B,) how many views each object has."""
    color_rows: tuple[int, ...]
    """(B,) how many colours each object has: one per Gaussian, or one per Gaussian for each of its views, view after view."""


class Packed(NamedTuple):
    """B objects of N Gaussians and V views together."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    colors: Float[Tensor, "rows 3"]
    features: Float[Tensor, "n c"]
    world_to_camera: Float[Tensor, "v 4 4"]
    K: Float[Tensor, "v 3 3"]
    layout: Layout

    def objects(self) -> "Iterator[Packed]":
        """Each object as a batch of one."""
        width, height, gaussians, views, rows = self.layout
        counts = [*[gaussians] * 4, rows, gaussians, views, views]
        parts = zip(*(tensor.split(list(count)) for tensor, count in zip(self[:8], counts, strict=True)), strict=True)
        for b, tensors in enumerate(parts):
            yield Packed(*tensors, layout=Layout(width, height, (gaussians[b],), (views[b],), (rows[b],)))
