"""Engines against the plain one, and against killed workers and drivers. The kills are real."""

import importlib.util
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ray_cluster import two_machines
from splatsense.clip_gs import local_engine
from splatsense.clip_gs.build import RunConfig, build_triplets
from splatsense.clip_gs.engines import Crash, InProcess, Outcome, make_outcomes, run_groups
from splatsense.clip_gs.local_engine import LocalEngine
from splatsense.clip_gs.shards import read_shard, shard_paths
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.corpora.folder import folder
from splatsense.errors import SplatSenseError

SMALL = TripletConfig(method="surface", gaussians=64, views=3, size=32, shard_size=4)
WORK = partial(make_outcomes, config=SMALL, device="cpu", time_limit=0)
COMMAND = ["--method", "surface", "--gaussians", "64", "--views", "3", "--size", "32", "--shard-size", "4"]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)")


class Scripted:
    """An engine whose workers die over chosen keys."""

    slots = 2

    def __init__(self, deadly):
        self.deadly, self.submitted, self.queue = deadly, [], []

    def submit(self, ticket, group):
        assert len(self.queue) < self.slots
        self.submitted.append([item.key for item in group])
        self.queue.append((ticket, group))

    def wait(self):
        ticket, group = self.queue.pop()
        for item in group:
            if self.deadly.get(item.key, 0) > 0:
                self.deadly[item.key] -= 1
                return ticket, Crash("it was ended by SIGKILL")
        return ticket, [Outcome(item.key, b"sample") for item in group]

    def close(self):
        pass


def contents(out):
    return {path.name: path.read_bytes() for path in shard_paths([out])}


def test_a_group_whose_worker_died_is_tried_again_one_by_one(boxes):
    engine = Scripted({boxes[1].key: 1, boxes[5].key: 2})
    groups = [tuple(boxes[at : at + 3]) for at in range(0, 8, 3)]
    outcomes = {outcome.key: outcome for outcome in run_groups(engine, groups)}
    assert len(outcomes) == 8
    failed = {key: outcome.reason for key, outcome in outcomes.items() if outcome.sample is None}
    assert failed == {boxes[5].key: "its worker died twice: it was ended by SIGKILL"}
    assert sum(boxes[1].key in group for group in engine.submitted) == 2
    assert [boxes[4].key] in engine.submitted


def test_two_processes_make_what_one_makes_and_survive_a_deadly_object(mesh_folder):
    corpus = folder(mesh_folder)
    deadly = replace(corpus[2], load_mesh=partial(signal.raise_signal, signal.SIGKILL))
    objects = [*corpus[:2], deadly, *corpus[3:]]
    engine = LocalEngine(WORK, 2)
    try:
        outcomes = list(run_groups(engine, [(item,) for item in objects]))
    finally:
        engine.close()
    assert sorted(outcome.key for outcome in outcomes) == sorted(item.key for item in corpus)
    by_key = {outcome.key: outcome for outcome in outcomes}
    assert by_key[corpus[2].key].reason == "its worker died twice: it was ended by SIGKILL"
    plain = {outcome.key: outcome for outcome in run_groups(InProcess(WORK), [(item,) for item in corpus])}
    assert all(by_key[item.key].sample == plain[item.key].sample for item in corpus if item != corpus[2])
    assert "holds no faces" in by_key["boxg"].reason


@pytest.mark.slow
def test_workers_killed_at_random_moments_lose_nothing(mesh_folder):
    corpus = folder(mesh_folder)
    draw = random.Random(1)
    engine = LocalEngine(WORK, 2)
    outcomes = []
    try:
        for outcome in run_groups(engine, [(item,) for item in corpus]):
            outcomes.append(outcome)
            if len(outcomes) in (2, 6):
                time.sleep(draw.uniform(0, 0.1))
                os.kill(engine._workers[len(outcomes) // 6].process.pid, signal.SIGKILL)
    finally:
        engine.close()
    assert sorted(outcome.key for outcome in outcomes) == sorted(item.key for item in corpus)
    plain = {outcome.key: outcome for outcome in run_groups(InProcess(WORK), [(item,) for item in corpus])}
    assert all(outcome.sample == plain[outcome.key].sample for outcome in outcomes)


@pytest.mark.slow
def test_a_worker_that_takes_too_long_is_ended(mesh_folder):
    corpus = folder(mesh_folder)
    endless = replace(corpus[0], load_mesh=partial(time.sleep, 1000))
    engine = LocalEngine(partial(WORK, time_limit=10), 1)
    try:
        outcomes = list(run_groups(engine, [(endless,), (corpus[1],)]))
    finally:
        engine.close()
    assert outcomes[0].reason == "its worker died twice: it took longer than --time-limit"
    assert outcomes[1].sample is not None


def start_build(source, out, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "splatsense", "triplets", "build", f"folder:{source}", str(out), *COMMAND, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def finished_objects(out: Path) -> int:
    shards = sum(1 for path in out.glob("triplets-*.tar") for _ in read_shard(path, with_views=False))
    return shards + len(list((out / "unfinished").glob("[!.]*.json")))


def kill_and_go_on(source, out, flags, moments, expected):
    """Start builds and kill each when some objects are done and some more time has passed; then let one end."""
    for objects, seconds in moments:
        build = start_build(source, out, *flags)
        while finished_objects(out) < objects and build.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        build.kill()
        build.communicate()
    build = start_build(source, out, *flags)
    told, _ = build.communicate()
    assert build.returncode == 0, told
    assert "triplets: 10/10" in told
    assert contents(out) == expected
    assert not (out / "unfinished").exists()
    keys = [triplet.key for path in shard_paths([out]) for triplet in read_shard(path)]
    assert len(keys) == len(set(keys)) == 9


@pytest.fixture
def plain(mesh_folder, tmp_path):
    """The shards as one process makes them undisturbed."""
    build_triplets(folder(mesh_folder), tmp_path / "plain", SMALL)
    return contents(tmp_path / "plain")


def test_a_killed_driver_loses_nothing(mesh_folder, tmp_path, plain):
    kill_and_go_on(mesh_folder, tmp_path / "out", ["--workers", "0"], [(3, 0.0)], plain)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["in process", "local", pytest.param("ray", marks=needs_ray)])
def test_drivers_killed_at_random_moments_lose_nothing(mesh_folder, tmp_path, plain, engine):
    flags = {"in process": ["--workers", "0"], "local": ["--workers", "2"], "ray": ["--engine", "ray", "--workers", "2"]}[
        engine
    ]
    draw = random.Random(0)
    moments = [(draw.randrange(0, 10), draw.uniform(0, 0.05)) for _ in range(4)]
    kill_and_go_on(mesh_folder, tmp_path / "out", flags, moments, plain)


RAY_BUILD = """
import os, signal, sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from splatsense.clip_gs.engines import make_outcomes, run_groups
from splatsense.clip_gs.ray_engine import RayEngine
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.corpora.folder import folder

config = TripletConfig(method="surface", gaussians=64, views=3, size=32, shard_size=4)
corpus = list(folder(sys.argv[1]))
corpus[2] = replace(corpus[2], load_mesh=partial(signal.raise_signal, signal.SIGKILL))
engine = RayEngine(partial(make_outcomes, config=config, device="cpu", time_limit=0), 2)
try:
    for outcome in run_groups(engine, [(item,) for item in corpus]):
        Path(sys.argv[2], outcome.key).write_bytes(outcome.sample or outcome.reason.encode())
finally:
    engine.close()
"""


@needs_ray
def test_ray_makes_what_one_process_makes_and_survives_a_killed_worker(mesh_folder, tmp_path):
    """In a process of its own: Ray starts servers and warns about things that are not ours."""
    out = tmp_path / "outcomes"
    out.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", RAY_BUILD, str(mesh_folder), str(out)], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    made = {path.name: path.read_bytes() for path in out.iterdir()}
    corpus = folder(mesh_folder)
    killed = corpus[2].key
    assert b"its worker died twice: WorkerCrashedError" in made[killed]
    plain = {outcome.key: outcome for outcome in run_groups(InProcess(WORK), [(item,) for item in corpus])}
    assert made.keys() == plain.keys()
    for key, outcome in plain.items():
        assert key == killed or made[key] == (outcome.sample or outcome.reason.encode())


@needs_ray
@pytest.mark.slow
def test_a_cluster_builds_the_same_shards_though_a_machine_is_lost(mesh_folder, tmp_path, plain, monkeypatch):
    """The path is relative, and workers of the cluster start elsewhere."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # what the machines of a cluster share
    with two_machines(tmp_path) as cluster:
        monkeypatch.chdir(mesh_folder.parent)
        build = start_build(mesh_folder.name, tmp_path / "out", "--engine", "ray", "--address", cluster.address)
        while finished_objects(tmp_path / "out") < 2 and build.poll() is None:
            time.sleep(0.01)
        cluster.lose_one()
        told, _ = build.communicate()
    assert build.returncode == 0, told
    assert contents(tmp_path / "out") == plain


def test_without_ray_the_engine_says_what_to_install(mesh_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SplatSenseError, match=r"pip install \"splatsense\[ray\]\""):
        build_triplets(folder(mesh_folder), tmp_path / "out", SMALL, RunConfig(engine="ray"))


def test_workers_get_the_devices_that_the_driver_sees(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8932f937")
    assert [local_engine._device(number) for number in range(2)] == ["5", "GPU-8932f937"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [local_engine._device(number) for number in range(2)] == ["0", "1"]
