"""A Ray cluster of two machines, both this one, that is started apart, as administrators do."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print("lost", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


class TwoMachines:
    """The address of the cluster; one machine of it can be lost."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def lose_one(self) -> None:
        """Kill one of them, with all that runs there."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        while self._answer() != "lost":
            pass

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster did not start"
        return line.strip()


@contextlib.contextmanager
def two_machines(folder: Path) -> Iterator[TwoMachines]:
    """Start them, with a working directory of their own below `folder`, and stop them at the end."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], cwd=elsewhere, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    ) as process:  # fmt: skip
        try:
            yield TwoMachines(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
