import json
import zipfile

import pytest

from splatsense.clip_gs.evaluate import EvaluateConfig, evaluate_retrieval, evaluate_zero_shot
from splatsense.errors import DataError

ENTRY = "id#{n}=Blend Swap CC-0#{id}\nname#{n}={name}\nicon#{n}=/i.png\nmodel#{n}=/m{n}.obj\n"
CUBE = "".join(f"v {x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 1))
FACES = "f 1 2 4 3\nf 5 6 8 7\nf 1 2 6 5\nf 3 4 8 7\nf 1 3 7 5\nf 2 4 8 6\n"


@pytest.fixture
def library(tmp_path):
    """Three test models of two classes, one of them without faces."""
    path = tmp_path / "BlendSwap-CC-0.sh3f"
    pieces = {1: ("armchair", "Armchair", CUBE + FACES), 2: ("bed1", "Bed", CUBE + FACES), 3: ("bed2", "Bed", CUBE)}
    with zipfile.ZipFile(path, "w") as archive:
        entries = [ENTRY.format(n=n, id=id, name=name) for n, (id, name, _) in pieces.items()]
        archive.writestr("PluginFurnitureCatalog.properties", "".join(entries))
        for n, (_, _, obj) in pieces.items():
            archive.writestr(f"m{n}.obj", obj)
    return path


def test_zero_shot_table_counts_objects_and_lists_what_failed(library, tmp_path):
    out = tmp_path / "figures.json"
    table = evaluate_zero_shot(EvaluateConfig(furniture=str(library), out=str(out)))
    assert "2 objects, 2 classes" in table
    assert "BlendSwap-CC-0_bed2: " in table
    figures = json.loads(out.read_text())["zero_shot"]
    # Two equal cubes of two classes: exactly one of them is right, whatever the model says.
    assert figures["model"]["top1"] == figures["render"]["top1"] == 0.5
    assert figures["model"]["chance"] == 0.5


def test_retrieval_table_has_all_directions(library):
    table = evaluate_retrieval(EvaluateConfig(furniture=str(library)))
    assert "2 objects, 2 names" in table
    for row in ("text -> 3D", "3D -> text", "image -> 3D", "3D -> image", "chance"):
        assert row in table


def test_an_empty_split_names_the_flags(library):
    with pytest.raises(DataError, match="--split train"):
        evaluate_zero_shot(EvaluateConfig(furniture=str(library), split="train"))
