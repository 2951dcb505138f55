"""A small deterministic model for tests: what it sees of a splat, a picture or a text is its colour."""

import hashlib
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians

COLORS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "grey": (0.5, 0.5, 0.5)}


def blob(color: tuple[float, float, float], seed: int = 0, count: int = 24) -> Gaussians:
    """A cloud of Gaussians of about one colour; no two seeds give the same file."""
    generator = torch.Generator().manual_seed(seed)
    rgb = (torch.tensor(color) + 0.1 * torch.randn(count, 3, generator=generator)).clamp(0, 1)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    scales = torch.full((count, 3), 0.1)
    return Gaussians.from_rgb(torch.randn(count, 3, generator=generator), quats, scales, torch.ones(count), rgb)


class ColorModel:
    """Embeds mean colours. `delay` is seconds for each batch of Gaussians."""

    def __init__(self, name: str = "colors", delay: float = 0.0) -> None:
        self.name = name
        self.hash = hashlib.sha256(name.encode()).hexdigest()
        self.delay = delay
        self.encoded = 0
        self.largest_batch = 0

    def encode_gaussians(self, objects: Sequence[Gaussians], batch_size: int = 16) -> Tensor:
        time.sleep(self.delay)
        if any(len(item) == 13 for item in objects):
            raise DataError("this model does not like 13 Gaussians.")
        self.encoded += len(objects)
        self.largest_batch = max(self.largest_batch, len(objects))
        return normalize(torch.stack([item.rgb.mean(0) for item in objects]), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        found = [[color for word, color in COLORS.items() if word in text.lower()] for text in texts]
        return normalize(
            torch.tensor(np.array([np.mean(colors or [(1.0, 1.0, 1.0)], axis=0) for colors in found], np.float32)), dim=-1
        )

    def encode_images(self, images: Sequence) -> Tensor:
        from PIL import Image

        opened = [image if isinstance(image, Image.Image | np.ndarray) else Image.open(image) for image in images]
        means = [np.asarray(image, np.float32)[..., :3].reshape(-1, 3).mean(0) for image in opened]
        return normalize(torch.tensor(np.array(means)), dim=-1)
