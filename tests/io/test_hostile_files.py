"""Files made to do harm: counts that no file could hold, bombs, names that lead elsewhere, and what fuzzing has found.

`tools/fuzz.py` looks for more.
"""

import json
import os
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from splatsense.errors import DataError, FormatError, LimitError, SplatSenseError
from splatsense.io import WRITERS, load, load_mesh, save

COUNTS = (2**31 - 1, 2**31, 2**32, 2**61, 2**63 - 1, 10**18 - 1)
CORNER = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


def ply(*lines, body=b"", form="binary_little_endian"):
    return "\n".join(["ply", f"format {form} 1.0", *lines, "end_header\n"]).encode() + body


def properties(*names):
    return [f"property float {name}" for name in names]


SPLAT = properties("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", *(f"scale_{i}" for i in range(3)))
SPLAT += properties(*(f"rot_{i}" for i in range(4)))
FACES = "property list uchar int vertex_indices"


def glb(document, binary=b""):
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def scene(count, nodes=1, views=True):
    """A glTF document of one mesh whose `count` corners lie in the binary chunk, drawn by `nodes` nodes."""
    accessors = [
        {"componentType": 5126, "count": count, "type": "VEC3"},
        {"componentType": 5125, "count": count, "type": "SCALAR"},
    ]
    document = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": list(range(nodes))}],
        "scene": 0,
        "nodes": [{"mesh": 0}] * nodes,
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": accessors,
    }
    if views:
        document["buffers"] = [{"byteLength": 16 * count}]
        document["bufferViews"] = [
            {"buffer": 0, "byteLength": 12 * count},
            {"buffer": 0, "byteOffset": 12 * count, "byteLength": 4 * count},
        ]
        for index, accessor in enumerate(accessors):
            accessor["bufferView"] = index
    return document


def corners(count):
    points = np.random.default_rng(0).random((count, 3)).astype("<f4")
    return points.tobytes() + np.arange(count, dtype="<u4").tobytes()


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("columns", [SPLAT, properties("x", "y", "z")], ids=["splat", "cloud"])
def test_counts_beyond_the_file_are_told_before_anything_is_allocated(tmp_path, columns, count, form):
    (tmp_path / "a.ply").write_bytes(ply(f"element vertex {count}", *columns, form=form, body=bytes(200)))
    with pytest.raises(FormatError, match=r"cut off|not valid"):
        load(tmp_path / "a.ply")
    (tmp_path / "b.ply").write_bytes(ply(f"element other {count}", "property int a", "element vertex 1", *columns, form=form))
    with pytest.raises(FormatError, match=r"cut off|not valid"):
        load(tmp_path / "b.ply")


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize(("vertices", "faces"), [(3, 2**31), (2**33, 1), (3, 2)])
def test_counts_of_meshes(tmp_path, form, vertices, faces):
    body = b"0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n" if form == "ascii" else np.eye(3, dtype="<f4").tobytes() + b"\3" + bytes(12)
    lines = [f"element vertex {vertices}", *properties("x", "y", "z"), f"element face {faces}", FACES]
    (tmp_path / "a.ply").write_bytes(ply(*lines, form=form, body=body))
    with pytest.raises(FormatError, match=r"a\.ply: (cut off|cannot be read as ply)"):
        load(tmp_path / "a.ply")


def test_lists_that_promise_more_than_the_file_holds(tmp_path):
    lines = ["element vertex 3", *properties("x", "y", "z"), "element face 1", "property list uint int vertex_indices"]
    (tmp_path / "a.ply").write_bytes(ply(*lines, body=bytes(36) + struct.pack("<I", 2**31 - 1) + bytes(12)))
    with pytest.raises(FormatError, match="cannot be read as ply"):
        load(tmp_path / "a.ply")


def test_header_lines_of_64_kilobytes(tmp_path):
    comments = ["comment " + "x" * 65536, "obj_info " + "y" * 65536]
    (tmp_path / "a.ply").write_bytes(ply(*comments, "element vertex 1", *SPLAT, body=np.ones(14, "<f4").tobytes()))
    assert len(load(tmp_path / "a.ply")) == 1
    (tmp_path / "a.ply").write_bytes(ply(*comments * 16, "element vertex 1", *SPLAT, body=np.ones(14, "<f4").tobytes()))
    with pytest.raises(FormatError, match='no "end_header" within its first 1048576 bytes'):
        load(tmp_path / "a.ply")


@pytest.mark.parametrize("character", ["\v", "\f", "\x1c", "\x85", "\u2028", "\0"])
def test_comments_may_hold_what_unicode_takes_for_a_line_end(tmp_path, character):
    lines = [f"comment a{character}b", "element vertex 1", *SPLAT]
    (tmp_path / "a.ply").write_bytes(ply(*lines, body=np.ones(14, "<f4").tobytes()))
    assert len(load(tmp_path / "a.ply")) == 1


def test_many_properties_take_no_time(tmp_path):
    names = [f"f_rest_{index}" for index in range(10_000)]
    (tmp_path / "a.ply").write_bytes(ply("element vertex 1", *SPLAT, *properties(*names), body=bytes(4 * 10_014)))
    with pytest.raises(FormatError, match="has 10000 f_rest properties"):
        load(tmp_path / "a.ply")


def test_trailing_bytes_after_the_last_element_are_passed_over(tmp_path, make_gaussians):
    save(make_gaussians(2), tmp_path / "a.ply")
    with (tmp_path / "a.ply").open("ab") as handle:
        handle.write(b"\0 trailing")
    assert len(load(tmp_path / "a.ply")) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e38, 1e38, 0.0])
@pytest.mark.parametrize("position", range(14))
def test_any_value_anywhere(tmp_path, value, position):
    rows = np.ones((3, 14), "<f4")
    rows[1, position] = value
    (tmp_path / "a.ply").write_bytes(ply("element vertex 3", *SPLAT, body=rows.tobytes()))
    gaussians = load(tmp_path / "a.ply")
    assert len(gaussians) in (2, 3)
    for name in ("means", "quats", "scales", "opacities", "sh"):
        assert np.isfinite(getattr(gaussians, name).numpy()).all(), name


def test_accessors_without_data(tmp_path):
    (tmp_path / "a.glb").write_bytes(glb(scene(200_000_000, views=False)))
    with pytest.raises(LimitError, match=r"a\.glb: its accessors declare 3200000000 bytes, which 3\d\d bytes cannot hold"):
        load(tmp_path / "a.glb")


def test_nodes_that_repeat_a_mesh(tmp_path):
    (tmp_path / "a.glb").write_bytes(glb(scene(3000, nodes=3), corners(3000)))
    assert len(load_mesh(tmp_path / "a.glb").faces) == 3000
    (tmp_path / "a.glb").write_bytes(glb(scene(3000, nodes=3000), corners(3000)))
    with pytest.raises(LimitError, match=r"a\.glb: repeats its 1000 faces until there are 3000000"):
        load(tmp_path / "a.glb")


def test_nodes_in_a_circle(tmp_path):
    document = scene(3) | {"nodes": [{"children": [1]}, {"children": [0], "mesh": 0}]}
    (tmp_path / "a.glb").write_bytes(glb(document, corners(3)))
    with pytest.raises(SplatSenseError, match=r"a\.glb: "):
        load(tmp_path / "a.glb")


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"{", b"null", b'{"accessors": [1, {"count": "x"}, {"count": 1, "type": []}]}']
)
def test_json_that_is_no_gltf(tmp_path, text):
    (tmp_path / "a.gltf").write_bytes(text)
    with pytest.raises(SplatSenseError, match=r"a\.gltf: "):
        load(tmp_path / "a.gltf")


def png(width, height, pixels=b""):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.fixture
def textured(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 1 0 0\nmap_Kd t.png\n")
    (tmp_path / "a.obj").write_text(f"mtllib a.mtl\n{CORNER}vt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n")
    return tmp_path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(9000, 9000), r"9000 x 9000 pixels: too large"),
        (png(40, 40), "damaged"),
        (png(8000, 8000, bytes(100)), "damaged: too short for 8000 x 8000 pixels"),
        (png(40, 40, np.random.default_rng(0).bytes(40 * 41))[:300], "damaged"),
        (b"not an image", ""),
    ],
    ids=["large", "no pixels", "few pixels", "cut off", "text"],
)
def test_textures_that_cannot_be_used_do_not_fail_the_mesh(textured, caplog, data, message):
    (textured / "t.png").write_bytes(data)
    assert len(load(textured / "a.obj")) == 4096
    assert message in caplog.text


@pytest.mark.parametrize("name", ["../secret.mtl", "/etc/passwd", "pipe", "link", "folder", "x" * 300])
def test_companions_are_regular_files_in_the_folder(tmp_path, name):
    folder = tmp_path / "inner"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret.mtl").write_text("newmtl m\nKd 0.123 0 0\n")
    (folder / "link").symlink_to(tmp_path / "secret.mtl")
    os.mkfifo(folder / "pipe")
    (folder / "a.obj").write_text(f"mtllib {name}\n{CORNER}usemtl m\nf 1 2 3\n")
    mesh = load_mesh(folder / "a.obj")
    assert all(material.color[0] != pytest.approx(0.123, abs=0.01) for material in mesh.materials)


def test_a_texture_beside_the_mesh_serves_where_its_author_s_is_elsewhere(textured, tmp_path_factory):
    """An absolute path that was left in the file, seen from the machine on which it was written."""
    elsewhere = tmp_path_factory.mktemp("author") / "t.png"
    for path, color in ((elsewhere, (255, 0, 0)), (textured / "t.png", (0, 0, 255))):
        Image.new("RGB", (2, 2), color).save(path)
    (textured / "a.mtl").write_text(f"newmtl m\nKd 1 1 1\nmap_Kd {elsewhere}\n")
    mesh = load_mesh(textured / "a.obj")
    assert mesh.missing_textures == ()
    assert mesh.materials[0].texture[0, 0].tolist() == [0, 0, 255, 255]


def test_a_pipe_in_place_of_a_mesh(tmp_path):
    os.mkfifo(tmp_path / "a.obj")
    with pytest.raises(FormatError, match="not a regular file"):
        load_mesh(tmp_path / "a.obj")


# What tools/fuzz.py found, made small: name, bytes, the error and what it says.
FOUND = [
    ("a.csv", b"0,1,7,1e50,0,5\n", DataError, "none of its 1 points is usable"),
    ("a.obj", b"v 5\nv 0\nv 0\nv 0\nf 1 2 4\n", FormatError, "a vertex has not three coordinates"),
    (
        "a.ply",
        ply("element vertex 1", *properties("x", "y", "z", "red", "green", "blue"), body=b"\0\0\x80\x7f" * 6),
        DataError,
        "none of its 1 points is usable",
    ),
]


@pytest.mark.parametrize(("name", "data", "error", "message"), FOUND)
def test_what_fuzzing_found(tmp_path, name, data, error, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=rf"{name}: .*{message}"):
        load(tmp_path / name)


def test_a_gltf_image_without_a_file_keeps_the_material_colour(tmp_path):
    document = scene(3) | {"images": [{}], "textures": [{"source": 0}], "materials": [{}]}
    document["materials"][0]["pbrMetallicRoughness"] = {"baseColorTexture": {"index": 0}}
    document["meshes"][0]["primitives"][0]["material"] = 0
    (tmp_path / "a.glb").write_bytes(glb(document, corners(3)))
    assert len(load(tmp_path / "a.glb")) == 4096


@pytest.mark.parametrize(("count", "shape"), [(0, "VEC2"), (2, "VEC2"), (3, "VEC3"), (3, "VEC2")])
def test_texture_coordinates_that_do_not_match_the_vertices(tmp_path, count, shape):
    view = {"buffer": 0, "byteLength": 48}
    document = scene(3) | {"images": [{"bufferView": 2, "mimeType": "image/png"}], "textures": [{"source": 0}]}
    document["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    document["meshes"][0]["primitives"][0] |= {"material": 0}
    document["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"] = 2
    document["accessors"].append({"bufferView": 3, "componentType": 5126, "count": count, "type": shape})
    image = png(1, 1, b"\0\xff")
    document["bufferViews"] += [{"buffer": 0, "byteOffset": 48, "byteLength": len(image)}, view]
    document["buffers"][0]["byteLength"] += len(image)
    (tmp_path / "a.glb").write_bytes(glb(document, corners(3) + image))
    mesh = load_mesh(tmp_path / "a.glb")
    assert (mesh.materials[0].texture is not None) == (count == 3)


def test_an_invisible_mesh_names_its_file(tmp_path):
    document = scene(3) | {"materials": [{"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}}]}
    document["meshes"][0]["primitives"][0]["material"] = 0
    (tmp_path / "a.glb").write_bytes(glb(document, corners(3)))
    with pytest.raises(DataError, match=r"a\.glb: .*no visible face"):
        load(tmp_path / "a.glb")


@pytest.mark.parametrize("name", [f"a{suffix}" for suffix in WRITERS])
def test_a_full_disk_leaves_no_partial_file(tmp_path, make_gaussians, name):
    gaussians = make_gaussians(5000)
    (tmp_path / name).write_bytes(b"before")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(FormatError, match=rf"{name}: not written \(.*File too large.*\); free some space"):
            save(gaussians, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"before"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
@pytest.mark.parametrize("name", [f"a{suffix}" for suffix in WRITERS])
def test_a_read_only_folder(tmp_path, make_gaussians, name):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FormatError, match="cannot be written"):
            save(make_gaussians(1), tmp_path / name)
    finally:
        tmp_path.chmod(0o700)
    assert not os.listdir(tmp_path)
