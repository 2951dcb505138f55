"""How much memory reading takes, measured in a process of its own, whose peak can be reset between formats."""

import json
import os
import subprocess
import sys

import pytest

from splatsense.io import save

MOST = {".sog": 4, ".glb": 4, ".gltf": 8, ".npz": 3, ".safetensors": 3}
"""Times the size of the Gaussians: the file, where it is read whole, and what converts and checks it on the way."""

MEASURE = """
import json, sys
from pathlib import Path
from splatsense.io import load

def resident(field):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))

found = {}
for suffix in sys.argv[3:]:
    load(sys.argv[1] + suffix)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    gaussians = load(sys.argv[2] + suffix)
    decoded = sum(getattr(gaussians, name).nbytes for name in ("means", "quats", "scales", "opacities", "sh"))
    found[suffix] = (resident("VmHWM") - before) * 1024 / decoded
    del gaussians
print(json.dumps(found))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process can be reset on Linux alone")
def test_memory_stays_near_the_size_of_the_result(tmp_path, make_gaussians):
    for name, count in (("small", 10), ("large", 60_000)):
        for suffix in MOST:
            save(make_gaussians(count, 1), tmp_path / f"{name}{suffix}")
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "small", tmp_path / "large", *MOST],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    found = json.loads(run.stdout)
    assert found.keys() == MOST.keys()
    assert all(0.5 < found[suffix] < most for suffix, most in MOST.items()), found
