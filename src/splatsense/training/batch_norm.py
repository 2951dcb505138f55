"""Batch normalisation whose batch is that of all processes, on any device.

`torch.nn.SyncBatchNorm` refuses CPU tensors, so two processes could not be tested against one without a GPU.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from splatsense.training.collectives import process_count, sum_over_processes


class BatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`; in training its statistics are those of every process's rows together.

    With one process, and in evaluation, it is `torch.nn.BatchNorm1d` to the last bit.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) or (N, C, L) to the same shape."""
        if not self.training or process_count() == 1:
            return super().forward(input)
        others = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        with torch.autocast(input.device.type, enabled=False):
            rows = input.float()
            count = sum_over_processes(torch.full((1,), rows.numel() / rows.shape[1], device=rows.device))
            mean = sum_over_processes(rows.sum(others)) / count
            centered = rows - mean.view(shape)
            variance = sum_over_processes(centered.square().sum(others)) / count
            normal = centered * (variance + self.eps).rsqrt().view(shape)
            if self.affine:
                normal = normal * self.weight.view(shape) + self.bias.view(shape)
            self._track(mean.detach(), (variance * count / (count - 1).clamp_min(1)).detach())
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked or 1)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


@contextlib.contextmanager
def without_tracking(module: nn.Module) -> Iterator[None]:
    """While it lasts, forward passes in training leave the running statistics as they are."""
    tracking = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True
