"""Warnings about recordings whose depth is probably in other units, or whose cameras do not fit their depth."""

import logging

import numpy as np

from splatsense.corpora.fusion import unproject
from splatsense.frames import Frames

log = logging.getLogger("splatsense")

SAMPLES = 6
NEAREST_MEDIAN, FARTHEST_MEDIAN = 0.15, 25.0  # metres: what indoor recordings have
LEAST_OVERLAP = 0.05  # of the pixels of a frame that the next one sees too
DISAGREEMENT = 0.15  # median relative difference between a frame's depth and another's seen from it


def warn_of_implausible_depth(frames: Frames, where: str) -> None:
    """Warn when the median depth suits no room, or depth and cameras of neighbouring frames contradict each other.

    Args:
        where: names the recording in the log.
    """
    apart = max(1, len(frames) // 30)
    firsts = np.unique(np.linspace(0, max(0, len(frames) - 1 - apart), SAMPLES).astype(int)).tolist()
    depths = {index: frames.frame(index)[1] for index in firsts}
    valid = np.concatenate([depth[depth > 0] for depth in depths.values()])
    if not len(valid):
        return  # fusion says so
    median = float(np.median(valid))
    if not NEAREST_MEDIAN <= median <= FARTHEST_MEDIAN:
        log.warning(
            "%s: half of its depth is below %.3g m, which suits no room; is a unit of its depth files %g m? Set --depth-scale "
            "(0.001 for millimetres, 0.0002 for TUM).", where, median, frames.depth_scale,
        )  # fmt: skip
    errors = [_disagreement(frames, depths[i], i, i + apart) for i in firsts if i + apart < len(frames)]
    known = [error for error in errors if error is not None]
    if known and np.median(known) > DISAGREEMENT:
        log.warning(
            "%s: depth and cameras disagree by %.0f %%: what one frame sees is elsewhere in the next. Check that its matrices "
            "are camera to world with x right, y down, z forward, in metres, and the depth's units (--depth-scale).",
            where, 100 * np.median(known),
        )  # fmt: skip


def _disagreement(frames: Frames, depth: np.ndarray, first: int, second: int) -> float | None:
    """Median relative difference of depth between two frames where both see something, or None where few pixels do."""
    K = frames.cameras.K.double().numpy()
    world_to_camera = frames.cameras.world_to_camera.double().numpy()
    points = unproject(depth, K[first], world_to_camera[first])[depth > 0]
    points = points @ world_to_camera[second, :3, :3].T + world_to_camera[second, :3, 3]
    points = points[points[:, 2] > 1e-3]
    pixels = points[:, :2] / points[:, 2:] * K[second, [0, 1], [0, 1]] + K[second, :2, 2]
    inside = ((pixels >= 0) & (pixels < [frames.cameras.width, frames.cameras.height])).all(1)
    column, row = pixels[inside].astype(int).T
    seen, expected = frames.frame(second)[1][row, column], points[inside, 2]
    both = seen > 0
    if both.sum() < LEAST_OVERLAP * depth.size:
        return None
    return float(np.median(np.abs(seen[both] - expected[both]) / expected[both]))
