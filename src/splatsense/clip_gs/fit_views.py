"""`FitViews`: the pictures one object is fitted to, checked, in the sizes asked for, and the order they are drawn in."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from splatsense.cameras import Cameras
from splatsense.errors import DataError


class FitViews:
    """V views of one object, some of them held out.

    Attributes:
        train: (T,) indices of the views to fit to.
        held_out: (V - T,) indices of the others.
        generator: of everything that is drawn at random about the object; on the CPU, the same for every device.
    """

    def __init__(
        self, name: str, cameras: Cameras, images: Float[Tensor, "v h w 4"], held_out: Sequence[int], seed: int
    ) -> None:
        """Takes RGBA in [0, 1] whose alpha is not premultiplied; `name` begins the messages of errors. Raises DataError."""
        _check(name, cameras, images, held_out)
        color, alpha = images.float().split([3, 1], dim=-1)
        self.generator = torch.Generator().manual_seed(seed)
        self.held_out = torch.tensor(sorted(held_out), dtype=torch.long, device=images.device)
        self.train = torch.tensor([view for view in range(len(images)) if view not in set(held_out)], device=images.device)
        self._sizes = {1: (cameras, torch.cat([color * alpha, alpha], dim=-1))}
        self._waiting: list[int] = []
        if not bool((alpha[self.train] > 0).any()):
            raise DataError(f"{name}: the views to fit to show nothing; their alpha is 0 everywhere.")

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)

    def draw(self, count: int) -> Int[Tensor, " count"]:
        """The next views to fit to; each comes once before any comes again."""
        while len(self._waiting) < count:
            self._waiting += torch.randperm(len(self.train), generator=self.generator).tolist()
        drawn, self._waiting = self._waiting[:count], self._waiting[count:]
        return self.train[torch.tensor(drawn, device=self.train.device)]

    def take(self, views: Int[Tensor, " n"], shrink: int = 1) -> tuple[Cameras, Float[Tensor, "n h w 4"]]:
        """Cameras and premultiplied RGBA of some views, `shrink` times smaller."""
        if shrink not in self._sizes:
            self._sizes[shrink] = _shrunk(*self._sizes[1], shrink)
        cameras, targets = self._sizes[shrink]
        return cameras[views], targets[views]


def _shrunk(cameras: Cameras, targets: Tensor, factor: int) -> tuple[Cameras, Tensor]:
    height, width = (max(1, round(size / factor)) for size in targets.shape[1:3])
    small = adaptive_avg_pool2d(targets.permute(0, 3, 1, 2), (height, width)).permute(0, 2, 3, 1).contiguous()
    ratio = torch.tensor([width / cameras.width, height / cameras.height, 1]).to(cameras.K)
    return Cameras(cameras.world_to_camera, cameras.K * ratio[:, None], width, height), small


def _check(name: str, cameras: Cameras, images: Tensor, held_out: Sequence[int]) -> None:
    if images.ndim != 4 or images.shape[3] != 4 or not images.is_floating_point():
        raise DataError(
            f"{name}: images are {images.dtype} {tuple(images.shape)}, expected floats (V, H, W, 4), RGBA in [0, 1]."
        )
    if tuple(images.shape[:3]) != (len(cameras), cameras.height, cameras.width):
        raise DataError(
            f"{name}: {len(images)} images of {images.shape[2]} x {images.shape[1]}, "
            f"but {len(cameras)} cameras of {cameras.width} x {cameras.height}."
        )
    if not all(0 <= view < len(images) for view in held_out):
        raise DataError(f"{name}: held_out {list(held_out)} must be indices of the {len(images)} views.")
    if len(set(held_out)) == len(images):
        raise DataError(f"{name}: there are {len(images)} views and {len(set(held_out))} are held out; none is left to fit to.")
    for view, image in enumerate(images):
        low, high = image.aminmax()
        if not (bool(low >= 0) and bool(high <= 1)):  # also for NaN
            raise DataError(f"{name}: image {view} holds values that are not finite or not in [0, 1].")
