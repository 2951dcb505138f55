"""The fuzzer itself: it finds each sort of fault that it is there to find, and our readers hold for a few seconds."""

import gc
import importlib
import os
import random
import sys
import time
from pathlib import Path

import pytest
import torch

from splatsense.errors import FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import POINT_CLOUD_READERS, READERS, load

TOOLS = Path(__file__).parents[2] / "tools"

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and reads /proc"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.fixture
def fuzz(tools):
    """The tool; it imports what writes its seeds."""
    for oracle in ("gaussforge", "laspy", "pye57"):
        pytest.importorskip(oracle, reason=f"{oracle} writes some of the seeds")
    return importlib.import_module("fuzz")


@pytest.fixture
def seeds(fuzz):
    return fuzz.make_seeds()


def good() -> Gaussians:
    return Gaussians(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 3), torch.ones(1), torch.zeros(1, 1, 3))


def foreign(path):
    raise KeyError("x")


def nameless(path):
    raise FormatError("somewhere something is wrong")


def wrapped(path):
    try:
        raise MemoryError
    except MemoryError as error:
        raise FormatError(f"{path}: damaged") from error


def tidying_and_hungry(path):
    """What is freed here was taken before: it must not be set against what is taken here."""
    gc.collect()
    return hungry(path)


def hungry(path):
    block = torch.ones(1 << 27).sum()  # far more than is allowed: the kernel may take other pages back meanwhile
    return good() if block else None


def hanging(path):
    time.sleep(60)


def crashing(path):
    os._exit(3)


def invalid(path):
    gaussians = good()
    gaussians.scales[0] = torch.nan
    return gaussians


def fine(path):
    return good()


def refusing(path):
    raise FormatError(f"{path}: cut off")


@pytest.mark.parametrize(
    ("reader", "status"),
    [
        (foreign, "foreign"),
        (nameless, "foreign"),
        (wrapped, "memory"),
        (hungry, "memory"),
        (hanging, "hang"),
        (crashing, "crash"),
        (invalid, "invalid"),
        (fine, "loaded"),
        (refusing, "refused"),
    ],
)
def test_each_fault_is_told(tmp_path, reader, status):
    from fuzzing.case import Case
    from fuzzing.worker import Worker

    worker = Worker(tmp_path / "case", reader, wall_seconds=2 if reader is hanging else 30)
    try:
        for _ in range(2):  # the second time in a new process, where the first has gone
            outcome = worker.run(Case("ply", "a.ply", {"a.ply": b"ply\n"}))
            assert outcome.status == status, outcome.detail
            assert outcome.is_finding == (status not in ("loaded", "refused"))
    finally:
        worker.close()


def test_memory_of_the_parent_does_not_hide_that_of_a_case(tmp_path):
    from fuzzing.case import Case
    from fuzzing.worker import Worker

    gc.disable()
    try:
        garbage = [torch.ones(1 << 27)]
        garbage.append(garbage)
        del garbage
        worker = Worker(tmp_path / "case", tidying_and_hungry)
    finally:
        gc.enable()
    try:
        assert worker.run(Case("ply", "a.ply", {"a.ply": b"ply\n"})).status == "memory"
    finally:
        worker.close()


def needs_x_and_y(path):
    data = path.read_bytes()
    if b"X" in data and b"Y" in data:
        raise ValueError("both")
    return good()


def test_findings_are_made_small_and_saved(tmp_path, fuzz):
    from fuzzing.case import Case

    seed = Case("ply", "a.ply", {"a.ply": b"ply\n" + b"abXcd" * 100 + b"efYgh" * 50, "b.txt": b"companion"})
    findings = fuzz.fuzz([seed], needs_x_and_y, 0.5, 0, tmp_path)
    assert [outcome.status for outcome in findings.values()].count("foreign") == 1
    assert any(path.read_bytes() in (b"XY", b"YX") for path in tmp_path.rglob("*") if path.is_file())
    assert "ValueError: both" in next(tmp_path.glob("ply-foreign-*/report.txt")).read_text()


def test_there_are_seeds_of_every_format(seeds):
    kinds = {seed.kind for seed in seeds}
    assert kinds >= READERS.keys() | POINT_CLOUD_READERS.keys()
    assert kinds >= {"ply", "compressed.ply", "obj", "stl", "glb", "gltf"}


def test_the_same_seed_gives_the_same_cases(seeds):
    from fuzzing.mutations import mutate

    def cases():
        rng = random.Random(5)
        return [mutate(rng.choice(seeds), rng, seeds) for _ in range(300)]

    first = cases()
    assert first == cases()
    assert sum(case not in seeds for case in first) > 250


def test_readers_hold_for_a_moment(tmp_path, fuzz, seeds):
    small = [seed for seed in seeds if seed.kind in ("ply", "splat", "spz")]
    assert fuzz.fuzz(small, load, 1.0, 11, tmp_path) == {}
