import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import DataError, FormatError
from splatsense.io import load, load_point_cloud, read_text_cloud

POINTS = np.array([[1, 2, 3], [4, 5, 6.5], [-7, 8, 9e-1]], np.float32)
COLORS = np.array([[0, 51, 102], [255, 0, 0], [204, 204, 0]])
NORMALS = np.array([[0, 0, 1], [0, -1, 0], [0.6, 0.8, 0]])


def lines(*columns, delimiter=" ", end="\n"):
    table = np.concatenate(columns, 1)
    return "".join(delimiter.join(f"{value:g}" for value in row) + end for row in table)


GOOD = [
    ("a.xyz", lines(POINTS), None, None),
    ("a.txt", "\n\n# made by hand\n" + lines(POINTS, end="\r\n"), None, None),
    ("a.csv", lines(POINTS, delimiter=","), None, None),
    ("a.csv", "﻿X;Y;Z\n" + lines(POINTS, delimiter=";"), None, None),
    ("a.asc", lines(POINTS, delimiter="\t"), None, None),
    ("a.asc", lines(POINTS, delimiter="  "), None, None),
    ("a.xyz", lines(POINTS, [[1], [2], [3]]), None, None),
    ("a.xyz", lines(POINTS, COLORS), COLORS / 255, None),
    ("a.xyzrgb", lines(POINTS, NORMALS**2), NORMALS**2, None),
    ("a.xyz", lines(POINTS, COLORS / 300), COLORS / 300, None),
    ("a.xyz", lines(POINTS, NORMALS), None, NORMALS),
    ("a.txt", lines(POINTS, NORMALS, delimiter=","), None, NORMALS),
    ("a.xyzn", lines(POINTS, COLORS), None, COLORS),
    ("a.txt", lines(POINTS, COLORS, NORMALS), COLORS / 255, NORMALS),
    ("a.txt", lines(POINTS, NORMALS, COLORS), COLORS / 255, NORMALS),
    ("a.pts", "3\n" + lines(POINTS, [[-9], [5], [7]], COLORS), COLORS / 255, None),
    ("a.txt", "//X,Y,Z,R,G,B,Intensity\n3\n" + lines(POINTS, COLORS, [[1], [2], [3]], delimiter=","), COLORS / 255, None),
    ("a.csv", '"red","green","blue","z [m]","y","x"\n' + lines(COLORS, POINTS[:, ::-1], delimiter=","), COLORS / 255, None),
    ("a.csv", "t,x,y,z,normal_x,normal_y,normal_z\n" + lines([[1], [2], [3]], POINTS, NORMALS, delimiter=","), None, NORMALS),
]


@pytest.mark.parametrize(("name", "text", "colors", "normals"), GOOD)
def test_tables(tmp_path, name, text, colors, normals):
    (tmp_path / name).write_text(text, "utf-8", newline="")
    cloud = load_point_cloud(tmp_path / name)
    np.testing.assert_allclose(cloud.points, POINTS)
    for found, expected in ((cloud.colors, colors), (cloud.normals, normals)):
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(load(tmp_path / name)) == 3


BROKEN = [
    ("# nothing but comments\n", "holds no points"),
    ("hello\n", "line 1 is neither a point nor the names of columns x, y, z: 'hello'. Is this a point cloud"),
    ("1 2 3\n4 5\n6 7 8\n", r"line 2 is not 3 numbers: '4 5'\. Correct or delete it"),
    ("\n1 2 3\n\n4 5 6\n7 eight 9\n", "line 5 is not 3 numbers: '7 eight 9'"),
    ("1,5;2,5;3,5\n2,5;3,5;4,5\n", "line 1 is neither a point .* with decimal points"),
    ("1 2\n3 4\n", "what its 2 columns mean cannot be told"),
    ("1 2 3 4 5 6 7\n" * 2, "what its 7 columns mean cannot be told.*Give it a first line"),
    ("1 2 3 4 5 -6\n" * 2, "seem to be colours, but some are below 0"),
    ("x y z\n1 2 3 4\n", "names 3 columns, but its lines have 4 numbers"),
    ("x y z x\n1 2 3 4\n", "names x more than once"),
    ("1 2 3\0\n", "is not a text file: it holds null bytes"),
    ("#\n" * 2000 + "1 2 3\n", "no point within its first 1000 lines"),
    ("1_0 2 3\n1 2 3\n", "line 1 is neither a point"),
    ("1 2 3\n1_0 2 3\n", "line 2 is not 3 numbers"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_broken_tables(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        load(tmp_path / "a.txt")
    assert str(caught.value).startswith(f"{tmp_path / 'a.txt'}: ")


def test_values_that_are_no_numbers(tmp_path, caplog):
    (tmp_path / "a.xyz").write_text("nan 1 2\n1 2 3\ninf 0 0\n1e400 0 0\n4 5 6\n")
    assert len(load(tmp_path / "a.xyz")) == 2
    assert "left out 3 of 5 points" in caplog.text
    (tmp_path / "a.xyz").write_text("nan 1 2\n")
    with pytest.raises(DataError, match="none of its 1 points is usable"):
        load(tmp_path / "a.xyz")


def test_an_error_far_into_a_file_names_its_line(tmp_path):
    (tmp_path / "a.xyz").write_text("1 2 3\n" * 70_000 + "1 2\n" + "1 2 3\n" * 10)
    with pytest.raises(FormatError, match="line 70001 is not 3 numbers"):
        load(tmp_path / "a.xyz")


def test_georeferenced_text_keeps_its_millimetres(tmp_path):
    (tmp_path / "a.xyz").write_text("".join(f"{500000 + i * 0.001:.3f} {5200000.5} 7\n" for i in range(50)))
    cloud = read_text_cloud(tmp_path / "a.xyz")
    np.testing.assert_allclose(
        cloud.points[:, 0].astype(np.float64) + cloud.origin[0], 500000 + np.arange(50) * 0.001, rtol=0, atol=1e-6
    )


@settings(max_examples=40)
@given(
    points=st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 3), min_size=1, max_size=20),
    delimiter=st.sampled_from([" ", ",", ";", "\t", ", "]),
)
def test_round_trip(tmp_path_factory, points, delimiter):
    path = tmp_path_factory.getbasetemp() / "round.xyz"
    path.write_text("".join(delimiter.join(map(repr, point)) + "\n" for point in points))
    cloud = read_text_cloud(path)
    np.testing.assert_allclose(cloud.points.astype(np.float64) + cloud.origin, points, rtol=1e-6, atol=1e-6)


@given(data=st.binary(min_size=1, max_size=200))
def test_any_bytes(tmp_path_factory, loads_or_says_why, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    loads_or_says_why(path)
