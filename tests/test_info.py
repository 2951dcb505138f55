import json

import numpy as np
import pytest
import torch

from splatsense.cli import main
from splatsense.gaussians import Gaussians
from splatsense.info import QUANTILE_NAMES, file_info, find_faults
from splatsense.io import save


def blob(count=1000, scale=0.01, opacity=0.9, seed=0) -> Gaussians:
    means = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    return Gaussians.from_rgb(means, quats, torch.full((count, 3), scale), torch.full((count,), opacity), torch.rand(count, 3))


def test_figures_of_a_file(tmp_path):
    gaussians = blob()
    gaussians.scales[:, 1] = torch.linspace(0.02, 0.03, 1000)
    gaussians.opacities[:] = torch.linspace(0.25, 0.75, 1000)
    save(gaussians, tmp_path / "a.ply")
    info = file_info(tmp_path / "a.ply")
    assert (info.gaussians, info.sh_degree, info.warnings) == (1000, 0, [])
    assert info.bytes == (tmp_path / "a.ply").stat().st_size
    assert info.memory == 1000 * 14 * 4
    torch.testing.assert_close(torch.tensor([info.low, info.high]), gaussians.bounds)
    np.testing.assert_allclose(info.opacity, [0.25, 0.255, 0.375, 0.5, 0.625, 0.745, 0.75], atol=1e-5)
    np.testing.assert_allclose(info.scale, [0.02, 0.0201, 0.0225, 0.025, 0.0275, 0.0299, 0.03], atol=1e-5)


def test_nothing_is_wrong_with_a_blob():
    assert find_faults(blob()) == []


def test_transparency():
    assert find_faults(blob(opacity=0.001)) == ["Everything is transparent: no opacity reaches 0.004."]
    gaussians = blob()
    gaussians.opacities[:600] = 0
    assert find_faults(gaussians) == ["60% of the Gaussians are too transparent to be seen; they can be removed."]


def test_floaters():
    gaussians = blob()
    gaussians.means[0] = 50
    (fault,) = find_faults(gaussians)
    assert fault.startswith("Floaters: 1 Gaussian far outside the rest, which takes 4% of the extent")


def test_needles():
    gaussians = blob()
    gaussians.scales[:100, 2] = 0.5
    assert find_faults(gaussians) == ["10% of the Gaussians are needles, over 20 times as long as wide."]


def test_coordinates_too_large_for_float32():
    gaussians = blob()
    gaussians.means[:] += 100_000  # steps of 0.008, Gaussians of 0.01
    (fault,) = find_faults(gaussians)
    assert fault.startswith("Coordinates reach 100,001, where float32 has steps of 0.0078, ")
    gaussians.scales[:] = 0.02
    assert find_faults(gaussians) == []
    assert find_faults(blob(scale=0.0)) == []  # moving them would make nothing better


def test_rows_left_out_are_among_the_warnings(tmp_path, caplog):
    (tmp_path / "a.xyz").write_text("nan 0 0\n" + "".join(f"{i} {i % 7} {i % 5}\n" for i in range(50)))
    assert file_info(tmp_path / "a.xyz").warnings[0] == "left out 1 of 51 points that are not finite."
    assert not caplog.records  # said once


def test_what_is_no_splat_is_said_to_be_a_mesh_or_points(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 1 1 1\nf 1 2 3\nf 2 3 4\n")
    (tmp_path / "a.xyz").write_text("".join(f"{i} {i % 7} {i % 5}\n" for i in range(1200)))
    save(blob(), tmp_path / "a.ply")
    notes = {suffix: file_info(tmp_path / f"a{suffix}").notes for suffix in (".obj", ".xyz", ".ply")}
    assert notes == {
        ".obj": ["is a mesh of 2 faces, which is covered with Gaussians."],
        ".xyz": ["is a cloud of 1,200 points, each of which becomes a Gaussian."],
        ".ply": [],
    }


def test_the_command(tmp_path, capsys):
    save(blob(), tmp_path / "a.ply")
    assert main(["info", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "1,000, SH degree 0" in shown
    assert "median" in shown
    save(blob(), tmp_path / "more.ply")
    assert main(["info", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{shown}\n{shown.replace('a.ply', 'more.ply')}"
    (tmp_path / "more.ply").unlink()
    (tmp_path / "b.ply").write_bytes(b"ply\n")
    assert main(["info", str(tmp_path), "--json"]) == 1
    captured = capsys.readouterr()
    (only,) = json.loads(captured.out)
    assert only["gaussians"] == 1000
    assert list(only["opacity"]) == list(QUANTILE_NAMES)
    assert "1 input failed:" in captured.err
    assert "b.ply" in captured.err


@pytest.mark.parametrize("command", ["info", "render"])
def test_no_paths(command, capsys):
    assert main([command]) == 2
    assert "name at least one file or folder" in capsys.readouterr().err
