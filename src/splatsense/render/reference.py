"""What the rasteriser computes, in plain PyTorch: the definition that every faster backend is tested against.

3D Gaussian splatting (Kerbl et al. 2023) with the culling rules of gsplat (Ye et al. 2024). Names in `code` are fields of
`RasterSettings` or constants below.
- A Gaussian's covariance is carried to the screen by the Jacobian of the projection at its mean (EWA splatting, Zwicker
  et al. 2001), taken no further out than 1.3 times the field of view. `eps2d` px^2 are added to both variances. If
  `antialiased`, its opacity falls by the factor sqrt(det(cov) / det(cov + eps2d I)) (Mip-Splatting, Yu et al. 2024).
- At a pixel centre x its alpha is `min(MAX_ALPHA, opacity * exp(-(x - m)^T cov^-1 (x - m) / 2))`; below `MIN_ALPHA` it is
  skipped. Not drawn are Gaussians whose mean lies nearer than `near_plane` or farther than `far_plane`, which have no
  finite positive covariance, or whose ellipse of alpha `MIN_ALPHA` is no wider and no higher than `radius_clip` px to
  each side of its mean, rounded up to whole pixels.
- Front to back (by z of the mean, then by index), each gets the weight `alpha * T`, and T, which starts at 1, falls by
  the factor `1 - alpha`. A pixel is finished before the first Gaussian that would bring T to `MIN_TRANSMITTANCE` or less.
- Colour, features and alpha are sums over the weights. Expected depth is the weighted mean of z, 0 where nothing was
  composited. Median depth is the z of the first Gaussian that brings T below 1/2, 0 where none does.

Any floating-point type, any device, differentiable in all but K. Memory is bounded: tiles are composited in batches of
similar length, and the backward pass recomputes each batch. Culling, sorting and the choice of the median Gaussian pass no
gradient.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from splatsense.cameras import Cameras
from splatsense.gaussians import quaternion_to_matrix
from splatsense.render.packed import Packed
from splatsense.render.settings import DEFAULT_SETTINGS, RasterSettings

MIN_ALPHA = 1 / 255
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4
MIN_DEPTH_ALPHA = 1e-3  # depth is 0 below: where nothing was composited, as alpha is then 0 and otherwise >= MIN_ALPHA

TILE = 8
BATCH_PAIRS = 1 << 21  # pairs of pixel and Gaussian composited at a time


class Splats(NamedTuple):
    """Gaussians on the screen of one camera."""

    means: Float[Tensor, "n 2"]
    """Pixels."""
    covariances: Float[Tensor, "n 3"]
    """xx, xy and yy, in square pixels."""
    inverse_covariances: Float[Tensor, "n 3"]
    """xx, xy and yy, per square pixel."""
    z: Float[Tensor, " n"]
    opacities: Float[Tensor, " n"]

    def radii(self) -> Float[Tensor, "n 2"]:
        """How far the ellipse of alpha `MIN_ALPHA` reaches along x and y, in pixels."""
        reach = 2 * (self.opacities / MIN_ALPHA).log().clamp_min(0)
        return (reach[:, None] * self.covariances[:, [0, 2]]).sqrt()

    def drawn(self, settings: RasterSettings) -> Bool[Tensor, " n"]:
        """Which of them can reach a pixel: between the planes, opaque enough, large enough, and finite."""
        positive = (self.inverse_covariances[:, 0] > 0) & (self.inverse_covariances[:, 2] > 0)
        between = (self.z >= settings.near_plane) & (self.z <= settings.far_plane)
        large = (self.radii().ceil() > settings.radius_clip).any(-1)
        values = [*self[:3], self.z[:, None], self.opacities[:, None]]
        return between & (self.opacities >= MIN_ALPHA) & large & positive & torch.cat(values, dim=-1).isfinite().all(-1)


def project(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    world_to_camera: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    width: int,
    height: int,
    settings: RasterSettings,
) -> Splats:
    """Gaussians to splats on the screen of one camera. Meaningless where `drawn` is false."""
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    x, y, z = (means @ rotation.T + translation).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    tan_x = (x / z).clamp(-(cx + 0.15 * width) / fx, (1.15 * width - cx) / fx)
    tan_y = (y / z).clamp(-(cy + 0.15 * height) / fy, (1.15 * height - cy) / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * tan_x / z, zero, fy / z, -fy * tan_y / z], dim=-1).unflatten(-1, (2, 3))
    axes = jacobian @ rotation @ quaternion_to_matrix(quats) * scales[:, None, :]
    xx, xy, yy = axes[:, 0].square().sum(-1), (axes[:, 0] * axes[:, 1]).sum(-1), axes[:, 1].square().sum(-1)
    # det(A A^T) and det(A A^T + eps I) as sums of squares (Cauchy-Binet): needles do not cancel as in xx yy - xy^2.
    sharp = torch.linalg.cross(axes[:, 0], axes[:, 1]).square().sum(-1)
    determinant = sharp + settings.eps2d * (xx + yy + settings.eps2d)
    xx, yy = xx + settings.eps2d, yy + settings.eps2d
    return Splats(
        torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1),
        torch.stack([xx, xy, yy], dim=-1),
        torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None],
        z,
        opacities * (sharp / determinant).sqrt() if settings.antialiased else opacities,
    )


def tile_lists(splats: Splats, width: int, height: int) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " tiles"]]:
    """For each `TILE` x `TILE` tile in raster order, the splats that may reach it from front to back, and how many."""
    tiles = torch.tensor([-(-width // TILE), -(-height // TILE)], device=splats.z.device)
    order = splats.z.argsort(stable=True)
    means, radii = splats.means[order], splats.radii()[order]
    limit = tiles.to(means.dtype)
    first = ((means - radii) / TILE).floor().clamp_min(0).minimum(limit).long()
    last = (((means + radii) / TILE).floor() + 1).clamp_min(0).minimum(limit).long()
    span = last - first
    count = span.prod(-1)
    owner = torch.repeat_interleave(torch.arange(len(order), device=order.device), count)
    offset = torch.arange(len(owner), device=order.device) - (count.cumsum(0) - count)[owner]
    column, row = offset % span[owner, 0], offset // span[owner, 0]
    tile = (first[owner, 1] + row) * tiles[0] + first[owner, 0] + column
    return order[owner[tile.argsort(stable=True)]], tile.bincount(minlength=int(tiles.prod()))


def composite(
    pixels: Float[Tensor, "tiles pixels 2"],
    splats: Float[Tensor, "tiles list 6"],
    channels: Float[Tensor, "tiles list c"],
    median: bool,
) -> Float[Tensor, "tiles pixels c"]:
    """Sums of `channels` over the weights at each pixel. A splat is its mean, inverse covariance and opacity.

    The first channel is z; if `median`, that of the median Gaussian takes the place of the sum.
    """
    x, y = (pixels[:, :, None] - splats[:, None, :, :2]).unbind(-1)
    xx, xy, yy, opacity = splats[:, None, :, 2:].unbind(-1)
    alpha = opacity * torch.exp(-0.5 * (xx * x * x + yy * y * y) - xy * x * y)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha.clamp_max(MAX_ALPHA), 0)
    after = torch.cumprod(1 - alpha, dim=-1)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], dim=-1)
    sums = torch.where(after > MIN_TRANSMITTANCE, alpha * before, 0) @ channels
    if not median:
        return sums
    crossing = (before >= 0.5) & (after < 0.5)
    return torch.cat([crossing.to(sums.dtype) @ channels[..., :1], sums[..., 1:]], dim=-1)


def rasterise_view(
    splats: Splats, channels: Float[Tensor, "n c"], width: int, height: int, median: bool
) -> Float[Tensor, "h w c"]:
    """The image of one view's splats: tiles of similar list length are padded to the longest and composited together."""
    with torch.no_grad():
        ids, counts = tile_lists(splats, width, height)
    ends = counts.cumsum(0)
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    table = torch.cat([splats.means, splats.inverse_covariances], dim=-1)
    corner = torch.arange(TILE, dtype=table.dtype, device=table.device) + 0.5
    within = torch.stack(torch.meshgrid(corner, corner, indexing="xy"), dim=-1).reshape(1, -1, 2)
    by_length = counts.argsort(descending=True)
    lengths = counts[by_length].tolist()
    parts, start = [], 0
    while start < len(lengths) and lengths[start] > 0:
        longest = lengths[start]
        stop = min(len(lengths), start + max(1, BATCH_PAIRS // (longest * TILE * TILE)))
        while stop - 1 > start and lengths[stop - 1] < longest // 2:
            stop -= 1
        tiles = by_length[start:stop]
        slot = torch.arange(longest, device=table.device)
        valid = slot < counts[tiles, None]
        members = ids[torch.where(valid, (ends - counts)[tiles, None] + slot, 0)]
        pixels = within + torch.stack([tiles % tiles_x, tiles // tiles_x], dim=-1)[:, None] * TILE
        # A padded entry is a real splat with opacity 0.
        batch = torch.cat([table[members], torch.where(valid, splats.opacities[members], 0)[..., None]], dim=-1)
        parts.append(checkpoint(composite, pixels, batch, channels[members], median, use_reentrant=False))
        start = stop
    joined = channels[:0].sum() + table[:0].sum() + splats.opacities[:0].sum()  # 0, so that an empty image has a gradient too
    parts.append(channels.new_zeros(len(lengths) - start, TILE * TILE, channels.shape[1]) + joined)
    image = torch.cat(parts)[by_length.argsort()]
    image = image.unflatten(1, (TILE, TILE)).unflatten(0, (tiles_y, tiles_x)).transpose(1, 2)
    return image.flatten(2, 3).flatten(0, 1)[:height, :width]


Images = tuple[Float[Tensor, "v h w 3"], Float[Tensor, "v h w c"], Float[Tensor, "v h w"], Float[Tensor, "v h w"]]
"""Colour, features, depth and alpha."""


def rasterise(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "color_views n 3"],
    features: Float[Tensor, "n c"],
    cameras: Cameras,
    settings: RasterSettings = DEFAULT_SETTINGS,
) -> Images:
    """Colour, features, depth and alpha of Gaussians seen by V cameras.

    `colors` holds one colour per Gaussian, (1, N, 3), or one per view, (V, N, 3).
    """
    images = []
    for v, (world_to_camera, K) in enumerate(zip(cameras.world_to_camera, cameras.K, strict=True)):
        view = (world_to_camera, K, cameras.width, cameras.height, settings)
        with torch.no_grad():
            keep = project(means, quats, scales, opacities, *view).drawn(settings).nonzero()[:, 0]
        splats = project(means[keep], quats[keep], scales[keep], opacities[keep], *view)
        color = colors[v if len(colors) > 1 else 0][keep]
        channels = torch.cat([splats.z[:, None], torch.ones_like(splats.z)[:, None], color, features[keep]], dim=-1)
        images.append(rasterise_view(splats, channels, cameras.width, cameras.height, settings.depth == "median"))
    image = torch.stack(images) if images else means.new_zeros(0, cameras.height, cameras.width, 5 + features.shape[1])
    z, alpha, color, feature = image.split([1, 1, 3, features.shape[1]], dim=-1)
    z, alpha = z.squeeze(-1), alpha.squeeze(-1)
    return color, feature, z if settings.depth == "median" else expected_depth(z, alpha), alpha


def expected_depth(z: Float[Tensor, "*shape"], alpha: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The weighted mean of z from its weighted sum, 0 where nothing was composited."""
    seen = alpha >= MIN_DEPTH_ALPHA
    return torch.where(seen, z / torch.where(seen, alpha, 1), 0)


def rasterise_packed(packed: Packed, settings: RasterSettings) -> Images:
    """`rasterise` of each object by its own cameras; images in the order of the cameras."""
    images = []
    for one in packed.objects():
        gaussians = len(one.means)
        colors = one.colors.reshape(len(one.colors) // gaussians if gaussians else 1, gaussians, 3)
        cameras = Cameras(one.world_to_camera, one.K, one.layout.width, one.layout.height)
        images.append(rasterise(*one[:4], colors, one.features, cameras, settings))
    color, feature, depth, alpha = (torch.cat(parts) for parts in zip(*images, strict=True))
    return color, feature, depth, alpha
