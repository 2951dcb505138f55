"""What tests of training runs share: interrupting one, comparing two, starting one in other processes."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from splatsense.training.checkpoint import CURRENT
from splatsense.training.metrics import METRICS

TWO_PROCESSES = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")  # on a free port


@contextlib.contextmanager
def interrupted_before(step: int, run_class: type) -> Iterator[None]:
    """What is trained in the block is interrupted before that step."""
    original = run_class.step

    def interrupt(self, number, batch):
        if number == step:
            raise KeyboardInterrupt
        return original(self, number, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_class, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            yield


def assert_same_runs(first: Path | str, second: Path | str) -> None:
    """Bit for bit the same weights, optimiser and metrics in two folders of runs."""
    ours, theirs = (load_file(Path(folder, CURRENT)) for folder in (first, second))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert Path(first, METRICS).read_text() == Path(second, METRICS).read_text()


def end_with_the_group() -> None:
    """In a process of several, when training is over: exit with an error if the threads of its group are still there.

    One that outlives Python aborts the process, now and then.
    """
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    if "pt_gloo_runloop" in threads:
        sys.exit(f"the group's threads are still there: {threads}")


def python_environment() -> dict[str, str]:
    """Of a Python that imports this package and what the tests share."""
    tests = Path(__file__).parent
    paths = [str(tests.parent / "src"), str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
