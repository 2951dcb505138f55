"""How much memory reading takes, measured in a process of its own, whose peak can be reset between files."""

import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from splatsense.io import WRITERS, save

MOST = {
    "a.ply": 2, "faulty.ply": 2, "a.compressed.ply": 3, "a.splat": 2, "a.spz": 3, "a.sog": 4, "a.glb": 4, "a.gltf": 8,
    "a.npz": 3, "a.safetensors": 3,
}  # fmt: skip
"""Times the size of the Gaussians: the file, where it is read whole, and what converts and checks it on the way."""

MEASURE = """
import json, sys
from pathlib import Path
from splatsense.io import load

def resident(field):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))

found = {}
for name in sys.argv[2:]:
    load(Path(sys.argv[1], "small", name))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    gaussians = load(Path(sys.argv[1], "large", name))
    decoded = sum(getattr(gaussians, name).nbytes for name in ("means", "quats", "scales", "opacities", "sh"))
    found[name] = (resident("VmHWM") - before) * 1024 / decoded
    del gaussians
print(json.dumps(found))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process can be reset on Linux alone")
def test_memory_stays_near_the_size_of_the_result(tmp_path, make_gaussians):
    for folder, count in (("small", 10), ("large", 40_000)):
        (tmp_path / folder).mkdir()
        for suffix in WRITERS:
            save(make_gaussians(count, 1), tmp_path / folder / f"a{suffix}")
        data = (tmp_path / folder / "a.ply").read_bytes()
        (tmp_path / folder / "faulty.ply").write_bytes(data[:-8] + struct.pack("<ff", np.nan, np.nan))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path, *MOST],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    found = json.loads(run.stdout)
    assert found.keys() == MOST.keys()
    assert {name.removeprefix("a") for name in MOST} >= set(WRITERS)
    assert all(0.5 < found[name] < most for name, most in MOST.items()), found
