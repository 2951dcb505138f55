"""The segmentation model in the package, on a room furnished with the demo's objects."""

import json

import numpy as np

from furnished_room import KINDS, room
from splatsense.cli import main
from splatsense.labels import SCANNET20
from splatsense.model_folder import BUNDLED, CONFIG, WEIGHTS
from splatsense.segmentation.export import write_points


def test_segment_knows_floor_walls_chair_and_table_without_any_option(tmp_path, capsys):
    points, color, _, kinds = (part.numpy() for part in room(0))
    write_points(tmp_path / "room.ply", points, color)
    assert main(["segment", str(tmp_path / "room.ply"), "--out", str(tmp_path / "out")]) == 0
    assert "120,000 points" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "prediction.npz") as found:
        semantic = found["semantic"]

    def share(kind: str, *names: str) -> float:
        """Of the points of a kind, those that are given one of these classes."""
        return float(np.isin(semantic[kinds == KINDS.index(kind)], [SCANNET20.names.index(name) for name in names]).mean())

    assert share("floor", "floor") > 0.9
    assert share("wall", "wall", "door", "window") > 0.9
    assert share("chair", "chair") > 0.8
    assert share("table", "table", "desk") > 0.6


def test_its_card_says_what_it_is():
    folder = BUNDLED / "rooms20-tiny"
    card = json.loads((folder / CONFIG).read_text())
    assert {"licence", "data", "limits", "training", "measured"} <= set(card)
    probe, classes = card["earlier_training"]
    assert (probe["protocol"], probe["backbone"]) == ("probe", "gaussian-cross-tiny")
    assert (classes["task"], card["training"]["task"]) == ("semantic", "instance")
    assert (folder / WEIGHTS).stat().st_size < 16e6
