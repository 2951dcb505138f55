"""Pictures of a pre-training run: input, masked input, real and rendered colour and depth, features as colours.

Features are shown by their first three principal components: the teacher's over all validation views once, so that colours
mean the same at all times; the backbone's by its own of the moment, since its axes change.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from splatsense.cameras import Cameras
from splatsense.gaussian_cross.dataset import TrainingBatch
from splatsense.gaussian_cross.pretrain_model import Prediction
from splatsense.gaussian_cross.view_images import to_bytes
from splatsense.gaussians import Gaussians
from splatsense.render import render

COLUMNS = (
    "points", "masked points", "colour", "rendered", "depth", "rendered depth", "teacher", "rendered features", "backbone",
)  # fmt: skip
POINT_SCALE = 0.6  # standard deviation of a voxel's Gaussian, in voxels
MASKED = 0.55  # grey
TITLE = 18  # pixels


class FeatureColors:
    """Colours of features by the principal components of some.

    Args:
        features: (V, h, w, d) of several scenes, or None for each without a teacher.
    """

    def __init__(self, features: Sequence[Tensor | None]) -> None:
        given = [part.flatten(0, -2) for part in features if part is not None]
        self._basis = _basis(torch.cat(given)) if given else None

    def __call__(self, features: Float[Tensor, "*v h w d"]) -> Float[Tensor, "*v h w 3"]:
        """sRGB in [0, 1]."""
        assert self._basis is not None
        return _colors(features, *self._basis)

    def sheet(self, rows: Sequence[dict[str, Tensor]]) -> Image.Image:
        """Views below each other, what is shown of them beside each other, with titles."""
        names = [name for name in COLUMNS if name in rows[0]]
        height, width = rows[0]["colour"].shape[:2]
        sheet = Image.new("RGB", (width * len(names), TITLE + height * len(rows)), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
        for column, name in enumerate(names):
            draw.text((column * width + 4, 2), name, "black", font)
            for row, images in enumerate(rows):
                sheet.paste(Image.fromarray(to_bytes(images[name])), (column * width, TITLE + row * height))
        return sheet


def draw_views(
    batch: TrainingBatch, prediction: Prediction, colors: FeatureColors, teacher: Tensor | None, count: int
) -> list[dict[str, Tensor]]:
    """The first `count` views of a scene, everything that is shown of each by its column's name.

    Args:
        batch: of one scene.
        prediction: of the network for it.
        colors: of features.
        teacher: (V, h, w, d) centred features, or None.
    """
    cameras = batch.cameras[:count]
    rgb = (batch.features[:, :3] + 1) / 2
    masked = torch.where(batch.hidden[:, :3], MASKED, rgb)
    backbone = prediction.backbone.detach().cpu()
    pictures = {
        "points": _points(batch, rgb, cameras),
        "masked points": _points(batch, masked, cameras),
        "colour": batch.targets.color[:count],
        "rendered": prediction.rendering.color[:count].detach().cpu(),
        "backbone": _points(batch, _colors(backbone, *_basis(backbone)), cameras),
    }
    deepest = batch.targets.depth[:count].flatten(1).amax(1).clamp_min(1e-6)[:, None, None]
    for name, depth in (("depth", batch.targets.depth), ("rendered depth", prediction.rendering.depth.detach().cpu())):
        pictures[name] = _heat((depth[:count] / deepest).clamp(0, 1))
    if teacher is not None and prediction.features is not None:
        size = (cameras.height, cameras.width)
        for name, features in (("teacher", teacher), ("rendered features", prediction.features.detach().cpu())):
            pictures[name] = _enlarged(colors(features[:count]), size)
    return [{name: images[view] for name, images in pictures.items()} for view in range(len(cameras))]


def _points(batch: TrainingBatch, rgb: Tensor, cameras: Cameras) -> Tensor:
    """Voxels as round Gaussians of these colours."""
    count = len(rgb)
    side = (batch.positions[1:] - batch.positions[:-1]).norm(dim=1)
    scale = POINT_SCALE * float(side[side > 0].quantile(0.1)) if bool((side > 0).any()) else POINT_SCALE
    quats = torch.tensor([1.0, 0, 0, 0]).expand(count, 4)
    splats = Gaussians.from_rgb(batch.positions, quats, torch.full((count, 3), scale), torch.full((count,), 0.9), rgb)
    return render(splats, cameras).color.clamp(0, 1)


def _basis(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (d,), first three principal directions (d, 3) and the spread (3,) along them."""
    rows = features.float()
    mean = rows.mean(0)
    _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))
    axes = vectors[:, -3:].flip(1)
    if axes.shape[1] < 3:
        axes = torch.cat([axes, axes.new_zeros(len(axes), 3 - axes.shape[1])], dim=1)
    axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # an eigenvector's sign is arbitrary
    return mean, axes, ((rows - mean) @ axes).std(0).clamp_min(1e-9)


def _colors(features: Tensor, mean: Tensor, axes: Tensor, spread: Tensor) -> Tensor:
    return (0.5 + ((features - mean) @ axes) / (5 * spread)).clamp(0, 1)


def _enlarged(images: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(images.movedim(-1, 1), size).movedim(1, -1)


def _heat(values: Float[Tensor, "v h w"]) -> Float[Tensor, "v h w 3"]:
    """Dark blue to yellow; black where there is nothing."""
    stops = torch.tensor([[0.1, 0.1, 0.35], [0.2, 0.45, 0.6], [0.45, 0.75, 0.45], [0.98, 0.9, 0.2]])
    place = values * (len(stops) - 1)
    low = place.floor().long().clamp(0, len(stops) - 2)
    weight = (place - low)[..., None]
    return torch.where(values[..., None] > 0, stops[low] * (1 - weight) + stops[low + 1] * weight, 0)
