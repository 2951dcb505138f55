"""The bundled model on the bundled objects, from files to answers."""

from importlib import resources
from pathlib import Path

import pytest

from splatsense.demo import bundled_objects
from splatsense.library import Library

ASSETS = Path(str(resources.files("splatsense").joinpath("assets")))
WEIGHTS = Path(str(resources.files("splatsense").joinpath("weights", "clip-gs-tiny", "config.json")))
pytestmark = pytest.mark.skipif(
    not (WEIGHTS.is_file() and (ASSETS / "objects.json").is_file()), reason="the bundled model or objects are not there"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    with Library(tmp_path_factory.mktemp("bundled") / "library") as opened:
        report = opened.add(ASSETS / "objects", progress=False)
        assert report.failed == []
        yield opened


def test_names_find_their_objects_far_above_chance(library):
    bundled = bundled_objects(ASSETS)
    asked = bundled[::3]
    found = [item.file in {hit.path.name for hit in library.search_text(item.name, k=5)} for item in asked]
    chance = 5 / len(bundled)
    assert sum(found) / len(found) > 4 * chance


def test_the_query_picture_finds_furniture_to_sit_on(library):
    names = {item.file: item.name.lower() for item in bundled_objects(ASSETS)}
    first = [names[hit.path.name] for hit in library.search_image(ASSETS / "query.png", k=5)]
    assert any(word in name for name in first for word in ("sofa", "chair", "bench", "bed"))


def test_text_alone_does_not_load_the_gaussian_encoder(library):
    with Library(library.path) as fresh:
        fresh.search_text("a wooden chair")
        assert "encoder" not in vars(fresh.model)
