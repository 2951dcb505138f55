"""What a hand-held RGB-D sensor makes of a rendered view.

Design
- Colour: automatic exposure that lags behind, white balance that is a little off and drifts, motion and focus blur, vignetting,
  noise that grows with the signal.
- Depth: axial noise sigma(z) = 1.2 mm + 1.9 mm (z - 0.4 m)^2 and lateral noise of 0.8 pixels at 640 pixels' width (Nguyen, Izadi
  and Lovell 2012, "Modeling Kinect Sensor Noise"); disparity in steps of 1/8 pixel, so depth in steps that grow with its
  square; then whole millimetres.
- No depth: on glass and shining things, at grazing angles, at occlusion edges, nearer than 0.4 m, more and more beyond the
  range, in patches on dark and on smooth dark surfaces, and in a few stray pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, uniform_filter1d
from torch import Tensor

from splatsense.corpora.rooms.camera_path import smooth_noise
from splatsense.corpora.rooms.lighting import linear_to_srgb
from splatsense.errors import DataError

MIDDLE_GREY = 0.23  # linear light the automatic exposure aims at
BASELINE = 0.075  # metres between projector and camera
SUBPIXEL = 8  # steps of disparity in a pixel
FOCAL_OF_640 = 577.0  # pixels; noise in pixels is that of such a sensor, whatever size is drawn


@dataclass(frozen=True)
class SensorSettings:
    """How bad the sensor is.

    Attributes:
        depth_noise: factor on the axial noise; 0 for none, and no quantisation either.
        holes: factor on the probability of pixels without depth; 0 for none.
        color_noise: standard deviation of the noise in 8-bit sRGB steps.
        nearest, farthest: metres of the range.
    """

    depth_noise: float = 1.0
    holes: float = 1.0
    color_noise: float = 1.8
    nearest: float = 0.4
    farthest: float = 4.5

    def __post_init__(self) -> None:
        for name in ("depth_noise", "holes", "color_noise"):
            if not 0 <= getattr(self, name) <= 100:
                raise DataError(f"SensorSettings.{name} must be 0 to 100, got {getattr(self, name)}.")
        if not 0 < self.nearest < self.farthest:
            raise DataError(f"SensorSettings: 0 < nearest < farthest needed, got {self.nearest} and {self.farthest}.")


def axial_sigma(depth: np.ndarray) -> np.ndarray:
    """Standard deviation of the noise of a depth in metres (Nguyen et al. 2012, equation 3)."""
    return 0.0012 + 0.0019 * (depth - 0.4) ** 2


class Sensor:
    """A sensor over one recording: its exposure and white balance go on from frame to frame."""

    def __init__(self, settings: SensorSettings, frames: int, rng: np.random.Generator) -> None:
        self.settings, self.rng = settings, rng
        self._balance = np.exp(rng.normal(0, 0.05, 3) + 0.02 * smooth_noise(rng, frames, 3, 8.0))
        self._jitter = np.exp(0.1 * smooth_noise(rng, frames, 1, 5.0)[:, 0])
        self._focus = np.abs(0.35 + 0.25 * smooth_noise(rng, frames, 1, 4.0)[:, 0])
        self._gain: float | None = None

    def color(self, index: int, light: Tensor, pixels_turned: float) -> np.ndarray:
        """(H, W, 3) uint8 image of linear light while the camera turns by so many pixels from one frame to the next."""
        image = light.numpy()
        wanted = MIDDLE_GREY / max(float(np.minimum(image, 3 * np.median(image[::4, ::4])).mean()), 1e-3)
        self._gain = wanted if self._gain is None else self._gain * (wanted / self._gain) ** 0.25
        blur = int(np.clip(round(0.06 * pixels_turned), 0, 4))
        if blur > 1:
            image = uniform_filter1d(image, blur, axis=1, mode="nearest")
        if self._focus[index] > 0.3:
            image = gaussian_filter(image, (self._focus[index], self._focus[index], 0), mode="nearest", truncate=2.0)
        height, width = image.shape[:2]
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        gain = (self._gain * self._jitter[index] * (1 - 0.09 * (x * x + y * y)))[..., None] * self._balance[index]
        exposed = image * gain.astype(np.float32)
        rolled = np.where(exposed > 0.7, 1 - 0.3 * np.exp(-(exposed - 0.7) / 0.3), exposed)  # highlights roll off
        srgb = 255 * linear_to_srgb(torch.from_numpy(rolled)).numpy()
        noise = self.rng.standard_normal(srgb.shape, dtype=np.float32) * self.settings.color_noise
        return np.clip(np.rint(srgb + noise * (0.6 + 0.8 * (1 - srgb / 255))), 0, 255).astype(np.uint8)

    def depth(self, depth: np.ndarray, cosine: np.ndarray, brightness: np.ndarray, shining: np.ndarray) -> np.ndarray:
        """(H, W) float32 metres, 0 where the sensor has no depth.

        Args:
            depth: (H, W) true depth along z.
            cosine: (H, W) of the angle between the ray and the surface's normal, 0 to 1.
            brightness: (H, W) of the surface, 0 to 1.
            shining: (H, W) bool, glass and lamps.
        """
        settings, rng, shape = self.settings, self.rng, depth.shape
        measured = _shifted(depth, rng, shape[1] / 640) if settings.depth_noise else depth
        lost = (measured <= 0) | (measured < settings.nearest)
        if settings.holes:
            lost |= self._holes(measured, cosine, brightness, shining)
        if settings.depth_noise:
            noise = rng.standard_normal(shape, dtype=np.float32)
            measured = measured + settings.depth_noise * axial_sigma(measured) * noise
            disparity = FOCAL_OF_640 * BASELINE * SUBPIXEL / np.maximum(measured, 0.05)
            measured = FOCAL_OF_640 * BASELINE * SUBPIXEL / np.rint(disparity)
            measured = np.rint(measured * 1000) / 1000
        return np.where(lost, 0.0, measured).astype(np.float32)

    def _holes(self, depth: np.ndarray, cosine: np.ndarray, brightness: np.ndarray, shining: np.ndarray) -> np.ndarray:
        rng, settings = self.rng, self.settings
        patches = gaussian_filter(rng.standard_normal(depth.shape, dtype=np.float32), 4.0)
        patches /= max(float(patches.std()), 1e-6)
        dark = np.clip((0.12 - brightness) / 0.12, 0, 1)
        grazing = np.clip((0.28 - cosine) / 0.28, 0, 1)
        far = np.clip((depth - settings.farthest) / 1.0, -0.5, 1.0) + 0.5
        odds = 0.004 + 0.9 * grazing**1.5 + 0.85 * np.clip(far, 0, 1) ** 2 + 0.9 * shining
        odds = odds + (patches > 1.2 - 1.3 * dark) * dark * 0.95 + 0.6 * _edges(depth)
        return rng.random(depth.shape, dtype=np.float32) < settings.holes * odds


def _edges(depth: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels beside a jump in depth."""
    found = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        near, far = np.moveaxis(depth, axis, 0)[:-1], np.moveaxis(depth, axis, 0)[1:]
        jump = abs(near - far) > 0.04 * np.minimum(near, far) + 0.02
        view = np.moveaxis(found, axis, 0)
        view[:-1] |= jump
        view[1:] |= jump
    return found


def _shifted(depth: np.ndarray, rng: np.random.Generator, scale: float) -> np.ndarray:
    """Each pixel takes the depth of one at a small random distance, which frays edges (lateral noise)."""
    height, width = depth.shape
    shift = np.rint(0.8 * scale * rng.standard_normal((2, height, width), dtype=np.float32)).astype(np.int32)
    row = np.clip(np.arange(height)[:, None] + shift[0], 0, height - 1)
    column = np.clip(np.arange(width) + shift[1], 0, width - 1)
    moved = depth[row, column]
    return np.where(depth > 0, np.where(moved > 0, moved, depth), 0)
