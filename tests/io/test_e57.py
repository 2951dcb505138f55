import numpy as np
import pytest

from splatsense.errors import FormatError
from splatsense.io import e57 as module
from splatsense.io import load, read_e57

pye57 = pytest.importorskip("pye57")


def scan(count=40, seed=0, color=True):
    random = np.random.default_rng(seed)
    fields = {f"cartesian{axis}": random.normal(size=count) for axis in "XYZ"}
    if color:
        fields |= {f"color{name}": random.integers(0, 256, count).astype(np.uint8) for name in ("Red", "Green", "Blue")}
    return fields


def write_e57(path, *scans, **pose):
    with pye57.E57(str(path), mode="w") as file:
        for fields in scans:
            file.write_scan_raw(fields, **pose)


def test_points_and_colours(tmp_path):
    fields = scan()
    write_e57(tmp_path / "a.e57", fields)
    cloud = read_e57(tmp_path / "a.e57")
    np.testing.assert_allclose(cloud.points, np.stack([fields[f"cartesian{axis}"] for axis in "XYZ"], 1), atol=1e-6)
    colors = np.stack([fields[f"color{name}"] for name in ("Red", "Green", "Blue")], 1)
    np.testing.assert_allclose(cloud.colors, colors / max(255, colors.max()), atol=0.02)
    assert len(load(tmp_path / "a.e57")) == 40


def test_scans_are_brought_to_the_common_frame(tmp_path):
    first, second = scan(seed=1), scan(seed=2, color=False)
    quarter_turn_about_z = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    write_e57(tmp_path / "a.e57", first, second, rotation=quarter_turn_about_z, translation=np.array([500000.0, 20, 30]))
    cloud = read_e57(tmp_path / "a.e57")
    x, y, z = (np.concatenate([first[f"cartesian{axis}"], second[f"cartesian{axis}"]]) for axis in "XYZ")
    expected = np.stack([500000 - y, 20 + x, 30 + z], 1)
    np.testing.assert_allclose(cloud.points + np.array(cloud.origin), expected, rtol=0, atol=1e-5)
    assert cloud.colors is not None
    np.testing.assert_allclose(cloud.colors[40:], 0.5)


def test_damaged_files(tmp_path):
    path = tmp_path / "a.e57"
    write_e57(path, scan(2000))
    data = path.read_bytes()
    for size in (8, 48, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"a\.e57: cut off or damaged: "):
            load(path)
    damaged = bytearray(data)
    damaged[1500:1600] = b"\xff" * 100
    path.write_bytes(damaged)
    with pytest.raises(FormatError, match="cut off or damaged: checksum mismatch, file is corrupted"):
        load(path)


def test_without_pye57_the_message_names_the_extra(tmp_path, monkeypatch):
    write_e57(tmp_path / "a.e57", scan())
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FormatError, match=r"pip install splatsense\[e57\]"):
        load(tmp_path / "a.e57")
