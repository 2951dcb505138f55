"""What lies beside an asset and belongs to it goes with exports and imports, and nothing else does."""

import json
import os

import pytest
from PIL import Image

from splatsense.errors import FormatError
from splatsense.io import load_mesh
from splatsense.library.side_files import is_plain, side_files

OBJ = """mtllib the wood.mtl
v 0 0 0
v 1 0 0
v 0 1 0
vt 0 0
vt 1 0
vt 0 1
usemtl wood
f 1/1 2/2 3/3
"""


@pytest.fixture
def chair(tmp_path):
    """An .obj with a material in a file with a space, a texture in a folder, notes, and files that are not its own."""
    folder = tmp_path / "furniture"
    (folder / "textures").mkdir(parents=True)
    (folder / "chair.obj").write_text(OBJ)
    (folder / "the wood.mtl").write_text(
        "newmtl wood\nKd 1 1 1\nmap_Kd textures/oak.png\nmap_Ks -s 1 1 1 textures/gloss.png\nmap_bump ../secret.png\n"
    )
    for name in ("oak", "gloss"):
        Image.new("RGB", (4, 4), (150, 90, 40)).save(folder / "textures" / f"{name}.png")
    (folder / "chair.txt").write_text("a chair of oak")
    (folder / "table.txt").write_text("of another asset")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    return folder / "chair.obj"


def names(path):
    return [str(name) for name in side_files(path)]


def test_materials_textures_and_notes_belong_to_an_obj(chair):
    assert names(chair) == ["chair.txt", "textures/gloss.png", "textures/oak.png", "the wood.mtl"]


def test_buffers_and_images_belong_to_a_gltf_and_images_to_a_sog(tmp_path):
    for name in ("a b.bin", "t.png", "means_l.webp", "sh0.webp", "other.webp"):
        (tmp_path / name).write_bytes(b"x")
    content = {
        "buffers": [{"uri": "a%20b.bin"}, {"uri": "data:;base64,AA=="}],
        "images": [{"uri": "t.png"}, {"uri": "/etc/x.png"}],
    }
    (tmp_path / "model.gltf").write_text(json.dumps(content))
    assert names(tmp_path / "model.gltf") == ["a b.bin", "t.png"]
    (tmp_path / "meta.json").write_text(json.dumps({"means": {"files": ["means_l.webp"]}, "sh0": {"files": ["sh0.webp", 3]}}))
    assert names(tmp_path / "meta.json") == ["means_l.webp", "sh0.webp"]
    for broken in ("{", "[" * 100_000, "3"):
        (tmp_path / "model.gltf").write_text(broken)
        assert names(tmp_path / "model.gltf") == []


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "a/../../b.png", "a\\..\\b.png", "C:/a.png", "a.py", ".bashrc", "", "a//b.png"]
)
def test_names_that_lead_elsewhere_are_none(name):
    assert not is_plain(name)


def test_a_link_that_leads_out_is_not_followed(chair, tmp_path):
    (chair.parent / "textures" / "oak.png").unlink()
    os.symlink(tmp_path / "secret.png", chair.parent / "textures" / "oak.png")
    assert names(chair) == ["chair.txt", "textures/gloss.png", "the wood.mtl"]


def test_an_export_takes_side_files_along(library, open_library, chair, tmp_path):
    library.add(chair, progress=False)
    library.thumbnail(library.assets()[0])
    done = library.export(tmp_path / "export")
    assert (done.files, done.side_files) == (1, 4)
    chair.rename(chair.with_suffix(".gone"))
    for path in (chair.parent / "textures" / "oak.png", chair.parent / "the wood.mtl", chair.parent / "chair.txt"):
        path.unlink()
    with open_library(path=tmp_path / "imported") as imported:
        done = imported.import_from(tmp_path / "export", tmp_path / "files")
        (asset,) = imported.assets()
        assert done.side_files == 4
        copied = next((tmp_path / "files").rglob("chair.obj"))
        assert copied.with_name("chair.txt").read_text() == "a chair of oak"
        mesh = load_mesh(copied)
        assert any(material.texture is not None for material in mesh.materials)
        assert imported.import_from(tmp_path / "export", tmp_path / "files").side_files == 0
        assert (imported.path / "thumbnails" / f"{asset.sha256[:32]}.webp").is_file()


def test_a_damaged_or_hostile_export_is_refused(library, open_library, chair, tmp_path):
    library.add(chair, progress=False)
    library.export(tmp_path / "export")
    listing = tmp_path / "export" / "assets.json"
    good = listing.read_text()
    for bad in ("../../evil.txt", "/tmp/evil.txt", "evil.py"):
        listing.write_text(good.replace('"chair.txt"', json.dumps(bad)))
        with open_library(path=tmp_path / "imported") as imported, pytest.raises(FormatError, match="no name of a side file"):
            imported.import_from(tmp_path / "export")
    listing.write_text(good.replace('"side_files": {', '"side_files": {"x.txt": 3, '))
    with open_library(path=tmp_path / "imported") as imported, pytest.raises(FormatError, match="not an exported library"):
        imported.import_from(tmp_path / "export")
    listing.write_text(good)
    next((tmp_path / "export" / "assets").rglob("oak.png")).write_bytes(b"x")
    with (
        open_library(path=tmp_path / "imported") as imported,
        pytest.raises(FormatError, match=r"oak\.png: is missing or damaged"),
    ):
        imported.import_from(tmp_path / "export")
    assert not list(tmp_path.rglob("evil*"))
