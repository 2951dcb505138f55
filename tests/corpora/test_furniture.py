import io
import json
import zipfile

import pytest
from PIL import Image

from splatsense.corpora import safe_key, words_from_identifier
from splatsense.corpora.folder import folder
from splatsense.corpora.furniture import catalogue_icon, evaluation_labels, furniture, parse_catalogue
from splatsense.errors import DataError, FormatError
from splatsense.io.surface import mesh_to_gaussians

TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
CATALOGUE = """# comment
id=Library
id#1=Blend Swap CC-0#armchair
name#1=Fauteuil \\u00e9l\\u00e9gant
tags#1=Blend Swap, Seat, \\
  Soft
category#1=Office
icon#1=/pieces/a.png
model#1=/pieces/a/a.obj
width#1=59.4
depth#1=62.7
height#1=105
creator#1=Absfrm
id#2=Library#empty
name#2=Light
icon#2=/pieces/b.png
model#2=/pieces/b/b.obj
"""


def png(color) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "BlendSwap-CC-0.sh3f"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE.encode("latin-1"))
        archive.writestr("pieces/a.png", png("red"))
        archive.writestr(
            "pieces/a/a.obj", "mtllib a.mtl\n" + TRIANGLE + "usemtl red\nf 1/1 2/2 3/3\nusemtl gone\nf 1/1 3/3 2/2\n"
        )
        mtl = "newmtl red\nKd 0 0 0\nmap_Kd C:\\\\pictures\\\\Cloth.PNG\nnewmtl gone\nKd 0 1 0\nd 0.5\nmap_Kd nowhere.jpg\n"
        archive.writestr("pieces/a/a.mtl", mtl)
        archive.writestr("pieces/a/cloth.png", png((200, 30, 30)))
        archive.writestr("pieces/b/b.obj", "v 0 0 0\n")
    return path


def test_catalogue_escapes_and_continuations():
    first = parse_catalogue(CATALOGUE)[0]
    assert first["name"] == "Fauteuil élégant"
    assert first["tags"] == "Blend Swap, Seat, Soft"


def test_entries_carry_names_sizes_labels_and_icons(library):
    armchair, light = furniture(library)
    assert armchair.name == "Fauteuil élégant"
    assert armchair.tags == ("Seat", "Soft")
    assert armchair.size_cm == (59.4, 62.7, 105.0)
    assert (armchair.label, armchair.split, armchair.licence) == ("armchair", "test", "CC0-1.0")
    assert (light.label, light.split) == ("", "")
    assert Image.open(io.BytesIO(catalogue_icon(armchair))).getpixel((0, 0)) == (255, 0, 0)


def test_textures_are_matched_loosely_and_missing_ones_reported(library, caplog):
    mesh = furniture(library)[0].load_mesh()
    assert mesh.missing_textures == ("nowhere.jpg",)
    assert "nowhere.jpg" in caplog.text
    textured = [material for material in mesh.materials if material.texture is not None]
    assert len(textured) == 1
    assert tuple(textured[0].texture[0, 0, :3]) == (200, 30, 30)
    opacities = sorted(float(material.color[3]) for material in mesh.materials)
    assert opacities == pytest.approx([0.5, 1.0], abs=1e-3)
    rgb = mesh_to_gaussians(mesh, 64).rgb
    assert {tuple(round(float(c), 2) for c in row) for row in rgb} == {(0.78, 0.12, 0.12), (0.0, 1.0, 0.0)}


def test_models_without_faces_say_so(library):
    with pytest.raises(DataError, match=r"b\.obj: holds no faces"):
        furniture(library)[1].load_mesh()


def test_colors_of_the_default_catalogue_come_without_an_mtllib(tmp_path):
    path = tmp_path / "sweethome3d.jar"
    base = "com/eteks/sweethome3d/io/"
    entry = "id#1=eTeks#x\nname#1=X\nicon#1=/x.png\nmodel#1=/com/eteks/sweethome3d/io/resources/x.obj\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(base + "DefaultFurnitureCatalog.properties", entry)
        archive.writestr(base + "resources/x.obj", TRIANGLE + "usemtl amber\nf 1 2 3\n")
    mesh = furniture(path)[0].load_mesh()
    assert mesh.materials[0].color[:3] == pytest.approx([0.5755, 0.2678, 0.0], abs=4e-3)


def test_errors_name_the_archive(tmp_path):
    with pytest.raises(FormatError, match=r"no \.sh3f library"):
        furniture(tmp_path)
    bad = tmp_path / "bad.sh3f"
    bad.write_bytes(b"not a zip")
    with pytest.raises(FormatError, match=r"bad\.sh3f: not a Sweet Home 3D library"):
        furniture(tmp_path)


def test_class_table_has_enough_objects_in_every_evaluated_class():
    labels = evaluation_labels()
    assert len(labels) == len(set(labels)) == 44
    assert "chair" in labels
    assert "" not in labels


def test_folder_corpus_reads_names_and_captions(tmp_path):
    (tmp_path / "pack").mkdir()
    for name in ("SM_OfficeChair02-transformed", "lamp"):
        (tmp_path / "pack" / f"{name}.obj").write_text(TRIANGLE + "f 1 2 3\n")
    (tmp_path / "captions.csv").write_text("file,name,tags,split\npack/lamp.obj,desk lamp,light;small,test\n")
    chair, lamp = sorted(folder(tmp_path, licence="CC0-1.0"), key=lambda item: item.split, reverse=True)
    assert (chair.name, chair.split, chair.licence) == ("office chair", "train", "CC0-1.0")
    assert (lamp.name, lamp.tags, lamp.split) == ("desk lamp", ("light", "small"), "test")
    assert len(chair.load_mesh().faces) == 1
    (tmp_path / "captions.csv").write_text("name\nx\n")
    with pytest.raises(FormatError, match="column `file`"):
        folder(tmp_path)
    with pytest.raises(FormatError, match="no mesh below"):
        folder(tmp_path / "nothing")


def test_identifiers_become_words():
    assert words_from_identifier("TVRemoteControl_v2") == "tv remote control v"
    assert safe_key("a/b.c d") == "a_b_c_d"
    json.dumps(safe_key("é"))
