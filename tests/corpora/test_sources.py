import hashlib
import pickle

import numpy as np
import pytest
import torch

from splatsense.corpora import LONGEST_KEY, file_keys
from splatsense.corpora.modelnet import modelnet40
from splatsense.corpora.sources import open_corpus
from splatsense.corpora.splats import splats
from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import save

TETRAHEDRON = "0 0 0\n2 0 0\n0 1 0\n0 0 3\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


@pytest.fixture
def modelnet(tmp_path):
    root = tmp_path / "ModelNet40"
    heads = {
        "chair/train/chair_0001": "OFF\n4 4 0\n",
        "chair/test/chair_0890": "OFF4 4 0\n",
        "night_stand/test/night_stand_0201": "OFF\n# a comment\n4 4 6\n",
    }
    for name, head in heads.items():
        path = root / f"{name}.off"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + TETRAHEDRON)
    return root


def test_modelnet_folders_give_class_split_and_upright_meshes(modelnet):
    corpus = open_corpus(f"modelnet40:{modelnet}", "CC-BY-4.0")
    assert [(item.key, item.label, item.split) for item in corpus] == [
        ("chair_0890", "chair", "test"), ("chair_0001", "chair", "train"), ("night_stand_0201", "night stand", "test"),
    ]  # fmt: skip
    assert {item.licence for item in corpus} == {"CC-BY-4.0"}
    for item in corpus:
        mesh = item.load_mesh()
        assert len(mesh.faces) == 4
        assert np.allclose(mesh.vertices[3], [0, 3, 0])  # z of the file is up
        assert np.allclose(mesh.vertices[2], [0, 0, -1])


@pytest.mark.parametrize(
    ("content", "message"),
    [("OFF\n4 4 0\n" + TETRAHEDRON[:45], "cut short: has|cannot be read"), ("OFF\n4 9 0\n" + TETRAHEDRON, "has 4 of 9 faces"),
     ("PLY\n", "does not begin with OFF"), ("", "does not begin"), ("OFF\n0 0 0\n", "no faces|cannot be read")],
)  # fmt: skip
def test_damaged_off_files_are_told(modelnet, content, message):
    path = modelnet / "chair/train/chair_0001.off"
    path.write_text(content)
    with pytest.raises((FormatError, DataError), match=rf"chair_0001\.off: .*({message})"):
        modelnet40(modelnet)[1].load_mesh()


def test_objects_are_found_from_another_working_directory(modelnet, tmp_path, monkeypatch):
    """As by the workers of a cluster, which start elsewhere."""
    monkeypatch.chdir(tmp_path)
    off = [*modelnet40(modelnet.name)]
    (modelnet / "scene.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    meshes = [item for item in open_corpus(f"folder:{modelnet.name}") if item.key == "scene"]
    monkeypatch.chdir("/")
    assert [len(item.load_mesh().faces) for item in (off[0], meshes[0])] == [4, 1]


def test_a_folder_that_is_no_modelnet_says_what_is_expected(tmp_path):
    with pytest.raises(FormatError, match=r"<class>/train/\*\.off"):
        modelnet40(tmp_path)


def test_a_folder_of_splats_is_read_by_what_the_files_hold(tmp_path):
    generator = torch.Generator().manual_seed(0)
    splat = Gaussians.from_rgb(
        torch.randn(50, 3, generator=generator), torch.tensor([[1.0, 0, 0, 0]]).repeat(50, 1), torch.full((50, 3), 0.1),
        torch.full((50,), 0.8), torch.rand(50, 3, generator=generator),
    )  # fmt: skip
    save(splat, tmp_path / "RedVase.ply")
    (tmp_path / "captions.json").write_text('{"RedVase": {"captions": ["a vase"], "split": "test"}, "gone": "x"}')
    corpus = splats(tmp_path, "CC0-1.0")
    (vase,) = corpus
    assert (vase.key, vase.name, vase.split, vase.captions) == ("RedVase", "red vase", "test", ("a vase",))
    assert corpus.unknown == ("gone",)
    assert vase.load_gaussians is not None
    assert torch.allclose(vase.load_gaussians().means, splat.means)
    assert vase.open_source is not None
    with vase.open_source() as source:
        digest = hashlib.sha256(source.read()).hexdigest()
    assert digest == hashlib.sha256((tmp_path / "RedVase.ply").read_bytes()).hexdigest()
    with pytest.raises(DataError, match=r"RedVase\.ply: is a splat"):
        vase.load_mesh()


def test_objects_travel_to_other_processes(modelnet):
    corpus = modelnet40(modelnet)
    copies = pickle.loads(pickle.dumps(corpus.objects))
    assert np.array_equal(copies[0].load_mesh().vertices, corpus[0].load_mesh().vertices)


def test_corpora_that_are_not_there_are_told(tmp_path):
    for source in ("nonsense", "folder", "folder:"):
        with pytest.raises(DataError, match="CORPUS"):
            open_corpus(source)
    for kind in ("folder", "splats", "modelnet40", "furniture"):
        with pytest.raises(FormatError, match="nothing"):
            open_corpus(f"{kind}:{tmp_path / 'nothing'}")


def test_keys_of_files_are_unique_names_without_dots():
    names = ["a b.obj", "a_b.glb", "c/d.e.obj", "椅子.glb", "机.glb", "x" * 300 + ".obj", "Plain.obj"]
    keys = file_keys(names)
    assert len(set(keys)) == len(keys)
    assert keys[2] == "c_d_e"
    assert keys[6] == "Plain"
    assert all(key and "." not in key and key.isascii() and len(key) <= LONGEST_KEY + 9 for key in keys)
    assert file_keys(names[:1]) == ["a_b"]
    assert file_keys(names[::-1]) == keys[::-1]
