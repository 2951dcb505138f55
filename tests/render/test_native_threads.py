"""The rasteriser's thread pool: shared by several Python threads, and left behind by a fork."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from render.scenes import random_scene
from splatsense.native import load_native
from splatsense.render import native

pytestmark = pytest.mark.skipif(load_native() is None, reason="the native library is not built (make native)")


@pytest.fixture
def rasterise_and_differentiate(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Tensor]]:
    """Images and gradients of a scene with enough work for three threads."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # of the rasteriser, not of torch's own pool
    gaussians, features, cameras = random_scene(9000, 5, 1, 150, 130, seed=7)
    values = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh[None, :, 0], features)
    inputs = [value.float() for value in values]

    def run() -> list[Tensor]:
        leaves = means, quats, scales, opacities, colors, feature = [value.clone().requires_grad_() for value in inputs]
        images = native.rasterise(means, quats, scales, opacities, colors, feature, cameras)
        gradients = torch.autograd.grad(images, leaves, [image.detach() for image in images])
        return [image.detach() for image in images] + list(gradients)

    return run


def test_python_threads_at_once(rasterise_and_differentiate):
    expected = rasterise_and_differentiate()
    with ThreadPoolExecutor(4) as executor:
        runs = list(executor.map(lambda _: rasterise_and_differentiate(), range(12)))
    for run in runs:
        assert all(torch.equal(a, b) for a, b in zip(run, expected, strict=True))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child(rasterise_and_differentiate):
    """The pool's workers do not survive a fork, as data loaders use it."""
    expected = rasterise_and_differentiate()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        torch.set_num_threads(1)  # as data loaders do: torch's own threads do not survive a fork either, and it waits for them
        same = all(torch.equal(a, b) for a, b in zip(rasterise_and_differentiate()[:4], expected[:4], strict=True))
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
