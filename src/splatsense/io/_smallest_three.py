"""Unit quaternions without their largest component, which the other three and the unit length give back.

Several packed formats store rotations so; they differ in the order of the components and in how the three are quantised.
"""

import numpy as np

HALF_SQRT_2 = 0.5**0.5
"""No component but the largest exceeds this in absolute value."""

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def drop_largest(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split unit quaternions (N, 4) into the index of the largest component (N,) and the other three (N, 3), in order.

    The sign is chosen so that the dropped component is positive.
    """
    largest = np.abs(quats).argmax(1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -1, 1).astype(quats.dtype)
    return largest, np.take_along_axis(quats, _OTHERS[largest], 1) * sign


def restore_largest(largest: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Quaternions (N, 4) of what `drop_largest` gives; unit length, unless damaged `others` are longer than that."""
    quats = np.empty((len(others), 4), others.dtype)
    np.put_along_axis(quats, _OTHERS[largest], others, 1)
    missing = np.sqrt(np.maximum(0, 1 - np.square(others).sum(1)))
    np.put_along_axis(quats, largest[:, None], missing[:, None], 1)
    return quats
