"""Augmentation of scenes in training: the transforms of the released GaussianCross configs (arXiv 2508.02172) and Pointcept's.

Everything is drawn from a generator, in a fixed order, so a sample is a function of its seed.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn.functional import avg_pool3d, grid_sample

from splatsense.errors import DataError
from splatsense.segmentation.points import NONE, Points


@dataclass(frozen=True)
class AugmentConfig:
    """Chances and ranges."""

    dropout: float = 0.2
    """share of the points left out"""
    dropout_chance: float = 0.2
    """how often points are left out"""
    thin: float = 1.0
    """smallest share of the points that is kept; that of each scene is drawn log-uniformly between it and 1"""
    turn_chance: float = 0.5
    """how often a scene is turned about the vertical, by any angle"""
    tilt: float = 180 / 64
    """most degrees of turns about x and y"""
    tilt_chance: float = 0.5
    """of each of these"""
    scale: tuple[float, float] = (0.9, 1.1)
    """range of the factor on coordinates"""
    flip_chance: float = 0.5
    """of mirroring x, and of mirroring y"""
    jitter: float = 0.005
    """standard deviation of noise on coordinates, in metres"""
    jitter_clip: float = 0.02
    """its largest value"""
    elastic: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    """elastic distortion: spacing and strength of each field of noise, in metres; none for S3DIS"""
    elastic_chance: float = 0.95
    """how often it is applied"""
    contrast_chance: float = 0.2
    """how often the contrast is stretched, by a random part"""
    color_shift: float = 0.05
    """largest shift of each channel"""
    color_shift_chance: float = 0.95
    """how often colours are shifted"""
    color_jitter: float = 0.05
    """standard deviation of noise on colours"""
    color_jitter_chance: float = 0.95
    """how often it is added"""

    def __post_init__(self) -> None:
        chances = {name: value for name, value in vars(self).items() if name.endswith("chance") or name == "dropout"}
        wrong = [name for name, value in chances.items() if not 0 <= value <= 1]
        if wrong:
            raise DataError(f"AugmentConfig.{wrong[0]}: must lie in [0, 1], got {chances[wrong[0]]}.")
        if not 0 < self.thin <= 1:
            raise DataError(f"AugmentConfig.thin: must lie in (0, 1], got {self.thin}.")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise DataError(f"AugmentConfig.scale: needs two factors above 0 in order, got {self.scale}.")


def augment(points: Points, config: AugmentConfig, generator: torch.Generator, keep_labelled: bool = False) -> Points:
    """An augmented scene.

    Args:
        points: of a scene.
        config: what is done, and how often.
        generator: of the random numbers.
        keep_labelled: never leave out points that have a class, for scenes with few of them.
    """
    points = _drop(points.centered(), config, generator, keep_labelled)
    coord, normal = _turn(points.coord, points.normal, config, generator)
    low, high = config.scale
    coord = coord * (low + (high - low) * _uniform(generator))
    for axis in (0, 1):
        if _uniform(generator) < config.flip_chance:
            mirror = torch.ones(3)
            mirror[axis] = -1
            coord, normal = coord * mirror, normal * mirror
    noise = torch.randn(coord.shape, generator=generator) * config.jitter
    coord = coord + noise.clamp(-config.jitter_clip, config.jitter_clip)
    if _uniform(generator) < config.elastic_chance:
        for spacing, strength in config.elastic:
            coord = elastic_distortion(coord, spacing, strength, generator)
    return replace(points, coord=coord, normal=normal, color=_recolor(points.color, config, generator))


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _drop(points: Points, config: AugmentConfig, generator: torch.Generator, keep_labelled: bool) -> Points:
    share = 1 - config.dropout * (_uniform(generator) < config.dropout_chance)
    if config.thin < 1:
        share *= config.thin ** _uniform(generator)
    if share == 1:
        return points
    kept = torch.zeros(len(points), dtype=torch.bool)
    count = max(1, int(len(points) * share))
    kept[torch.randperm(len(points), generator=generator)[:count]] = True
    return points[kept | (points.semantic != NONE)] if keep_labelled else points[kept]


def _turn(coord: Tensor, normal: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turns about z through the origin, and about x and y through the middle of the box."""
    for axis, chance, most in ((2, config.turn_chance, 180.0), (0, config.tilt_chance, config.tilt),
                               (1, config.tilt_chance, config.tilt)):  # fmt: skip
        if _uniform(generator) < chance:
            turn = rotation(axis, most * (2 * _uniform(generator) - 1))
            middle = torch.zeros(3) if axis == 2 else (coord.amin(0) + coord.amax(0)) / 2
            coord, normal = (coord - middle) @ turn.T + middle, normal @ turn.T
    return coord, normal


def rotation(axis: int, degrees: float) -> Float32[Tensor, "3 3"]:
    """The right-handed turn about a coordinate axis."""
    angle = math.radians(degrees)
    turn = torch.eye(3)
    after, last = (axis + 1) % 3, (axis + 2) % 3
    turn[after, after] = turn[last, last] = math.cos(angle)
    turn[last, after], turn[after, last] = math.sin(angle), -math.sin(angle)
    return turn


def elastic_distortion(
    coord: Float32[Tensor, "n 3"], spacing: float, strength: float, generator: torch.Generator
) -> Float32[Tensor, "n 3"]:
    """Points moved by a smooth random field: normal noise on a grid, averaged twice over 3 x 3 x 3 nodes, times `strength`.

    Args:
        coord: in metres.
        spacing: of the grid, in metres.
        strength: metres of a displacement of one.
        generator: of the noise.
    """
    low = coord.amin(0)
    nodes = ((coord.amax(0) - low) / spacing).floor().long() + 3
    noise = torch.randn(1, 3, *nodes.tolist(), generator=generator)
    for _ in range(2):
        noise = avg_pool3d(noise, 3, stride=1, padding=1)
    place = ((coord - low) / spacing + 1) / (nodes - 1) * 2 - 1  # -1 and 1 are the outermost nodes
    field = grid_sample(noise, place.flip(1)[None, None, None], mode="bilinear", align_corners=True)
    return coord + strength * field[0, :, 0, 0].T


def _recolor(color: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    if _uniform(generator) < config.contrast_chance:
        low, high = color.amin(0), color.amax(0)
        stretched = (color - low) / (high - low).clamp_min(1 / 255)
        color = torch.lerp(color, stretched, _uniform(generator))
    if _uniform(generator) < config.color_shift_chance:
        shift = (torch.rand(3, generator=generator) * 2 - 1) * config.color_shift
        color = (color + shift).clamp(0, 1)
    if _uniform(generator) < config.color_jitter_chance:
        color = (color + torch.randn(color.shape, generator=generator) * config.color_jitter).clamp(0, 1)
    return color
