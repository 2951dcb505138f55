"""Sweet Home 3D homes, written as the program writes them, become labelled scenes."""

import numpy as np
import pytest

from home_files import CHAIR, DOOR, WALLS, home_xml, write_home
from splatsense.cli import main
from splatsense.corpora.sweethome import HomeSettings, read_home
from splatsense.corpora.sweethome.home import parse_home
from splatsense.corpora.sweethome.polygons import distance_inside
from splatsense.corpora.sweethome.scene import piece_class
from splatsense.errors import DataError, FormatError, LimitError
from splatsense.labels import SCANNET20, SCANNET200
from splatsense.scenes import list_scenes, load_scene


def read(tmp_path, xml, frames=0, contents=(), **settings):
    (tmp_path / "scratch").mkdir(exist_ok=True)
    path = write_home(tmp_path / "home.sh3d", xml, contents)
    return read_home(path, tmp_path / "scratch", HomeSettings(frames=frames, **({"voxel": 0.05} | settings)))


def test_a_furnished_room_becomes_a_labelled_scene(tmp_path):
    scene = read(tmp_path, home_xml(CHAIR))
    assert scene.semantic20 is not None
    assert scene.semantic200 is not None
    assert scene.instance is not None
    assert scene.color is not None
    wall, floor, chair = (SCANNET20.index(name) for name in ("wall", "floor", "chair"))
    np.testing.assert_allclose(scene.coord.min(0), [-0.05, -3.05, 0], atol=1e-5)
    np.testing.assert_allclose(scene.coord.max(0), [4.05, 0.05, 2.5], atol=1e-5)
    on_floor = scene.semantic20 == floor
    assert (scene.coord[on_floor, 2] == 0).all()
    assert (scene.color[on_floor] == [128, 64, 32]).all()
    assert (scene.coord[scene.semantic200 == SCANNET200.index("ceiling"), 2] == 2.5).all()
    assert (scene.semantic20[scene.semantic200 == SCANNET200.index("ceiling")] == -1).all()
    assert len(np.unique(scene.instance[scene.semantic20 == wall])) == 4
    assert len(np.unique(scene.instance)) == 7  # walls, floor, ceiling, chair
    seat = scene.coord[scene.semantic20 == chair]
    # 40 x 60 cm turned by a quarter: 60 wide, 40 deep on the plan, about (1, -0.5)
    np.testing.assert_allclose(seat.min(0), [0.7, -0.7, 0], atol=0.06)
    np.testing.assert_allclose(seat.max(0), [1.3, -0.3, 0.9], atol=0.06)
    assert (scene.color[scene.semantic20 == chair] == [204, 26, 26]).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Wall uplight", "lamp"),
        ("Floor uplight", "lamp"),
        ("Office chair -3-", "office chair"),
        ("Cooker", "stove"),
        ("Quux", ""),
    ],
)
def test_pieces_without_a_catalogue_are_classed_by_their_names(tmp_path, name, expected):
    piece = CHAIR.replace("catalogId='eTeks#chair' ", "").replace("'Chair'", f"'{name}'")
    home = parse_home(home_xml(piece).encode(), "home")
    assert piece_class(home.pieces[0]) == expected


def test_walls_are_coloured_by_side_and_their_normals_point_outwards(tmp_path):
    scene = read(tmp_path, home_xml())
    assert scene.color is not None
    assert scene.normal is not None
    x, y, z = scene.coord.T
    first = (np.abs(z - 1.2) < 0.6) & (x > 0.5) & (x < 3.5)
    inner, outer = first & (np.abs(y + 0.05) < 1e-4), first & (np.abs(y - 0.05) < 1e-4)
    assert (scene.color[inner] == [64, 128, 192]).all()
    assert (scene.color[outer] == [200, 100, 50]).all()  # of the texture
    np.testing.assert_allclose(scene.normal[inner], np.tile([0, -1, 0], (inner.sum(), 1)), atol=1e-5)
    np.testing.assert_allclose(scene.normal[outer], np.tile([0, 1, 0], (outer.sum(), 1)), atol=1e-5)
    assert inner.sum() > 300


def test_a_wall_that_ends_where_it_starts_is_passed_over(tmp_path):
    closed = [*WALLS[:3], (0, 300, 0, 300), WALLS[3]]
    expected, found = read(tmp_path, home_xml()), read(tmp_path, home_xml(walls=closed))
    assert np.isfinite(found.coord).all()
    np.testing.assert_allclose(found.coord.min(0), expected.coord.min(0), atol=0.11)  # one corner is open
    np.testing.assert_allclose(found.coord.max(0), expected.coord.max(0), atol=0.11)


def test_doors_are_cut_out_and_their_rims_closed(tmp_path):
    scene = read(tmp_path, home_xml(DOOR))
    assert scene.semantic20 is not None
    wall = scene.coord[scene.semantic20 == SCANNET20.index("wall")]
    x, y, z = wall.T
    front = np.abs(y) <= 0.0501
    hole = front & (x > 1.551) & (x < 2.449) & (z < 2.099)
    assert not hole.any()
    assert (front & (x > 1.55) & (x < 2.45) & (z > 2.15)).any()  # above the door
    jamb = (np.abs(x - 1.55) < 1e-3) & (np.abs(y) < 0.04) & (z < 2.0)
    lintel = (np.abs(z - 2.1) < 1e-3) & (np.abs(y) < 0.04)
    assert jamb.sum() > 20
    assert lintel.sum() > 10
    door = scene.coord[scene.semantic20 == SCANNET20.index("door")]
    np.testing.assert_allclose(door[:, 0].max() - door[:, 0].min(), 0.9, atol=0.05)


def test_levels_groups_and_hidden_things(tmp_path):
    levels = "<level id='g' name='0' elevation='0' floorThickness='12' height='250'/>"
    levels += "<level id='u' name='1' elevation='262' floorThickness='12' height='250'/>"
    levels += "<level id='h' name='2' elevation='600' floorThickness='12' height='250' viewable='false'/>"
    table = "<pieceOfFurniture name='Table' x='100' y='100' width='80' depth='80' height='75'{0}/>"
    inner = f"<furnitureGroup name='Inner'>{table.format('')}</furnitureGroup>"
    group = f"<furnitureGroup name='Set' level='u'>{table.format('')}{inner}</furnitureGroup>"
    extra = levels + group + table.format(" level='h'") + table.format(" visible='false' level='g'")
    home = parse_home(home_xml(extra).encode(), "x")
    assert [item.level.elevation for item in home.pieces] == [2.62, 2.62]
    scene = read(tmp_path, home_xml(extra))
    assert scene.semantic20 is not None
    tables = scene.coord[scene.semantic20 == SCANNET20.index("table")]
    assert tables[:, 2].min() == pytest.approx(2.62, abs=1e-5)
    assert tables[:, 2].max() == pytest.approx(3.37, abs=1e-5)


def test_unreadable_models_and_textures_are_boxes_and_colours_and_counted(tmp_path, caplog):
    chairs = (
        CHAIR
        + CHAIR.replace("3/chair.obj", "9/chair.dae").replace("<piece", "<piece")
        + CHAIR.replace("3/chair.obj", "nothing")
    )
    scene = read(
        tmp_path, home_xml(chairs.replace("id='p1' ", "")), contents={"9/chair.dae": "<COLLADA/>", "7": "no picture"}.items()
    )
    assert "2 of 3 pieces have no OBJ model that can be read; boxes stand for them" in caplog.text
    assert "home.sh3d!/7: cannot be read as a picture" in caplog.text
    assert scene.instance is not None
    assert len(np.unique(scene.instance)) == 9


def test_frames_are_taken_in_the_rooms(tmp_path):
    scene = read(tmp_path, home_xml(CHAIR), frames=50, width=64, height=48)
    frames = scene.frames
    assert frames is not None
    assert len(frames) == 9
    assert len(np.unique(frames.cameras.centers.numpy().round(3), axis=0)) == 3
    centers = frames.cameras.centers.numpy()
    assert (distance_inside(np.array([[0, 0], [4, 0], [4, -3], [0, -3.0]]), centers[:, :2]) > 0.3).all()
    np.testing.assert_allclose(centers[:, 2], 1.5, atol=1e-5)
    color, depth = frames.frame(0)
    assert color.shape == (48, 64, 3)
    assert (depth > 0).all()  # the room is closed
    assert depth.max() < 5.5


def test_points_that_frames_see_are_those_of_a_scan(tmp_path):
    scene = read(tmp_path, home_xml(CHAIR), frames=9, width=160, height=120, points="seen")
    every = read(tmp_path, home_xml(CHAIR))
    assert scene.semantic20 is not None
    inside = (scene.coord > [-0.01, -3.01, -0.01]).all(1) & (scene.coord < [4.01, 0.01, 2.51]).all(1)
    assert inside.all()  # no outsides of walls
    assert len(scene) < len(every)
    assert set(np.unique(scene.semantic20)) == {-1, *(SCANNET20.index(name) for name in ("wall", "floor", "chair"))}
    floor = scene.semantic20 == SCANNET20.index("floor")
    assert np.abs(scene.coord[floor, 2]).max() < 0.03
    assert (scene.normal[floor, 2] > 0.9).mean() > 0.95
    assert scene.instance is not None
    assert every.instance is not None
    assert set(scene.instance) <= set(every.instance)
    with pytest.raises(DataError, match="--points seen: needs frames"):
        read(tmp_path, home_xml(CHAIR), points="seen")


def test_a_home_without_rooms_is_one_room(tmp_path):
    scene = read(tmp_path, home_xml(rooms=False), frames=3, width=32, height=24)
    assert scene.frames is not None
    assert len(scene.frames) == 3


def test_the_command_imports_homes_and_goes_on_past_bad_ones(tmp_path, capsys):
    (tmp_path / "homes").mkdir()
    write_home(tmp_path / "homes" / "good.sh3d", home_xml(CHAIR))
    write_home(tmp_path / "homes" / "old.sh3d", None)
    (tmp_path / "homes" / "cut.sh3d").write_bytes((tmp_path / "homes" / "good.sh3d").read_bytes()[:-100])
    command = ["scenes", "homes", "--source", str(tmp_path / "homes"), "--out", str(tmp_path / "out"), "--frames", "2"]
    assert main([*command, "--voxel", "0.1", "--width", "64", "--height", "48"]) == 1
    told = capsys.readouterr()
    assert "1 imported, 0 imported already, 2 failed." in told.out
    assert "Open it with a current Sweet Home 3D and save it again" in told.err
    assert "cut off or not a zip archive" in told.err
    scene = load_scene(list_scenes(tmp_path / "out", "train")[0])
    assert scene.name == "good"
    assert scene.frames is not None
    assert len(scene.frames) == 2


BOMB = "<?xml version='1.0'?><!DOCTYPE home [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]><home name='&b;'/>"


@pytest.mark.parametrize(
    ("xml", "error", "message"),
    [
        (BOMB, FormatError, r"Home\.xml: line 1 declares a document type"),
        ("<home><wall>", FormatError, "no well-formed XML"),
        ("<house/>", FormatError, "holds <house>, not <home>"),
        ("<home>" + "<a>" * 100 + "</a>" * 100 + "</home>", LimitError, "64 levels"),
        (home_xml().replace("xEnd='400'", "xEnd='NaN'"), FormatError, r"<wall> 'wall-0' has xEnd='NaN', not 1 finite"),
        (home_xml().replace("thickness='10.0'", "thickness='0'"), FormatError, "has no thickness or height"),
        (home_xml().replace("rightSideColor='FF4080C0'", "rightSideColor='blue'"), FormatError, "not a colour such as"),
        (home_xml(CHAIR.replace("width='40.0'", "")), FormatError, r"<pieceOfFurniture> 'Chair' has width=None"),
        (home_xml(CHAIR.replace("angle='1.5707964'", "modelRotation='1 0 0'")), FormatError, "has modelRotation='1 0 0'"),
        (home_xml().replace("<point x='0' y='0'/>", "").replace("<point x='400' y='0'/>", ""), FormatError, "has 2 points"),
        ("<home/>", DataError, "nothing in the home can be seen"),
    ],
)
def test_damaged_homes_are_told(tmp_path, xml, error, message):
    with pytest.raises(error, match=message) as caught:
        read(tmp_path, xml)
    assert "home.sh3d" in str(caught.value)


def test_archives_that_inflate_without_end_are_refused(tmp_path):
    with pytest.raises(LimitError, match=r"home\.sh3d: .*inflate"):
        read(tmp_path, "<home>" + " " * 80_000_000 + "</home>")
