"""Upright boxes: what rooms are planned with. A box may turn about the vertical axis only."""

import math
from dataclasses import dataclass

import numpy as np

TOUCH = 1e-4  # metres two boxes may share without overlapping


@dataclass(frozen=True)
class Box:
    """An upright box.

    Attributes:
        x, y: its centre in the room, metres.
        width, depth: its sides along its own x and y.
        bottom, top: heights above the floor.
        yaw: turn about the vertical axis in radians, counter-clockwise seen from above; at 0 its front faces -y.
    """

    x: float
    y: float
    width: float
    depth: float
    bottom: float
    top: float
    yaw: float = 0.0

    @property
    def axes(self) -> np.ndarray:
        """(2, 2): rows are its own x and y axis in the room."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([[cos, sin], [-sin, cos]])

    @property
    def front(self) -> np.ndarray:
        """(2,) unit vector towards which its front faces."""
        return -self.axes[1]

    @property
    def corners(self) -> np.ndarray:
        """(4, 2) corners of its footprint, counter-clockwise."""
        half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [self.width / 2, self.depth / 2]
        return half @ self.axes + [self.x, self.y]

    def at(self, right: float, back: float) -> tuple[float, float]:
        """The room's (x, y) of a point given in the box's own axes, from its centre."""
        x, y = np.array([right, back]) @ self.axes + [self.x, self.y]
        return float(x), float(y)

    def overlaps(self, other: "Box", margin: float = 0.0) -> bool:
        """Whether the two come closer than `margin` metres sideways while sharing some height."""
        if self.bottom >= other.top - TOUCH or other.bottom >= self.top - TOUCH:
            return False
        reach = math.hypot(self.width, self.depth) + math.hypot(other.width, other.depth)
        if math.hypot(self.x - other.x, self.y - other.y) > reach / 2 + margin:
            return False
        ours, theirs = self.corners, other.corners
        for axis in (*self.axes, *other.axes):  # separating axes of two rectangles
            a, b = ours @ axis, theirs @ axis
            if a.min() >= b.max() + margin - TOUCH or b.min() >= a.max() + margin - TOUCH:
                return False
        return True
