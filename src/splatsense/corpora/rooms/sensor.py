"""What a hand-held RGB-D sensor makes of a rendered view.

Design
- Colour: automatic exposure that lags behind, white balance that is a little off and drifts, motion and focus blur, vignetting,
  noise that grows with the signal.
- Depth: axial noise sigma(z) = 1.2 mm + 1.9 mm (z - 0.4 m)^2 and lateral noise of 0.8 pixels at 640 pixels' width (Nguyen,
  Izadi and Lovell 2012, "Modeling Kinect Sensor Noise"); disparity in steps of 1/8 pixel, so depth in steps that grow with
  its square; then whole millimetres.
- No depth: on glass and shining things, at grazing angles, at occlusion edges, nearer than 0.4 m, more and more beyond the
  range, in patches on dark and on smooth dark surfaces, and in a few stray pixels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy.ndimage import gaussian_filter, uniform_filter1d
from torch import Tensor

from splatsense.corpora.rooms.camera_path import smooth_noise
from splatsense.errors import DataError

MIDDLE_GREY = 0.23  # linear light the automatic exposure aims at
Image = Float32[np.ndarray, "h w"]
BASELINE = 0.075  # metres between projector and camera
SUBPIXEL = 8  # steps of disparity in a pixel
TONE_STEPS, BRIGHTEST = 16384, 4.0  # of the tone curve, and the light where it ends
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


def axial_sigma(depth: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Standard deviation of the noise of a depth in metres (Nguyen et al. 2012, equation 3)."""
    return 0.0012 + 0.0019 * (depth - 0.4) ** 2


def _tone_curve() -> np.ndarray:
    """8-bit sRGB, not rounded, of exposed light from 0 to `BRIGHTEST`; highlights roll off."""
    light = (np.arange(TONE_STEPS) + 0.5) * (BRIGHTEST / TONE_STEPS)
    rolled = np.where(light > 0.7, 1 - 0.3 * np.exp(-(light - 0.7) / 0.3), light)
    return (255 * rolled ** (1 / 2.2)).astype(np.float32)


TONE = _tone_curve()


class Sensor:
    """A sensor over one recording: its exposure and white balance go on from frame to frame."""

    def __init__(self, settings: SensorSettings, frames: int, rng: np.random.Generator) -> None:
        self.settings, self.rng = settings, rng
        self._balance = np.exp(rng.normal(0, 0.05, 3) + 0.02 * smooth_noise(rng, frames, 3, 8.0))
        self._jitter = np.exp(0.1 * smooth_noise(rng, frames, 1, 5.0)[:, 0])
        self._focus = np.abs(0.3 + 0.2 * smooth_noise(rng, frames, 1, 4.0)[:, 0])
        self._gain: float | None = None

    def color(self, index: int, light: Float[Tensor, "3 h w"], pixels_turned: float) -> UInt8[np.ndarray, "h w 3"]:
        """The image of linear light while the camera turns by so many pixels from one frame to the next."""
        image = light.numpy()
        middle = np.minimum(image, 3 * np.median(image[:, ::4, ::4]))[:, ::2, ::2].mean()  # a lamp in view must not darken all
        wanted = MIDDLE_GREY / max(float(middle), 1e-3)
        self._gain = wanted if self._gain is None else self._gain * (wanted / self._gain) ** 0.25
        blur, focus = int(np.clip(round(0.04 * pixels_turned), 0, 4)), self._focus[index]
        if blur > 1:
            image = uniform_filter1d(image, blur, axis=2, mode="nearest")
        if focus > 0.3:
            image = gaussian_filter(image, (0, focus, focus), mode="nearest", truncate=2.0)
        height, width = light.shape[1:]
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        vignette = (self._gain * self._jitter[index] * (1 - 0.09 * (x * x + y * y))).astype(np.float32)
        exposed = image * vignette * self._balance[index].astype(np.float32)[:, None, None]
        srgb = TONE[np.minimum(exposed * (TONE_STEPS / BRIGHTEST), TONE_STEPS - 1).astype(np.int32)]
        noise = self.rng.standard_normal(srgb.shape, dtype=np.float32) * np.float32(self.settings.color_noise)
        noisy = srgb + noise * (1.4 - srgb * np.float32(0.8 / 255))
        return np.ascontiguousarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8).transpose(1, 2, 0))

    def depth(
        self, depth: Image, cosine: Image, brightness: Image, shining: Bool[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w"]:
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
        height, width = depth.shape
        patches = gaussian_filter(rng.standard_normal((-(-height // 2), -(-width // 2)), dtype=np.float32), 2.0)
        patches = (patches / max(float(patches.std()), 1e-6)).repeat(2, 0).repeat(2, 1)[:height, :width]
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
