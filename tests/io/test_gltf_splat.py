"""`data/` holds files that other programs made; see `data/README.md`."""

import base64
import gzip
import json
import logging
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import DataError, FormatError, LimitError, SplatSenseError
from splatsense.gaussians import Gaussians, quaternion_to_matrix
from splatsense.io import load, read_gltf, read_ply, save, write_gltf, write_spz
from splatsense.io.mesh import linear_to_srgb
from splatsense.spherical_harmonics import SH_C0, sh_to_rgb

DATA = Path(__file__).parent / "data"
EXTENSION = "KHR_gaussian_splatting"
FIELDS = ("means", "scales", "opacities", "sh")
COMPONENTS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}


def columns(gaussians, degree=0):
    """The attributes of the ratified extension, as arrays."""
    g = gaussians
    terms = [f"SH_DEGREE_{band}_COEF_{term}" for band in range(degree + 1) for term in range(2 * band + 1)]
    return {
        "POSITION": g.means.numpy(),
        f"{EXTENSION}:ROTATION": g.quats[:, [1, 2, 3, 0]].contiguous().numpy(),
        f"{EXTENSION}:SCALE": g.scales.numpy(),
        f"{EXTENSION}:OPACITY": g.opacities[:, None].numpy(),
        **{f"{EXTENSION}:{term}": g.sh[:, index].contiguous().numpy() for index, term in enumerate(terms)},
    }


def document(values, normalized=(), extension=None):
    """The JSON of a file and its buffer, with one primitive that has `values` as attributes."""
    views, accessors, buffer = [], [], b""
    for index, (name, value) in enumerate(values.items()):
        data = value.tobytes()
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(data)})
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[value.shape[1]]
        accessors.append(
            {"bufferView": index, "componentType": COMPONENTS[value.dtype.name], "count": len(value), "type": kind}
        )
        if name in normalized:
            accessors[-1]["normalized"] = True
        buffer += data + bytes(-len(data) % 4)
    primitive = {
        "attributes": {name: index for index, name in enumerate(values)},
        "mode": 0,
        "extensions": {
            EXTENSION: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"} if extension is None else extension
        },
    }
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": len(buffer)}],
        "bufferViews": views,
        "accessors": accessors,
    }, buffer


def glb(path, parsed, buffer) -> Path:
    text = json.dumps(parsed).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(buffer), 0x004E4942) + buffer
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def with_data_uri(parsed, buffer):
    uri = "data:application/octet-stream;base64," + base64.b64encode(buffer).decode()
    return parsed | {"buffers": [{"byteLength": len(buffer), "uri": uri}]}


def gltf(path, parsed) -> Path:
    path.write_text(json.dumps(parsed))
    return path


def check_equal(found, expected, **tolerance):
    for name in FIELDS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **tolerance, msg=name)
    matrices = [quaternion_to_matrix(g.quats) for g in (found, expected)]
    torch.testing.assert_close(*matrices, rtol=0, atol=1e-5)


EXACT = {"rtol": 0, "atol": 0}


@pytest.mark.parametrize("degree", range(4))
def test_a_file_written_by_hand(tmp_path, make_gaussians, degree):
    gaussians = make_gaussians(5, degree)
    check_equal(load(glb(tmp_path / "a.glb", *document(columns(gaussians, degree)))), gaussians, **EXACT)


def test_splat_transform_means_the_same():
    """splat-transform turns PLY by 180 degrees about z to have y up; we keep the axes of either file."""
    source = read_ply(DATA / "splat_transform_glb_source.ply").transform(torch.diag(torch.tensor([-1.0, -1.0, 1.0])))
    check_equal(load(DATA / "splat_transform.glb"), source, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
@settings(max_examples=20)
@given(count=st.integers(1, 60), degree=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_round_trip_is_exact(tmp_path_factory, make_gaussians, suffix, count, degree, seed):
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    gaussians = make_gaussians(count, degree, seed)
    save(gaussians, path)
    back = load(path)
    check_equal(back, gaussians, **EXACT)
    torch.testing.assert_close(back.quats, gaussians.quats, rtol=0, atol=3e-7)


def test_what_is_written_is_valid_gltf(tmp_path, make_gaussians):
    gaussians = make_gaussians(9, 1)
    write_gltf(gaussians, tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    magic, version, length, json_length, kind = struct.unpack_from("<4sIIII", data)
    assert (magic, version, length, kind, json_length % 4) == (b"glTF", 2, len(data), 0x4E4F534A, 0)
    parsed = json.loads(data[20 : 20 + json_length])
    assert parsed["extensionsUsed"] == [EXTENSION]
    primitive = parsed["meshes"][0]["primitives"][0]
    assert primitive["extensions"][EXTENSION]["kernel"] == "ellipse"
    assert all(view["byteOffset"] % 4 == 0 for view in parsed["bufferViews"])
    position = parsed["accessors"][primitive["attributes"]["POSITION"]]
    np.testing.assert_array_equal(np.float32(position["min"]), gaussians.means.amin(0))
    cloud = trimesh.load_scene(tmp_path / "a.glb").dump()[0]  # a viewer without the extension: coloured points
    np.testing.assert_allclose(cloud.vertices, gaussians.means)
    np.testing.assert_allclose(linear_to_srgb(np.float32(cloud.colors[:, :3]) / 255), gaussians.rgb, atol=0.03)
    np.testing.assert_allclose(cloud.colors[:, 3] / 255, gaussians.opacities, atol=0.5 / 255 + 1e-6)


TURN = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.2, 0.8]), dim=0)  # wxyz


def test_nodes_place_their_gaussians(tmp_path, make_gaussians):
    gaussians = make_gaussians(5, 3)
    parsed, buffer = document(columns(gaussians, 3))
    x, y, z, w = TURN[[1, 2, 3, 0]].tolist()
    parsed["nodes"] = [
        {"children": [1], "translation": [1, 2, 3]},
        {"mesh": 0, "rotation": [x, y, z, w], "scale": [2, 2, 2]},
    ]
    rotation = quaternion_to_matrix(TURN)
    expected = gaussians.transform(rotation, 2.0, torch.tensor([1.0, 2.0, 3.0]))
    found = load(glb(tmp_path / "a.glb", parsed, buffer))
    check_equal(found, expected, rtol=1e-5, atol=1e-5)
    direction = torch.tensor([[0.2, 0.4, -0.9]])
    torch.testing.assert_close(
        sh_to_rgb(found.sh, direction @ rotation.T), sh_to_rgb(gaussians.sh, direction), rtol=1e-4, atol=1e-4
    )
    matrix = torch.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 2 * rotation, torch.tensor([1.0, 2.0, 3.0])
    parsed["nodes"] = [{"mesh": 0, "matrix": matrix.T.flatten().tolist()}]
    check_equal(load(glb(tmp_path / "a.glb", parsed, buffer)), expected, rtol=1e-5, atol=1e-5)


def test_instances_and_other_meshes(tmp_path, caplog, make_gaussians):
    parsed, buffer = document(columns(make_gaussians(5)))
    parsed["meshes"].append({"primitives": [{"attributes": {"POSITION": 0}}]})
    parsed["nodes"] = [{"mesh": 0}, {"mesh": 0, "translation": [5, 0, 0]}, {"mesh": 1}]
    parsed["scenes"] = [{"nodes": [0, 1, 2]}]
    with caplog.at_level(logging.WARNING, "splatsense"):
        found = load(glb(tmp_path / "a.glb", parsed, buffer))
    torch.testing.assert_close(found.means[5:] - found.means[:5], torch.tensor([[5.0, 0, 0]]).expand(5, 3))
    assert "1 meshes beside the Gaussians are left out" in caplog.text


@pytest.mark.parametrize("scenes", [{"scene": 1}, {}, {"scenes": []}])
def test_which_scene(tmp_path, make_gaussians, scenes):
    parsed, buffer = document(columns(make_gaussians(2)))
    parsed.pop("scene")
    parsed["nodes"] = [{"children": [1]}, {"mesh": 0}]
    parsed["scenes"] = [{"nodes": [0]}, {"nodes": [0, 0][:1]}]
    assert len(load(glb(tmp_path / "a.glb", parsed | scenes, buffer))) == 2
    parsed.pop("nodes")
    assert len(load(glb(tmp_path / "a.glb", parsed, buffer))) == 2


def test_quantised_attributes(tmp_path, make_gaussians):
    gaussians = make_gaussians(20)
    values = columns(gaussians)
    values[f"{EXTENSION}:ROTATION"] = (values[f"{EXTENSION}:ROTATION"] * 32767).round().astype(np.int16)
    values[f"{EXTENSION}:SCALE"] = (values[f"{EXTENSION}:SCALE"] * 65535).round().astype(np.uint16)
    values[f"{EXTENSION}:OPACITY"] = np.pad((values[f"{EXTENSION}:OPACITY"] * 255).round().astype(np.uint8), ((0, 0), (0, 0)))
    values[f"{EXTENSION}:SCALE"] = np.ascontiguousarray(values[f"{EXTENSION}:SCALE"])
    parsed, buffer = document(values, normalized=list(values)[1:4])
    found = load(glb(tmp_path / "a.glb", parsed, buffer))
    torch.testing.assert_close(found.scales, gaussians.scales, rtol=0, atol=0.5 / 65535 + 1e-7)
    torch.testing.assert_close(found.opacities, gaussians.opacities, rtol=0, atol=0.5 / 255 + 1e-6)
    torch.testing.assert_close(found.quats, gaussians.quats, rtol=0, atol=1e-4)


def test_interleaved_attributes(tmp_path, make_gaussians):
    gaussians = make_gaussians(4)
    values = columns(gaussians)
    parsed, _ = document(values)
    rows = np.concatenate(list(values.values()), axis=1)
    parsed["bufferViews"] = [{"buffer": 0, "byteLength": rows.nbytes, "byteStride": rows.shape[1] * 4}]
    offset = 0
    for accessor, value in zip(parsed["accessors"], values.values(), strict=True):
        accessor |= {"bufferView": 0, "byteOffset": offset}
        offset += value.shape[1] * 4
    parsed["buffers"] = [{"byteLength": rows.nbytes}]
    check_equal(load(glb(tmp_path / "a.glb", parsed, rows.tobytes())), gaussians, **EXACT)


def test_the_draft_of_2025_with_underscores(tmp_path, make_gaussians):
    gaussians = make_gaussians(6, 1)
    values = columns(gaussians, 1)
    draft = {
        "POSITION": values["POSITION"],
        "COLOR_0": np.concatenate([gaussians.rgb.numpy(), values[f"{EXTENSION}:OPACITY"]], axis=1),
        "_ROTATION": values[f"{EXTENSION}:ROTATION"],
        "_SCALE": values[f"{EXTENSION}:SCALE"],
        **{name: value for name, value in values.items() if "DEGREE_1" in name},
    }
    found = load(glb(tmp_path / "a.glb", *document(draft, extension={})))
    torch.testing.assert_close(found.rgb, gaussians.rgb)
    torch.testing.assert_close(found.sh[:, 1:], gaussians.sh[:, 1:])
    torch.testing.assert_close(found.scales, gaussians.scales)
    torch.testing.assert_close(found.opacities, gaussians.opacities)


def test_the_draft_with_log_scales(tmp_path, caplog, make_gaussians):
    gaussians = make_gaussians(6)
    values = columns(gaussians)
    values[f"{EXTENSION}:SCALE"] = np.log(values[f"{EXTENSION}:SCALE"])
    with caplog.at_level(logging.WARNING, "splatsense"):
        torch.testing.assert_close(load(glb(tmp_path / "a.glb", *document(values))).scales, gaussians.scales)
    assert "its scales are negative, so logarithms" in caplog.text


def test_log_scales_that_are_no_numbers_are_left_out(tmp_path, make_gaussians):
    values = columns(make_gaussians(3))
    logs = np.full((3, 3), -1, "<f4")
    logs.view("<u4")[1, 2] = 0x7F800001  # a signalling NaN
    found = load(glb(tmp_path / "a.glb", *document(values | {f"{EXTENSION}:SCALE": logs})))
    torch.testing.assert_close(found.scales, torch.full((2, 3), float(np.exp(-1))))


def test_linear_colours_become_srgb(tmp_path, make_gaussians):
    gaussians = make_gaussians(300, 1)
    gaussians = Gaussians(gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh * 0.3)
    space = {"kernel": "ellipse", "colorSpace": "lin_rec709_display"}
    found = load(glb(tmp_path / "a.glb", *document(columns(gaussians, 1), extension=space)))
    np.testing.assert_allclose(found.rgb, linear_to_srgb(gaussians.rgb.numpy()), atol=1e-6)
    # The slope of the higher bands is that of the transfer function: a small step from the DC colour shows it.
    step = 1e-3
    ahead = linear_to_srgb(((gaussians.sh[:, 0] + step) * SH_C0 + 0.5).numpy().astype(np.float64))
    behind = linear_to_srgb(((gaussians.sh[:, 0] - step) * SH_C0 + 0.5).numpy().astype(np.float64))
    slope = torch.from_numpy((ahead - behind) / (2 * step * SH_C0))[:, None]
    torch.testing.assert_close(found.sh[:, 1:], gaussians.sh[:, 1:] * slope, rtol=0.05, atol=5e-3)


def test_unusual_values(tmp_path, caplog, make_gaussians):
    gaussians = make_gaussians(5)
    gaussians.opacities[0] = 1.5
    gaussians.means[1] = torch.nan
    gaussians.scales[2, 0] = -1
    extension = {"kernel": "customShape"}
    with caplog.at_level(logging.WARNING, "splatsense"):
        found = load(glb(tmp_path / "a.glb", *document(columns(gaussians), extension=extension)))
    assert len(found) == 3
    assert found.opacities[0] == 1
    for message in ("kernel 'customShape' is not known", "1 opacities outside 0 to 1", "left out 2 of 5 Gaussians"):
        assert message in caplog.text


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_a_mesh_stays_a_mesh(tmp_path, suffix):
    box = trimesh.creation.box()
    box.metadata["comment"] = "not a gaussian_splat"
    scene = trimesh.Scene({"gaussian_splatting": box})
    if suffix == ".glb":
        (tmp_path / "a.glb").write_bytes(scene.export(file_type="glb"))
    else:
        for name, data in scene.export(file_type="gltf").items():
            (tmp_path / name).write_bytes(data)
        (tmp_path / "model.gltf").rename(tmp_path / "a.gltf")
    path = tmp_path / f"a{suffix}"
    assert b"gaussian_splat" in path.read_bytes()
    assert len(load(path)) > 100
    with pytest.raises(FormatError, match="holds no Gaussians"):
        read_gltf(path)


def test_buffers_beside_the_file(tmp_path, make_gaussians):
    gaussians = make_gaussians(3)
    parsed, buffer = document(columns(gaussians))
    (tmp_path / "sub folder").mkdir()
    (tmp_path / "sub folder" / "a.bin").write_bytes(buffer)
    parsed["buffers"][0]["uri"] = "sub%20folder/a.bin"
    check_equal(load(gltf(tmp_path / "a.gltf", parsed)), gaussians, **EXACT)
    check_equal(load(gltf(tmp_path / "b.gltf", with_data_uri(parsed, buffer))), gaussians, **EXACT)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("../a.bin", "is not a file beside the glTF"),
        ("%2e%2e/a.bin", "is not a file beside the glTF"),
        ("x\\..\\..\\a.bin", "is not a file beside the glTF"),
        ("/etc/passwd", "is not a file beside the glTF"),
        ("file:///etc/passwd", "is not a file beside the glTF"),
        ("https://example.com/a.bin", "is not a file beside the glTF"),
        ("C:\\a.bin", "is not a file beside the glTF"),
        ("a%00.bin", "is not a file beside the glTF"),
        ("link.bin", "leads out of"),
        ("absent.bin", "does not exist"),
        ("short.bin", "has 3 bytes, but .* wants"),
        (".", "is a folder"),
        ("", "is a folder"),
        ("data:application/octet-stream;base64,@@@", "is not base64"),
        ("data:text/plain,abc", "is not base64"),
        ("data:application/octet-stream;base64,AAAA", r"buffers\[0\]: has 3 of \d+ bytes"),
        (5, "has no uri"),
    ],
)
def test_buffers_elsewhere(tmp_path, make_gaussians, uri, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    parsed, buffer = document(columns(make_gaussians(3)))
    (tmp_path / "a.bin").write_bytes(buffer)
    (folder / "short.bin").write_bytes(b"abc")
    os.symlink(tmp_path / "a.bin", folder / "link.bin")
    parsed["buffers"][0]["uri"] = uri
    with pytest.raises(FormatError, match=message) as caught:
        load(gltf(folder / "a.gltf", parsed))
    assert f"{folder / 'a.gltf'}: buffers[0]" in str(caught.value)


def change(*steps, value):
    """An edit of the JSON: the entry at `steps` becomes `value`, or goes when that is None."""

    def edit(parsed):
        inner = parsed
        for step in steps[:-1]:
            inner = inner[step]
        if value is None:
            del inner[steps[-1]]
        else:
            inner[steps[-1]] = value

    return edit


PRIMITIVE = ("meshes", 0, "primitives", 0)
ATTRIBUTES = (*PRIMITIVE, "attributes")
SPZ = {"extensions": {"KHR_gaussian_splatting_compression_spz_2": {"bufferView": 0}}}
STRETCH = [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
SHEAR = [1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
DAMAGES = [
    (change("asset", value={"version": "1.0"}), "is not glTF 2"),
    (change("asset", value=None), "is not glTF 2"),
    (change("asset", value=[]), "is not glTF 2"),
    (
        change("accessors", 0, "count", value=10**12),
        r"accessors\[0\]: its 1000000000000 elements end at byte 12000000000000 of",
    ),
    (change("accessors", 1, "count", value=2**63), r"accessors\[1\]: its 9223372036854775808 elements end at byte 14757395258"),
    (change("accessors", 0, "componentType", value={}), r"accessors\[0\]: componentType is \{\}, not a whole number"),
    (change("bufferViews", 0, "extensions", value=5), "extensions is 5, not an object"),
    (change("accessors", 0, "count", value=2), "ROTATION has 3 elements, POSITION another number"),
    (change("accessors", 0, "count", value=0), "count is 0, not a whole number of at least 1"),
    (change("accessors", 0, "count", value=-3), "count is -3"),
    (change("accessors", 0, "count", value="3"), "count is '3'"),
    (change("accessors", 0, "byteOffset", value=4), "elements end at byte 40 of a buffer view of 36"),
    (change("accessors", 0, "byteOffset", value=-4), "byteOffset is -4"),
    (change("accessors", 0, "componentType", value=5130), "VEC3 of component type 5130, not VEC3"),
    (change("accessors", 0, "type", value="VEC4"), "VEC4 of component type 5126, not VEC3"),
    (change("accessors", 0, "sparse", value={}), "is sparse"),
    (change("accessors", 0, "bufferView", value=None), "is without a buffer view"),
    (change("accessors", 0, "bufferView", value=99), r"refers to bufferViews\[99\] of 5"),
    (change("accessors", 0, "bufferView", value=True), r"refers to bufferViews\[True\]"),
    (change("accessors", value={}), r"accessors is \{\}, not a list of objects"),
    (change("accessors", value=[1]), "not a list of objects"),
    (change("accessors", 1, "componentType", value=5121), "ROTATION has components of type u1"),
    (change("bufferViews", 0, "byteLength", value=10**9), r"bufferViews\[0\]: ends at byte 1000000000 of a buffer of"),
    (change("bufferViews", 0, "byteStride", value=4), "its 3 elements end"),
    (change("bufferViews", 0, "byteStride", value=1000), "byteStride is 1000"),
    (change("bufferViews", 0, "buffer", value=7), r"refers to buffers\[7\] of 1"),
    (change("bufferViews", 0, "extensions", value={"EXT_meshopt_compression": {}}), "compressed with EXT_meshopt_compression"),
    (change("buffers", 0, "byteLength", value=10**12), r"buffers\[0\]: has \d+ of 1000000000000 bytes"),
    (change(*ATTRIBUTES, "POSITION", value=None), r"refers to accessors\[None\]"),
    (change(*ATTRIBUTES, f"{EXTENSION}:ROTATION", value=None), "lacks POSITION or KHR_gaussian_splatting:ROTATION"),
    (change(*ATTRIBUTES, f"{EXTENSION}:SCALE", value=None), "lacks KHR_gaussian_splatting:SCALE"),
    (change(*ATTRIBUTES, f"{EXTENSION}:OPACITY", value=None), "lacks KHR_gaussian_splatting:OPACITY or"),
    (change(*ATTRIBUTES, f"{EXTENSION}:SH_DEGREE_1_COEF_1", value=4), "lacks .*SH_DEGREE_1_COEF_0, .*SH_DEGREE_1_COEF_2"),
    (change(*ATTRIBUTES, f"{EXTENSION}:SH_DEGREE_2_COEF_0", value=4), "lacks .*SH_DEGREE_1_COEF_0"),
    (change(*PRIMITIVE, "mode", value=4), "has mode 4; Gaussians are points"),
    (change(*PRIMITIVE, "extensions", EXTENSION, "colorSpace", value="BT.2020"), "has colour space 'BT.2020'"),
    (change(*PRIMITIVE, "extensions", EXTENSION, value=SPZ), r"primitives\[0\]: .*compression_spz_2: is not an SPZ file"),
    (change(*PRIMITIVE, "extensions", value={"KHR_spz_gaussian_splats_compression": {"bufferView": 9}}), r"bufferViews\[9\]"),
    (change("nodes", 0, "mesh", value=4), r"refers to meshes\[4\] of 1"),
    (change("nodes", 0, "children", value=[0]), r"nodes\[0\]: is the child of two nodes or of itself"),
    (change("nodes", 0, "children", value=5), "its children are not a list"),
    (change("nodes", 0, "children", value=[9]), r"refers to nodes\[9\] of 1"),
    (change("nodes", 0, "matrix", value=STRETCH), "its transform shears, mirrors, flattens or stretches"),
    (change("nodes", 0, "matrix", value=SHEAR), "its transform shears"),
    (change("nodes", 0, "matrix", value=[0] * 16), "its transform shears"),
    (change("nodes", 0, "matrix", value=[1] * 15), "matrix is .*, not 16 finite numbers"),
    (change("nodes", 0, "scale", value=[1, 1, -1]), "its transform shears, mirrors"),
    (change("nodes", 0, "scale", value=[1, 2, 1]), "its transform shears"),
    (change("nodes", 0, "scale", value=[1e200] * 3), "its transform shears"),
    (change("nodes", 0, "scale", value=[1e40] * 3), "beyond the range of float32"),
    (change("nodes", 0, "translation", value=[1e39, 0, 0]), "beyond the range of float32"),
    (change("nodes", 0, "translation", value=[1, 2]), "translation is"),
    (change("scene", value=3), r"refers to scenes\[3\] of 1"),
    (change("scenes", 0, "nodes", value=[]), "holds no Gaussians"),
    (change("nodes", value=[]), None),
]


@pytest.mark.parametrize(("edit", "message"), DAMAGES, ids=range(len(DAMAGES)))
def test_damaged_files(tmp_path, make_gaussians, edit, message):
    parsed, buffer = document(columns(make_gaussians(3)))
    edit(parsed)
    path = glb(tmp_path / "a.glb", parsed, buffer)
    if message is None:
        assert len(read_gltf(path)) == 3
        return
    with pytest.raises((FormatError, LimitError), match=message) as caught:
        read_gltf(path)
    assert str(path) in str(caught.value)


NESTED = {EXTENSION: {"extensions": {"KHR_gaussian_splatting_compression_spz_2": {"bufferView": 0}}}}


def spz_document(data, extensions):
    """A file with SPZ in it, whose accessors have no data of their own."""
    parsed, _ = document({"POSITION": np.zeros((1, 3), np.float32)})
    parsed["meshes"][0]["primitives"][0]["extensions"] = extensions
    del parsed["accessors"][0]["bufferView"]
    parsed["bufferViews"][0]["byteLength"] = parsed["buffers"][0]["byteLength"] = len(data)
    return parsed, data


@pytest.mark.parametrize(
    "extensions",
    [
        NESTED,
        {EXTENSION: {"extensions": {"KHR_gaussian_splatting_compression_spz": {"bufferView": 0}}}},
        {"KHR_spz_gaussian_splats_compression": {"bufferView": 0}},
    ],
)
@pytest.mark.parametrize("padding", [0, 3])
def test_spz_inside(tmp_path, make_gaussians, extensions, padding):
    """The drafts take what SPZ calls right, up, back for left, up, front."""
    write_spz(make_gaussians(50, 2), tmp_path / "a.spz")
    plain = load(tmp_path / "a.spz")
    found = load(glb(tmp_path / "a.glb", *spz_document((tmp_path / "a.spz").read_bytes() + bytes(padding), extensions)))
    turn = torch.tensor([-1.0, 1.0, -1.0])
    assert torch.equal(found.means, plain.means * turn)
    assert torch.equal(found.scales, plain.scales)
    expected = torch.diag(turn) @ quaternion_to_matrix(plain.quats)
    torch.testing.assert_close(quaternion_to_matrix(found.quats), expected, rtol=0, atol=1e-6)
    direction = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]]), dim=1).expand(50, 3)
    torch.testing.assert_close(sh_to_rgb(found.sh, direction * turn), sh_to_rgb(plain.sh, direction), rtol=0, atol=1e-5)


def test_spz_inside_that_is_damaged(tmp_path, make_gaussians):
    write_spz(make_gaussians(50), tmp_path / "a.spz")
    data = (tmp_path / "a.spz").read_bytes()
    for damaged, message in ((data[:-20], "cut off"), (data + b"\1", "other data follows"), (data + bytes(4), "other data")):
        with pytest.raises(FormatError, match=rf"a\.glb: .*primitives\[0\].*{message}"):
            load(glb(tmp_path / "a.glb", *spz_document(damaged, NESTED)))
    zeros = struct.pack("<4s2I4B", b"NGSP", 3, 5_000_000, 0, 12, 0, 0) + bytes(100_000_000)
    with pytest.raises(LimitError, match="5000000 Gaussians would decompress to 100000000 bytes"):
        load(glb(tmp_path / "a.glb", *spz_document(gzip.compress(zeros, 1), NESTED)))


def test_instances_without_measure(tmp_path, make_gaussians):
    parsed, buffer = document(columns(make_gaussians(2000)))
    parsed["nodes"] = [{"mesh": 0}] * 3000
    parsed["scenes"] = [{"nodes": list(range(3000))}]
    with pytest.raises(LimitError, match="its nodes place"):
        read_gltf(glb(tmp_path / "a.glb", parsed, buffer))


def test_json_without_measure(tmp_path, make_gaussians, monkeypatch):
    monkeypatch.setattr("splatsense.io._gltf_container.LARGEST_JSON", 1000)
    parsed, buffer = document(columns(make_gaussians(2)))
    with pytest.raises(LimitError, match="a file of splats has less than 1000"):
        read_gltf(glb(tmp_path / "a.glb", parsed, buffer))


def test_a_deep_hierarchy(tmp_path, make_gaussians):
    parsed, buffer = document(columns(make_gaussians(2)))
    parsed["nodes"] = [{"children": [index + 1], "translation": [1, 0, 0]} for index in range(5000)] + [{"mesh": 0}]
    found = read_gltf(glb(tmp_path / "a.glb", parsed, buffer))
    torch.testing.assert_close(found.means[:, 0], make_gaussians(2).means[:, 0] + 5000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=5), st.lists, max_leaves=4
) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
PLACES = [
    ("asset",), ("meshes",), ("nodes",), ("scene",), ("scenes",), ("scenes", 0, "nodes"),
    ("nodes", 0, "children"), ("nodes", 0, "rotation"), ("nodes", 0, "matrix"), ("nodes", 0, "mesh"),
    ("meshes", 0, "primitives"), ("buffers", 0, "uri"), ("bufferViews", 0, "extensions"), ("bufferViews", 1, "byteStride"),
    ATTRIBUTES, (*ATTRIBUTES, "POSITION"), (*PRIMITIVE, "mode"), (*PRIMITIVE, "extensions", EXTENSION),
    ("accessors", 2, "componentType"), ("accessors", 2, "type"), ("accessors", 2, "normalized"),
]  # fmt: skip


@settings(max_examples=60)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_invented_json(tmp_path_factory, make_gaussians, place, value):
    path = tmp_path_factory.getbasetemp() / "invented.glb"
    parsed, buffer = document(columns(make_gaussians(3)))
    inner = parsed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    glb(path, parsed, buffer)
    try:
        read_gltf(path)
    except SplatSenseError as error:
        if str(path.parent) not in str(error):
            raise


def test_values_that_cannot_be_written(tmp_path, make_gaussians):
    gaussians = make_gaussians(3)
    gaussians.means[1] = torch.nan
    with pytest.raises(DataError, match="1 Gaussians have values that are not finite"):
        write_gltf(gaussians, tmp_path / "a.glb")
    with pytest.raises(DataError, match="no Gaussians"):
        write_gltf(gaussians[:0], tmp_path / "a.glb")
    assert not list(tmp_path.iterdir())


def test_degree_4_is_left_out(tmp_path, caplog, make_gaussians):
    save(make_gaussians(3, 4), tmp_path / "a.glb")
    assert "degree 4 is left out" in caplog.text
    assert load(tmp_path / "a.glb").sh_degree == 3
