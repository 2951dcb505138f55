import numpy as np
import pytest

from splatsense.errors import DataError
from splatsense.mesh import Material, Mesh

WHITE = Material(np.ones(4, np.float32))


def triangle(**changes):
    values = {
        "vertices": np.array([[0, 0, 0], [4, 0, 0], [0, 2, 0], [9, 9, 9]], np.float32),
        "faces": np.array([[0, 1, 2]], np.int32),
        "face_materials": np.zeros(1, np.int32),
        "face_instances": np.zeros(1, np.int32),
        "materials": (WHITE,),
    }
    return Mesh(**values | changes)


def test_areas():
    assert triangle().face_areas.tolist() == [4.0]


def test_normalized_measures_the_vertices_that_faces_use():
    mesh = triangle().normalized()
    np.testing.assert_allclose(mesh.vertices[:3], [[-1, -0.5, 0], [1, -0.5, 0], [-1, 0.5, 0]])
    assert mesh.vertices.dtype == np.float32


def test_normalized_of_a_flat_point_and_of_nothing():
    point = triangle(vertices=np.ones((4, 3), np.float32)).normalized()
    assert not point.vertices.any()
    none = {
        "faces": np.zeros((0, 3), np.int32),
        "face_materials": np.zeros(0, np.int32),
        "face_instances": np.zeros(0, np.int32),
    }
    assert len(triangle(**none).normalized().vertices) == 4
    with pytest.raises(DataError, match="no vertices"):
        triangle(vertices=np.zeros((0, 3), np.float32), **none).normalized()


def test_normalized_keeps_the_rest():
    mesh = triangle(corner_uvs=np.ones((1, 3, 2), np.float32), corner_colors=np.ones((1, 3, 3), np.float32))
    for name in ("faces", "face_materials", "face_instances", "materials", "corner_uvs", "corner_colors"):
        assert getattr(mesh.normalized(), name) is getattr(mesh, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vertices": np.zeros((4, 2), np.float32)}, r"Mesh\.vertices has shape \(4, 2\), expected \(4, 3\)"),
        ({"faces": np.zeros((1, 4), np.int32)}, r"Mesh\.faces has shape"),
        ({"face_materials": np.zeros(2, np.int32)}, r"Mesh\.face_materials has shape \(2,\), expected \(1,\)"),
        ({"face_instances": np.zeros(2, np.int32)}, r"Mesh\.face_instances has shape"),
        ({"corner_uvs": np.zeros((1, 3, 3), np.float32)}, r"Mesh\.corner_uvs has shape"),
        ({"corner_colors": np.zeros((1, 3), np.float32)}, r"Mesh\.corner_colors has shape"),
        ({"materials": ()}, "pass at least one Material"),
        ({"faces": np.array([[0, 1, 4]], np.int32)}, "points outside the 4 vertices"),
        ({"faces": np.array([[0, 1, -1]], np.int32)}, "points outside the 4 vertices"),
        ({"face_materials": np.array([1], np.int32)}, "points outside the 1 materials"),
    ],
)
def test_wrong_arrays(changes, message):
    with pytest.raises(DataError, match=message):
        triangle(**changes)
