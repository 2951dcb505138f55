"""Workers of a Ray cluster (extra `ray`): on this machine, or on all machines of a cluster by its address.

Design
- Plain remote tasks, one for each group, rather than Ray Data. A build is independent objects that take seconds each, so there
  is nothing for a data pipeline to shuffle, batch or fuse. What matters is to know which object killed a worker, to try it
  exactly once more, and to hear of each outcome as it is done so that it is safe on disk; Ray Data retries whole blocks
  without saying which row is at fault, and ends the whole job when one keeps failing.
- Ray's own retries are off, because `run_groups` counts for all engines alike.
- At most `slots` tasks are submitted at a time, so that outcomes wait in the object store only until the driver takes them.
- The machines of a cluster need this package of the same version and the corpus under the same paths; the output folder is the
  driver's alone.
"""

import importlib
import os

from splatsense.clip_gs.engines import Crash, Group, Outcome, Work
from splatsense.errors import SplatSenseError


class RayEngine:
    """Remote tasks of Ray.

    Args:
        work: what they do; sent to the cluster once.
        workers: how many tasks at a time; None for as many as the cluster has cores, or GPUs if `gpu`.
        address: of a running cluster, such as "auto" or "ray://host:10001"; "" starts one on this machine.
        gpu: tasks need a GPU, which they share when there are more of them.

    Raises:
        SplatSenseError: Ray is not installed, or the cluster cannot be reached or has no such resources.
    """

    def __init__(self, work: Work, workers: int | None, address: str = "", gpu: bool = False) -> None:
        try:
            ray = importlib.import_module("ray")
        except ImportError as error:
            raise SplatSenseError('--engine ray: Ray is missing; pip install "splatsense[ray]".') from error
        self._ray = ray
        self._owns = not ray.is_initialized()
        if self._owns:
            local = {} if address else {"num_cpus": workers or len(os.sched_getaffinity(0)), "include_dashboard": False}
            try:
                ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **local)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise SplatSenseError(f"--address {address}: no Ray cluster can be reached ({error}).") from error
        unit = "GPU" if gpu else "CPU"
        available = int(ray.cluster_resources().get(unit, 0))
        if not available:
            raise SplatSenseError(f"--engine ray: the cluster has no {unit}.")
        self.slots = workers or available
        gpu_share = min(1.0, int(1000 * available / self.slots) / 1000) if gpu else 0  # several workers may share a GPU
        self._work = ray.put(work)
        self._task = ray.remote(num_cpus=1, num_gpus=gpu_share, max_retries=0)(_run)
        self._running: dict[object, int] = {}

    def submit(self, ticket: int, group: Group) -> None:
        """Submit a task."""
        self._running[self._task.remote(self._work, group)] = ticket

    def wait(self) -> tuple[int, list[Outcome] | Crash]:
        """The outcomes of the next task that is done, or the crash of its worker or machine."""
        ray = self._ray
        (done, *_), _ = ray.wait(list(self._running), num_returns=1)
        ticket = self._running.pop(done)
        try:
            return ticket, ray.get(done)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError,
                ray.exceptions.ObjectLostError) as error:  # fmt: skip
            return ticket, Crash(f"{type(error).__name__}: killed, out of memory, or longer than --time-limit")

    def close(self) -> None:
        """Cancel what is under way; a cluster of our own is shut down."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        if self._owns:
            self._ray.shutdown()


def _run(work: Work, group: Group) -> list[Outcome]:
    return work(group)
