import numpy as np
import pytest

from splatsense.clip_gs.captions import Appearance, captions, clean_name, fill_template, size_words
from splatsense.clip_gs.color_words import ANCHORS, dominant_colors
from splatsense.corpora import CorpusObject

CUBE = (1.0, 1.0, 1.0)


def views_of(*colors) -> np.ndarray:
    """One picture with a band of each colour; the first row is transparent green."""
    rows = [[(0, 255, 0, 0)] * 8] + [[(*color, 255)] * 8 for color in colors]
    return np.array([rows], np.uint8)


def test_captions_use_name_tags_and_category():
    item = CorpusObject("k", "Bed 140x190 (oak)", lambda: None, tags=("Double",), category="Bedroom")
    found = captions(item)
    assert found[0] == "bed"
    assert "a 3D model of a double" in found
    assert "a bed, bedroom" in found
    assert len(found) == len(set(found))
    assert clean_name("12 cm") == "object"
    assert clean_name("chair_01") == clean_name("chair-01") == "chair"
    assert clean_name("desk_lamp") == "desk lamp"
    assert fill_template("{article} {name}", "oven") == "an oven"


def test_tags_without_a_word_make_no_captions():
    assert captions(CorpusObject("k", "Bed", lambda: None, tags=("2018", "(new)", "oak"))) == captions(
        CorpusObject("k", "Bed", lambda: None, tags=("oak",))
    )
    assert captions(CorpusObject("k", "2018", lambda: None))[0] == "object"


def test_size_and_colour_are_told_by_templates_that_the_seed_draws():
    item = CorpusObject("k", "Wardrobe", lambda: None, captions=("My own words.",))
    look = Appearance(("brown", "white"), (1.0, 2.5, 0.5))
    found = [captions(item, look, seed) for seed in range(20)]
    assert all(one[:2] == ["wardrobe", "My own words."] for one in found)
    described = {caption for one in found for caption in one if "tall" in caption or "brown" in caption}
    assert any("tall brown and white wardrobe" in caption for caption in described)
    assert len(described) > 15
    assert captions(item, look, 3) == found[3]
    assert not any("brown" in caption for caption in captions(item, None, 3))


def test_a_name_that_holds_its_colour_or_size_is_not_told_another():
    item = CorpusObject("k", "tall white lamp", lambda: None)
    found = captions(item, Appearance(("grey",), (1.0, 5.0, 1.0)))
    assert not any("grey" in caption or caption.count("tall") > 1 for caption in found)


@pytest.mark.parametrize(
    ("size_cm", "extent", "words"),
    [(None, CUBE, []), ((20, 10, 5), CUBE, ["small"]), ((250, 90, 90), CUBE, ["large"]), ((500, 1, 1), CUBE, ["huge"]),
     (None, (1, 3, 1), ["tall"]), (None, (1, 0.1, 1), ["flat"]), (None, (4, 1, 1), ["long"]), ((0, 0, 0), CUBE, [])],
)  # fmt: skip
def test_size_words(size_cm, extent, words):
    assert size_words(size_cm and tuple(map(float, size_cm)), tuple(map(float, extent))) == words


def test_colours_are_named_by_what_is_visible():
    red, blue, brown = (220, 20, 20), (30, 40, 200), (110, 70, 30)
    assert dominant_colors(views_of(red, red, blue)) == ("red",)
    assert dominant_colors(views_of(red, blue)) == ("red", "blue")
    assert dominant_colors(views_of(red, blue, brown, (250, 250, 250), (10, 10, 10))) == ()
    assert dominant_colors(views_of()) == ()
    assert dominant_colors(views_of(brown)) == ("brown",)


@pytest.mark.parametrize("term", ANCHORS)
def test_anchors_have_their_own_names(term):
    for anchor in ANCHORS[term]:
        assert dominant_colors(views_of(tuple(bytes.fromhex(anchor[1:])))) == (term,)
