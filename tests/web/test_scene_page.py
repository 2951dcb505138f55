"""Scenes in a real browser: a point is chosen, what is like it lights up; classes and instances are shown and told."""

# ruff: noqa: F811

import shutil
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from segmentation_scenes import CHAIR, TABLE
from splatsense.labels import SCANNET20
from splatsense.library import Library
from splatsense.web.scene_models import SceneModels
from web.conftest import SECONDS, serving
from web.scene_fixtures import ROOM, SETTINGS, room_file, room_library, scene_model, scene_models  # noqa: F401
from web.test_page import NARROW, WIDE, _until, browser, open_page, pixels, pytestmark  # noqa: F401

HOT = (240, 249, 33)
RED = (200, 30, 30)  # the room's chairs
FLOOR_COLOR = (120, 110, 100)


@pytest.fixture(scope="module")
def served(room_library, scene_models, tmp_path_factory) -> Iterator[str]:
    path = shutil.copytree(room_library, tmp_path_factory.mktemp("scene-page") / "library")
    with Library(path) as library, serving(library, SETTINGS, scene_models) as address:
        yield address


def near(image: np.ndarray, color, reach: float = 60) -> np.ndarray:
    return np.abs(image - np.array(color, np.float32)).max(-1) < reach


def press(page, name: str) -> None:
    page.locator(".segments").get_by_role("button", name=name, exact=True).click()


def say(page, text: str):
    page.locator(".scene [role=status]", has_text=text).wait_for()


def seen(page, color, least: float, reach: float = 60) -> np.ndarray:
    """The view once enough of it has a colour."""
    return _until(lambda: pixels(page.locator(".stage canvas")), lambda image: near(image, color, reach).mean() > least)


@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), (NARROW, "dark")])
def test_a_point_is_clicked_and_what_is_like_it_lights_up(open_page, size, theme):
    page = open_page("#/asset/1", size, theme)
    page.locator(".stage[data-loaded]").wait_for()
    before = seen(page, RED, 0.005)
    red = near(before, RED)
    assert near(before, HOT).mean() < 0.001
    press(page, "Similar to a point")
    say(page, "Click a point")
    rows, columns = np.nonzero(red)
    middle = len(rows) // 2
    page.locator(".stage canvas").click(position={"x": int(columns[middle]), "y": int(rows[middle])})
    say(page, "Yellow is like")
    after = seen(page, HOT, 0.002)
    assert near(after, HOT)[red].mean() > 0.4, "the chairs are like the chair"
    assert near(after, HOT)[~red].mean() < 0.1
    assert page.locator(".heat .ramp").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_with_the_keyboard_the_cross_chooses(open_page):
    page = open_page("#/asset/1")
    page.locator(".stage[data-loaded]").wait_for()
    button = page.locator(".segments").get_by_role("button", name="Similar to a point")
    button.focus()
    page.keyboard.press("Enter")
    say(page, "press Enter")
    canvas = page.locator(".stage canvas")
    canvas.focus()
    chosen = []
    for key in ("ArrowRight", "ArrowUp"):
        for _ in range(8):
            page.keyboard.press(key)
        with page.expect_response(lambda reply: "similarity?gaussian=" in reply.url) as reply:
            page.keyboard.press("Enter")
        assert reply.value.status == 200
        chosen.append(reply.value.url)
        say(page, "Yellow is like")
    assert chosen[0] != chosen[1]
    with page.expect_response(lambda reply: "similarity?gaussian=" in reply.url) as reply:
        canvas.click()  # in its middle
    cross, click = (ROOM.coord[int(url.partition("gaussian=")[2])] for url in (chosen[1], reply.value.url))
    assert np.linalg.norm(cross - click) < 0.15
    seen(page, HOT, 0.0005)


def test_classes_and_instances_are_painted_and_told(open_page):
    page = open_page("#/asset/1")
    page.locator(".stage[data-loaded]").wait_for()
    before = seen(page, RED, 0.005)
    red = near(before, RED)
    press(page, "Classes")
    say(page, "learn what it is")
    shown = seen(page, SCANNET20.colors[CHAIR], 0.002)
    assert near(shown, SCANNET20.colors[CHAIR])[red].mean() > 0.4
    keys = page.locator(".keys li").all_text_contents()
    assert any("chair" in key for key in keys)
    assert any("table" in key for key in keys)
    rows, columns = np.nonzero(red)
    middle = len(rows) // 2
    page.locator(".stage canvas").click(position={"x": int(columns[middle]), "y": int(rows[middle])})
    say(page, "chair, ")
    press(page, "Instances")
    page.locator(".keys[aria-label=instances]").wait_for()
    grey = seen(page, (60, 60, 60), 0.05, 30)
    assert not near(grey, SCANNET20.colors[TABLE], 20).any()
    press(page, "Colours")
    _until(lambda: pixels(page.locator(".stage canvas")), lambda image: np.abs(image - before).mean() < 4)


def test_tags_of_objects_give_way_to_the_classes_of_the_scene(browser, room_library, scene_models, tmp_path):
    path = shutil.copytree(room_library, tmp_path / "library")
    with Library(path) as library, serving(library, SETTINGS, scene_models) as address:
        page = browser.new_context().new_page()
        page.set_default_timeout(1_000 * SECONDS)
        page.goto(f"{address}/")
        assert page.locator(".card .tag").text_content().endswith("?")
        page.goto(f"{address}/#/asset/1")
        page.locator(".stage[data-loaded]").wait_for()
        assert page.locator(".facts", has_text="These take it for one object").count() == 1
        press(page, "Classes")
        page.locator(".facts h2", has_text="What is in it").wait_for()
        shares = page.locator(".facts .tags li").all_text_contents()
        assert any(share.startswith("chair") and share.endswith("%") for share in shares)
        assert page.locator(".facts", has_text="These take it for one object").count() == 0
        page.reload()  # without a click, once it is known
        page.locator(".facts h2", has_text="What is in it").wait_for()
        page.context.close()


def test_the_top_of_a_scene_can_be_cut_off(open_page):
    page = open_page("#/asset/1")
    page.locator(".stage[data-loaded]").wait_for()
    before = seen(page, RED, 0.005)
    page.get_by_role("button", name="Cut the top off").click()
    background = before[5, 5]
    empty = near(before, background, 6).mean()
    _until(lambda: pixels(page.locator(".stage canvas")), lambda image: near(image, background, 6).mean() > empty + 0.01)
    page.get_by_role("button", name="Cut the top off").click()
    _until(lambda: pixels(page.locator(".stage canvas")), lambda image: np.abs(image - before).mean() < 2)


def test_an_answer_that_comes_too_late_is_passed_over(open_page):
    page = open_page("#/asset/1")
    page.locator(".stage[data-loaded]").wait_for()
    before = seen(page, RED, 0.005)
    press(page, "Similar to a point")
    say(page, "Click a point")
    held = []
    page.route("**/similarity?*", lambda route: route.continue_() if held else held.append(route))
    canvas = page.locator(".stage canvas")
    rows, columns = np.nonzero(near(before, RED))
    canvas.click(position={"x": int(columns[len(rows) // 2]), "y": int(rows[len(rows) // 2])})
    _until(lambda: page.wait_for_timeout(50) or len(held), lambda count: count == 1)
    rows, columns = np.nonzero(near(before, FLOOR_COLOR, 25))
    canvas.click(position={"x": int(columns[len(rows) // 2]), "y": int(rows[len(rows) // 2])})
    say(page, "Yellow is like")
    seen(page, HOT, 0.02)
    page.wait_for_timeout(300)
    shown = pixels(canvas)
    with page.expect_response(lambda reply: reply.url == held[0].request.url):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert np.abs(pixels(canvas) - shown).mean() < 1, "the heat is that of the point that was clicked last"


def test_a_mode_that_is_left_while_it_is_computed(browser, room_library, scene_model, tmp_path):
    waiting, may_go = threading.Event(), threading.Event()
    models = SceneModels(segmentation=str(scene_model))

    def wait(module, inputs):
        waiting.set()
        may_go.wait()

    models.head().network.backbone.up[0].register_forward_pre_hook(wait)
    path = shutil.copytree(room_library, tmp_path / "library")
    with Library(path) as library, serving(library, SETTINGS, models) as address:
        page = browser.new_context().new_page()
        page.set_default_timeout(1_000 * SECONDS)
        try:
            page.goto(f"{address}/#/asset/1")
            page.locator(".stage[data-loaded]").wait_for()
            press(page, "Classes")
            say(page, "Computing")
            assert waiting.wait(SECONDS)
            press(page, "Colours")
            assert page.locator(".scene progress").is_hidden()
            assert page.locator(".scene [role=status]").text_content() == ""
            may_go.set()
            _until(lambda: page.request.get(f"{address}/api/jobs").json()[0]["status"], lambda status: status == "done")
            assert page.locator(".segments [aria-pressed=true]").text_content() == "Colours"
            press(page, "Instances")
            say(page, "learn what it is")
            again, first = page.request.get(f"{address}/api/jobs").json()
            assert first["total"] > 0
            assert again["total"] == 0, "nothing is computed twice"
        finally:
            may_go.set()
            page.context.close()


def test_the_computation_is_watched_and_cancelled(open_page, browser, room_library, scene_model, tmp_path):
    waiting, may_go = threading.Event(), threading.Event()
    models = SceneModels(segmentation=str(scene_model))

    def wait(module, inputs):
        waiting.set()
        may_go.wait()

    hook = models.head().network.backbone.up[0].register_forward_pre_hook(wait)
    path = shutil.copytree(room_library, tmp_path / "library")
    with Library(path) as library, serving(library, SETTINGS, models) as address:
        try:
            page = browser.new_context().new_page()
            page.goto(f"{address}/#/asset/1")
            page.locator(".stage[data-loaded]").wait_for(timeout=0)
            press(page, "Classes")
            say(page, "Computing")
            assert waiting.wait()
            page.locator(".scene").get_by_role("button", name="Cancel").click()
            say(page, "Stopping")
            hook.remove()
            may_go.set()
            say(page, "Cancelled.")
            press(page, "Classes")
            say(page, "learn what it is")
        finally:
            may_go.set()
            page.context.close()


def test_without_models_the_buttons_are_off_and_say_why(browser, room_library, tmp_path, monkeypatch):
    monkeypatch.setattr("splatsense.web.scene_models.BACKBONES", ("no-such-backbone",))
    monkeypatch.setattr("splatsense.web.scene_models.HEADS", ("no-such-head",))
    path = shutil.copytree(room_library, tmp_path / "library")
    with Library(path) as library, serving(library, SETTINGS) as address:
        page = browser.new_context().new_page()
        page.goto(f"{address}/#/asset/1")
        page.locator("#scene-off", has_text="--scene-model FOLDER").wait_for(timeout=0)
        for name in ("Similar to a point", "Classes", "Instances"):
            button = page.get_by_role("button", name=name, exact=True)
            assert button.is_disabled()
            assert button.get_attribute("aria-describedby") == "scene-off"
        assert page.get_by_role("button", name="Colours", exact=True).is_enabled()
        page.context.close()
