"""What `render` must compute, once more and on its own: float64, every pixel against every Gaussian, no tiles.

Written from the formulas with general matrix routines, sharing no code with the package but the data types.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.gaussians import Gaussians
from splatsense.render import RasterSettings


@dataclass
class Images:
    color: Tensor
    features: Tensor
    depth: Tensor
    alpha: Tensor
    steady: Tensor
    """(V, H, W) true where no threshold is so close that float32 rounding may decide it the other way."""


def rotation_matrices(quats: Tensor) -> Tensor:
    """The columns are the images q e q* of the axes e, by quaternion products as 4x4 matrices."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    left = torch.stack([w, -x, -y, -z, x, w, -z, y, y, z, w, -x, z, -y, x, w], dim=-1).unflatten(-1, (4, 4))
    right = torch.stack([w, x, y, z, -x, w, -z, y, -y, z, w, -x, -z, -y, x, w], dim=-1).unflatten(-1, (4, 4))
    return (left @ right)[..., 1:, 1:]


def legendre_colors(sh: Tensor, directions: Tensor) -> Tensor:
    """Colours from real spherical harmonics built from associated Legendre functions, in the sign convention of 3DGS."""
    directions = directions / directions.norm(dim=-1, keepdim=True)
    x, y, z = directions.unbind(-1)
    azimuth, s = torch.atan2(y, x), (1 - z * z).clamp_min(0).sqrt()
    legendre = {
        (0, 0): torch.ones_like(z), (1, 0): z, (1, 1): s, (2, 0): (3 * z * z - 1) / 2, (2, 1): 3 * z * s, (2, 2): 3 * s * s,
        (3, 0): (5 * z**3 - 3 * z) / 2, (3, 1): 1.5 * (5 * z * z - 1) * s, (3, 2): 15 * z * s * s, (3, 3): 15 * s**3,
    }  # fmt: skip
    total = torch.full_like(sh[..., 0, :], 0.5).expand(*directions.shape[:-1], 3)
    for k in range(sh.shape[-2]):
        band = math.isqrt(k)
        m = k - band * band - band
        norm = math.sqrt((2 * band + 1) / (4 * math.pi) * math.factorial(band - abs(m)) / math.factorial(band + abs(m)))
        wave = torch.sin(-m * azimuth) if m < 0 else torch.cos(m * azimuth)
        sign = (-1) ** m * (math.sqrt(2) if m else 1)
        total = total + (sign * norm * legendre[band, abs(m)] * wave)[..., None] * sh[..., k, :]
    return total.clamp_min(0)


def dense_images(gaussians: Gaussians, cameras: Cameras, features: Tensor, settings: RasterSettings) -> Images:
    """`render` of float64 tensors."""
    views = [
        _view(gaussians, features, m.double(), K.double(), cameras, settings)
        for m, K in zip(cameras.world_to_camera, cameras.K, strict=True)
    ]
    return Images(*(torch.stack(parts) for parts in zip(*views, strict=True)))


def _view(
    g: Gaussians, features: Tensor, world_to_camera: Tensor, K: Tensor, cameras: Cameras, settings: RasterSettings
) -> tuple[Tensor, ...]:
    width, height = cameras.width, cameras.height
    centers = (torch.cat([g.means, torch.ones_like(g.means[:, :1])], dim=1) @ world_to_camera.T)[:, :3]
    order = [
        i for i in centers[:, 2].argsort(stable=True).tolist() if settings.near_plane <= centers[i, 2] <= settings.far_plane
    ]
    direction = g.means + world_to_camera[:3, :3].T @ world_to_camera[:3, 3]
    colors = legendre_colors(g.sh, direction)
    covariances = rotation_matrices(g.quats) @ torch.diag_embed(g.scales.square()) @ rotation_matrices(g.quats).transpose(1, 2)
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).double()
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    transmittance = torch.ones(height, width, dtype=torch.float64)
    finished = torch.zeros(height, width, dtype=torch.bool)
    steady = torch.ones(height, width, dtype=torch.bool)
    total = torch.zeros(height, width, 5 + features.shape[1], dtype=torch.float64) + 0 * features.sum()  # joins the graph
    median = torch.zeros(height, width, dtype=torch.float64)
    for i in order:
        x, y, z = centers[i]
        tan_x = torch.clamp(x / z, -cx / fx - 0.15 * width / fx, (width - cx) / fx + 0.15 * width / fx)
        tan_y = torch.clamp(y / z, -cy / fy - 0.15 * height / fy, (height - cy) / fy + 0.15 * height / fy)
        zero = torch.zeros_like(z)
        jacobian = torch.stack([torch.stack([fx / z, zero, -fx * tan_x / z]), torch.stack([zero, fy / z, -fy * tan_y / z])])
        to_screen = jacobian @ world_to_camera[:3, :3]
        sharp = to_screen @ covariances[i] @ to_screen.T
        covariance = sharp + settings.eps2d * torch.eye(2, dtype=torch.float64)
        opacity = g.opacities[i]
        if settings.antialiased:
            opacity = opacity * (torch.linalg.det(sharp) / torch.linalg.det(covariance)).sqrt()
        radii = (2 * (255 * opacity).log().clamp_min(0) * covariance.diagonal()).sqrt().detach()
        if not bool((radii.ceil() > settings.radius_clip).any()):
            continue
        offset = pixels - torch.stack([fx * x / z + cx, fy * y / z + cy])
        distance = (offset * torch.linalg.solve(covariance, offset[..., None])[..., 0]).sum(-1)
        alpha = opacity * torch.exp(-distance / 2)
        visible = (alpha >= 1 / 255) & ~finished
        clamped = alpha.clamp(max=0.999)
        after = transmittance * (1 - clamped)
        taken = visible & (after > 1e-4)
        near = (
            ((alpha * 255).log().abs() < 1e-3) | ((alpha - 0.999).abs() < 1e-5) | (visible & ((after * 1e4).log().abs() < 2e-2))
        )
        if settings.depth == "median":
            near |= (after - 0.5).abs() < 1e-4
            median = torch.where(visible & (transmittance >= 0.5) & (after < 0.5), z, median)
        if settings.radius_clip > 0 and (radii - settings.radius_clip).abs().min() < 1e-3:
            near |= visible
        steady &= ~(near & ~finished)
        weight = torch.where(taken, clamped * transmittance, 0.0)
        total = total + weight[..., None] * torch.cat([colors[i], z[None], torch.ones_like(z)[None], features[i]])
        finished = finished | (visible & ~taken)
        transmittance = torch.where(taken, after, transmittance)
    alpha = total[..., 4]
    depth = torch.where(alpha > 0, total[..., 3] / torch.where(alpha > 0, alpha, 1.0), 0.0)
    depth = median if settings.depth == "median" else depth
    return total[..., :3], total[..., 5:], depth, alpha, steady
