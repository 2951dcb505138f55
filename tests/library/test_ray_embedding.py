"""Embedding through Ray Data on a real cluster of this machine, against adding here."""

import os
import shutil
import subprocess
import sys
import warnings

import pytest

from library.color_model import ColorModel
from ray_cluster import two_machines
from splatsense.library import Library
from splatsense.model_folder import find_model

pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
pytest.importorskip("pyarrow", reason="Ray Data is not installed (extra `ray`)")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_folder_embedded_through_ray_is_the_same_library(folder, tmp_path, model, monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    shutil.copy(folder / "red_0.splat", folder / "zcopy.splat")
    (folder / "broken.splat").write_bytes(b"x" * 45)
    with (
        Library(tmp_path / "here", model, isolated=False) as here,
        Library(tmp_path / "ray", ColorModel()) as through_ray,
    ):
        expected = here.add(folder, progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = through_ray.add(folder, progress=False, ray="local", draw=True)
        assert (report.indexed, report.skipped, report.failed) == (expected.indexed, expected.skipped, expected.failed)
        found, wanted = through_ray.search("red", k=9), here.search("red", k=9)
        assert [(hit.asset.sha256, hit.asset.bounds) for hit in found] == [
            (hit.asset.sha256, hit.asset.bounds) for hit in wanted
        ]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=1e-6)
        again = through_ray.add(folder, progress=False, ray="local")
        assert (again.indexed, again.skipped, len(again.failed)) == (0, 10, 1)
        assert through_ray.verify(contents=True).problems == []


@pytest.mark.slow
def test_a_cluster_embeds_a_folder_though_a_machine_is_lost(folder, tmp_path, monkeypatch):
    """By the command, with a model's folder given by a relative path."""
    shutil.copytree(find_model("clip-gs-tiny"), tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    with two_machines(tmp_path) as cluster:
        command = [sys.executable, "-m", "splatsense", "add", "library", folder.name, "--model", "my-model"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        with subprocess.Popen(
            [*command, "--ray", cluster.address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as add:
            cluster.lose_one()
            told, _ = add.communicate()
    assert add.returncode == 0, told
    assert "9 indexed, 0 already indexed, 0 failed." in told
    with Library(tmp_path / "library", tmp_path / "my-model") as library:
        assert library.verify(contents=True).problems == []
