"""Everything that runs on a device, on the CPU and elsewhere: on a CUDA device where there is one, else on a pretended one.

The pretended device (`pretend_gpu`) finds tensors that stayed on the CPU; only a GPU finds what its kernels do.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from device_steps import STEPS
from pretend_gpu import IS_POSSIBLE
from training_runs import python_environment

ROUGH = {"clip_gs_in_bfloat16": 5e-2, "segmentation_in_bfloat16": 5e-2, "rendering": 1e-2, "triplets": 5e-2}
"""Relative tolerance where types differ, or where rounding decides which pixels a Gaussian reaches."""


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(
            "pretend",
            marks=[pytest.mark.slow, pytest.mark.skipif(not IS_POSSIBLE, reason="this PyTorch registers no such device")],
        ),
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
        ),
    ],
)
def found(request, tmp_path_factory) -> tuple[str, dict]:
    """The device, and what each step found on it and on the CPU."""
    out = tmp_path_factory.mktemp("devices") / "found.json"
    command = [sys.executable, str(Path(__file__).with_name("device_steps.py")), request.param, str(out)]
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(out.read_text())


@pytest.mark.parametrize("name", STEPS)
def test_what_runs_on_a_cpu_runs_on_a_device(found, name):
    device, steps = found
    ours, exact = steps[name][device], steps[name]["cpu"]
    for numbers in (ours, exact):
        assert isinstance(numbers, list), numbers
    assert len(exact) > 0
    assert ours == pytest.approx(exact, rel=ROUGH.get(name, 2e-3), abs=1e-6)
