"""The page in a real browser: headless Chromium, drawing by SwiftShader; skipped where no Chromium is found."""

import io
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from splatsense.geometry.upright import Up
from splatsense.library import Library
from web.conftest import CHOSEN, OBJECTS, SECONDS, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
NO_WEBGL2 = """{
  const get = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
    return kind === "webgl2" ? null : get.call(this, kind, ...rest);
  };
}"""
UNNAMED = """all => all.filter(one => !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length))
  .map(one => one.outerHTML)"""
WIDE, NARROW = (1280, 800), (360, 740)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(indexed, tmp_path_factory) -> Iterator[str]:
    path = shutil.copytree(indexed, tmp_path_factory.mktemp("page") / "library")
    with Library(path) as library, serving(library) as address:
        yield address


@pytest.fixture
def open_page(browser, served) -> Iterator:
    """Opens pages; every request must go to our server, and nothing may be wrong in the browser's console."""
    contexts, faults = [], []

    def opened(path: str = "", size: tuple[int, int] = WIDE, theme: str = "light", script: str = ""):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
        contexts.append(context)
        context.set_default_timeout(1_000 * SECONDS)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("request", lambda request: _check_address(request.url, served, faults))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
        page.goto(f"{served}/{path}")
        return page

    yield opened
    pictures = os.environ.get("SPLATSENSE_SCREENSHOTS")
    for number, context in enumerate(contexts):
        if pictures:
            name = re.sub(r"\W+", "-", os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split(" ")[0])
            context.pages[0].screenshot(path=Path(pictures) / f"{name}-{number}.png")
        context.close()
    assert faults == []


@contextmanager
def own_page(browser, address: str) -> Iterator:
    """A page of another server than that of `open_page`, or one whose console may complain."""
    context = browser.new_context()
    context.set_default_timeout(1_000 * SECONDS)
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


@contextmanager
def serving_with(model: type, path: Path) -> Iterator:
    """A library whose model is wrapped in one of test_jobs.py, that model, and the address of a server of it."""
    with Library(path) as library:
        wrapped = model(library.model)
    with Library(path, wrapped) as library, serving(library) as address:
        yield library, wrapped, address


def _check_address(url: str, served: str, faults: list[str]) -> None:
    if not url.startswith((served, f"blob:{served}", "data:")):
        faults.append(f"a request to another host: {url}")


def names(page) -> list[str]:
    return page.locator("#results .name").all_text_contents()


def search(page, words: str) -> list[str]:
    with page.expect_response(lambda reply: reply.url.endswith("/api/search") and words in (reply.request.post_data or "")):
        page.fill("#words", words)
    page.locator("#status", has_text="best first").wait_for()
    return names(page)


def pixels(locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"), np.float32)


def drop(page, target: str, files: list[Path]) -> None:
    """Drag files over the page and let go of them over an element."""
    contents = [[path.name, list(path.read_bytes())] for path in files]
    transfer = page.evaluate_handle(
        "files => { const held = new DataTransfer();"
        "for (const [name, data] of files) held.items.add(new File([new Uint8Array(data)], name)); return held; }",
        contents,
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    page.locator(target).wait_for(state="visible")
    for event in ("dragover", "drop"):
        page.dispatch_event(target, event, {"dataTransfer": transfer})


def test_words_are_searched_as_they_are_typed(open_page):
    page = open_page()
    page.locator("#results .card").nth(len(CHOSEN) - 1).wait_for()
    page.locator("#words").press_sequentially("a wooden chair", delay=20)
    page.locator("#status", has_text="best first").wait_for()
    page.locator("#results li:first-child", has_text="oak chair").wait_for()
    assert page.locator("#results .score").count() == len(CHOSEN)
    page.reload()  # the address keeps the query
    page.locator("#results li:first-child", has_text="oak chair").wait_for()
    assert page.input_value("#words") == "a wooden chair"


def test_filters_leave_what_they_say(open_page):
    page = open_page()
    page.locator(".chooser summary").click()
    page.locator(".choice", has_text="chair").first.click()
    page.locator("#status", has_text="2 assets").wait_for()
    assert sorted(names(page)) == ["oak chair", "plastic chair"]
    page.locator(".chooser input[type=search]").press("Escape")
    page.select_option("select[aria-label=Folder]", index=2)
    page.locator("#status", has_text="No asset").wait_for()
    page.get_by_role("button", name="Clear filters").click()
    page.locator("#status", has_text=f"{len(CHOSEN)} assets").wait_for()
    page.get_by_role("button", name="Clear filters").wait_for(state="hidden")


def drop_picture(page):
    """Search by the picture of a sofa."""
    drop(page, "#drop-search", [OBJECTS.parent / "query.png"])
    page.locator("#parts li", has_text="query.png").wait_for()


def test_a_dropped_picture_is_searched_by_and_mixed_with_words(open_page):
    page = open_page()
    page.locator("#results .card").first.wait_for()
    drop_picture(page)
    page.locator("#results li:first-child", has_text="sofa").wait_for()
    search(page, "a football")
    sliders = page.locator("#parts input[type=range]")
    assert sliders.count() == 2
    sliders.nth(1).fill("0")
    page.locator("#results li:first-child", has_text="basketball").wait_for()
    page.locator("#parts button").click()
    sliders.first.wait_for(state="detached")


def test_an_asset_is_dragged_or_chosen_to_search_by(open_page):
    page = open_page("#/?q=basketball")
    ball = page.locator(".card", has_text="basketball")
    ball.wait_for()
    ball.drag_to(page.locator("#words"))
    page.locator("#parts li", has_text="basketball").last.wait_for()
    plant = page.locator(".card", has_text="little plant")
    plant.hover()
    plant.locator(".similar").click()
    page.locator("#parts li", has_text="little plant").wait_for()
    assert page.locator("#parts img").count() == 2


def test_a_weight_that_is_not_shown_does_not_count(open_page):
    page = open_page()
    for name in ("basketball", "sofa"):
        card = page.locator(".card", has_text=name)
        card.hover()
        card.locator(".similar").click()
        page.locator("#parts li", has_text=name).wait_for()
    for slider in page.locator("#parts input[type=range]").all():
        slider.fill("0")
    page.locator("#status", has_text="newest first").wait_for()
    for slider in page.locator("#parts input[type=range]").all():
        slider.fill("-1")
    page.locator("#status", has_text="best first").wait_for()
    page.get_by_role("button", name="Remove sofa").click()
    page.locator("#results li:first-child", has_text="basketball").wait_for()
    assert page.locator("#parts input[type=range]").count() == 0


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_chips_are_of_one_height(open_page, size):
    page = open_page("#/?q=chair&size=small", size)
    page.get_by_role("button", name="Clear filters").wait_for()
    heights = page.locator("#filters summary, #filters select").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert len(heights) == 3
    assert len(set(heights)) == 1
    drop(page, "#drop-search", [OBJECTS.parent / "query.png"])
    slider, weight = page.locator("#parts input[type=range]").first, page.locator("#parts output").first
    slider.wait_for()
    sizes = []
    for value in ("0", "-1"):
        slider.fill(value)
        sizes.append(weight.evaluate("one => [one.scrollWidth, one.offsetHeight]"))
    assert weight.text_content() == "-100 %"
    assert sizes[0] == sizes[1]


def test_links_start_a_new_search_and_back_leads_to_the_old_one(open_page):
    page = open_page()
    parts = page.locator("#parts li")
    page.locator("#results .card").first.wait_for()
    drop(page, "#drop-search", [OBJECTS.parent / "query.png"])
    page.locator("#results li:first-child", has_text="sofa").wait_for()
    page.locator(".card a", has_text="oak chair").click()
    page.locator("#page-asset .tags a").first.click()
    page.locator("#status", has_text="newest first").wait_for()
    assert parts.count() == 0
    page.go_back()
    page.locator("h1", has_text="oak chair").wait_for()
    page.go_back()
    parts.filter(has_text="query.png").wait_for()
    page.locator("#results li:first-child", has_text="sofa").wait_for()
    page.reload()
    parts.filter(has_text="query.png").wait_for()
    page.locator(".brand").click()  # a link to the address that is shown
    page.locator("#status", has_text="newest first").wait_for()
    assert parts.count() == 0


def test_a_search_by_an_asset_keeps_the_parts_there_were(open_page):
    page = open_page()
    page.locator("#results .card").first.wait_for()
    drop_picture(page)
    page.locator(".card a", has_text="oak chair").click()
    page.locator("#page-asset button", has_text="Search by it").click()
    page.locator("#parts li", has_text="oak chair").wait_for()
    assert page.locator("#parts li").count() == 2


def test_an_asset_is_seen_in_3d_and_can_be_turned(open_page):
    page = open_page("#/?q=oak chair")
    page.locator(".card a", has_text="oak chair").click()
    page.locator(".stage[data-loaded]").wait_for()
    canvas = page.locator(".stage canvas")
    empty = np.array([0xF1, 0xF2, 0xF0])
    picture = _until(lambda: pixels(canvas), lambda image: _covered(image, empty) > 0.05)
    brown = picture[np.abs(picture - empty).max(-1) > 40].mean(0)
    assert brown[0] > brown[1] > brown[2], "oak is brown"
    canvas.focus()
    for _ in range(6):
        canvas.press("ArrowRight")
    inner = np.s_[60:-8, 8:-8]  # without the ring of the focus and the buttons
    _until(lambda: pixels(canvas), lambda image: np.abs(image - picture)[inner].mean() > 5)
    canvas.press("0")
    _until(lambda: pixels(canvas), lambda image: np.abs(image - picture)[inner].mean() < 1)
    assert page.locator("#page-asset .grid .card").count() > 3
    page.locator(".numbers").wait_for()
    page.select_option("select[aria-label='Format of the download']", ".ply")
    with page.expect_download() as download:
        page.locator("a", has_text="Download").click()
    assert download.value.suggested_filename == "oakChair.ply"


def test_without_webgl2_there_is_a_picture_and_a_reason(open_page):
    page = open_page("#/asset/1", script=NO_WEBGL2)
    page.locator(".stage-note", has_text="no WebGL2").wait_for()
    picture = page.locator(".stage img")
    assert _until(lambda: pixels(picture).std(), lambda spread: spread > 5) > 5


def test_a_view_that_the_graphics_processor_drops_becomes_a_picture(browser, served):
    with own_page(browser, f"{served}/#/asset/1") as page:  # Spark's own work that was under way complains
        page.locator(".stage[data-loaded]").wait_for()
        lose = "canvas => canvas.getContext('webgl2').getExtension('WEBGL_lose_context').loseContext()"
        page.locator(".stage canvas").evaluate(lose)
        page.locator(".stage-note", has_text="Load the page again").wait_for()
        page.locator(".stage img").wait_for()


def test_slow_drops_leave_the_page_and_later_drops_alone(browser, library_copy, tmp_path):
    """A browser opens six connections to a server; here are more drops than that, of which the first is stuck."""
    from web.test_jobs import StuckModel

    files = [shutil.copy(path, tmp_path) for path in sorted(OBJECTS.glob("*.splat")) if path.stem not in CHOSEN][:8]
    with serving_with(StuckModel, library_copy) as (_, stuck, address), own_page(browser, address) as page:
        page.locator("#results .card").first.wait_for()
        try:
            drop(page, "#drop-add", [Path(files[0])])
            assert stuck.is_stuck.wait(SECONDS)
            for path in files[1:]:
                drop(page, "#drop-add", [Path(path)])
            page.locator(".job p", has_text="1 asset added").nth(6).wait_for()
            running = page.locator(".job", has=page.locator("progress:visible"))
            assert running.count() == 1
            assert "0 of 1 file" in running.locator("p").text_content()
            search(page, "a football")
            page.locator("#results li:first-child", has_text="basketball").wait_for()
        finally:
            stuck.may_go.release()
        page.locator(".job p", has_text="1 asset added").nth(7).wait_for()


TURNS = """async () => {
  const { Turns } = await import("/static/js/turns.js");
  const turns = new Turns(1), stop = new AbortController(), never = new AbortController().signal, log = [];
  await turns.take(never);
  const waiting = [["a", never], ["b", stop.signal], ["c", never]].map(([name, signal]) =>
    turns.take(signal).then(() => log.push(name), (error) => log.push(`${name} ${error.name}`)));
  stop.abort();
  await waiting[1];
  turns.give();
  await waiting[0];
  const between = [...log];
  turns.give();
  await waiting[2];
  turns.give();
  await turns.take(stop.signal).catch((error) => log.push(error.name));
  return [between, log, turns.free];
}"""


def test_those_who_wait_for_a_turn_come_in_order_and_may_leave(open_page):
    assert open_page().evaluate(TURNS) == [["b AbortError", "a"], ["b AbortError", "a", "c", "AbortError"], 1]


def test_a_good_and_a_broken_file_are_uploaded(open_page, tmp_path):
    page = open_page()
    page.locator("#results .card").first.wait_for()
    (tmp_path / "<img src=x onerror=alert(1)>.ply").write_bytes(b"ply\nnot really")
    (tmp_path / "notes.docx").write_bytes(b"x")
    good = shutil.copy(OBJECTS / "radiator1.splat", tmp_path / "radiator.splat")
    drop(page, "#drop-add", [*sorted(tmp_path.glob("*.ply")), tmp_path / "notes.docx", good])
    job = page.locator(".job")
    job.locator("p", has_text="1 asset added").wait_for()
    assert sorted(job.locator("li strong").all_text_contents()) == ["<img src=x onerror=alert(1)>.ply", "notes.docx"]
    page.locator("#results .card", has_text="radiator").wait_for()
    job.get_by_role("button", name="Close").click()
    assert page.locator(".job").count() == 0


def test_an_archive_is_to_be_unpacked(open_page, tmp_path):
    page = open_page()
    page.locator("#results .card").first.wait_for()
    for name in ("chairs.ZIP", "notes.docx"):
        (tmp_path / name).write_bytes(b"x")
    drop(page, "#drop-add", [tmp_path / "chairs.ZIP", tmp_path / "notes.docx"])
    page.locator(".job p", has_text="Nothing to add").wait_for()
    archive, other = page.locator(".job li").all_text_contents()
    assert archive == "chairs.ZIP is an archive; unpack it and drop what is in it"
    assert other.startswith("notes.docx is no 3D asset; these are read: .")


def test_the_title_stays_that_of_the_page_when_a_run_ends(open_page):
    page = open_page("#/asset/1")
    page.locator(".stage[data-loaded]").wait_for()
    title = page.title()
    drop(page, "#drop-add", [OBJECTS / "oakChair.splat"])
    page.locator(".job p", has_text="1 known already").wait_for()
    page.locator("#filters select").first.wait_for(state="attached")  # made when a run has ended
    assert page.title() == title


def test_which_way_is_up_is_chosen_by_its_label_and_sent(browser, library_copy, tmp_path):
    with Library(library_copy) as library, serving(library) as address, own_page(browser, address) as page:
        page.locator("#results .card").first.wait_for()

        def added() -> None:
            page.locator(".job p", has_text="1 asset added").wait_for()
            page.locator(".job").get_by_role("button", name="Close").click()

        choice = page.get_by_label("Axis that points up")
        assert choice.evaluate("select => [...select.options].map((option) => option.value)") == ["", *get_args(Up)]
        assert "It is remembered" in page.locator(f"#{choice.get_attribute('aria-describedby')}").text_content()
        page.locator("#add-button").click()
        choice.focus()
        page.keyboard.press("z")
        page.keyboard.press("Escape")
        drop(page, "#drop-add", [OBJECTS / "stool.splat"])
        assert page.locator("#drop-up").text_content() == "up: z"
        added()
        page.locator("#results li:first-child a", has_text="stool").click()  # the newest
        page.locator(".facts-table tr", has_text="Up").locator("td", has_text="z").wait_for()
        page.locator("#add-button").click()
        choice.select_option(label="−x")
        page.fill("#folder-path", str(shutil.copytree(library.path / "uploads", tmp_path / "scans")))
        page.locator("#folder-form button").click()
        added()
        assert library.assets()[-1].up == "-x"


def test_an_empty_library_says_what_to_do(browser, indexed, tmp_path):
    with Library(tmp_path / "library") as library, serving(library) as address, own_page(browser, address) as page:
        shutil.copy(next(indexed.glob("labels-*.npy")), library.path)
        page.locator("#status", has_text="This library is empty").wait_for()
        assert page.locator("#filters").is_hidden()
        page.locator("#welcome-button").click()
        page.locator("#add-dialog[open]").wait_for()
        page.keyboard.press("Escape")
        page.locator("nav a", has_text="Map").click()
        page.locator("#page-map .notice", has_text="This library is empty").wait_for()
        page.locator(".notice a", has_text="Back to the search").click()
        page.locator("#welcome").wait_for()
        drop(page, "#drop-add", [OBJECTS / "stool.splat"])
        page.locator("#results .card", has_text="stool").wait_for()
        assert page.locator("#welcome").is_hidden()
        assert page.locator("#filters").is_visible()


def test_indexing_a_folder_is_watched_and_cancelled(browser, library_copy, tmp_path):
    from web.test_jobs import SlowModel

    folder = tmp_path / "many"
    folder.mkdir()
    for path in sorted(OBJECTS.glob("*.splat"))[:30]:
        shutil.copy(path, folder)
    with serving_with(SlowModel, library_copy) as (library, slow, address), own_page(browser, address) as page:
        page.locator("#add-button").click()
        page.fill("#folder-path", "/no/such/folder")
        page.locator("#folder-form button").click()
        page.locator("#folder-error", has_text="no such folder").wait_for()
        page.fill("#folder-path", str(folder))
        page.locator("#folder-form button").click()
        job = page.locator(".job")  # which stays with its first files until the model may go on
        job.locator("p", has_text="of 30 files").wait_for()
        job.get_by_role("button", name="Cancel").click()
        job.locator("p", has_text="Stopping").wait_for()
        slow.may_go.release(10)
        job.locator("p", has_text="Cancelled").wait_for()
        assert len(library) < len(CHOSEN) + 30


def test_the_map_is_drawn_and_its_points_open(open_page):
    page = open_page("#/map")
    page.locator(".legend button").first.wait_for()
    canvas = page.locator(".map canvas")
    _until(lambda: pixels(canvas).std(), lambda spread: spread > 5)
    canvas.focus()
    page.keyboard.press("ArrowRight")
    name = page.locator(".tip strong").text_content()
    assert name in page.locator("#page-map [role=status].hidden").text_content()
    page.keyboard.press("Enter")
    page.locator("h1", has_text=name).wait_for()


def test_everything_can_be_done_with_the_keyboard(open_page):
    page = open_page()
    page.locator("#results .card").first.wait_for()
    page.keyboard.press("Tab")
    assert page.locator(".skip").evaluate("link => link === document.activeElement")
    page.keyboard.press("/")
    page.keyboard.type("a wooden chair")
    page.locator("#status", has_text="best first").wait_for()
    page.locator("#results li:first-child", has_text="oak chair").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.locator("h1", has_text="oak chair").wait_for()
    assert page.locator("h1").evaluate("title => title === document.activeElement")
    page.locator(".stage[data-loaded]").wait_for()
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate_handle("() => document.activeElement").evaluate("at => at.tagName + ':' + at.textContent.trim()")
        )
    assert {"BUTTON:Search by it", "A:Download", "A:chair"} <= reached
    page.keyboard.press("/")
    page.locator("#results .card").first.wait_for()
    page.locator("#add-button").focus()
    page.keyboard.press("Enter")
    page.locator("#add-dialog[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("#add-dialog[open]").wait_for(state="hidden")


@pytest.mark.parametrize(("path", "focused"), [("#/?q=chair", "results"), ("#/asset/1", "main"), ("#/map", "main")])
def test_the_header_is_skipped_without_leaving_the_page(open_page, path, focused):
    page = open_page(path)
    page.locator("#results .card, #page-asset h1, .legend button").first.wait_for()
    address = page.url
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.locator(f"#{focused}:focus").wait_for()
    assert page.url == address
    page.keyboard.press("Tab")
    assert page.evaluate_handle("() => document.activeElement").evaluate("at => at.closest('main') && at.id !== 'words'")


@pytest.mark.parametrize("path", ["", "#/asset/1", "#/map"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_a_small_telephone(open_page, path, theme):
    page = open_page(path, NARROW, theme)
    page.locator("#results .card, .stage[data-loaded], .legend button").first.wait_for()
    assert page.evaluate_handle("() => document.documentElement").evaluate("root => root.scrollWidth") <= NARROW[0]
    page.locator("#add-button").click()
    dialog = page.locator("#add-dialog").bounding_box()
    assert dialog["x"] >= 0
    assert dialog["x"] + dialog["width"] <= NARROW[0]


def test_the_theme_follows_the_system_until_one_is_chosen(open_page):
    background = "body => getComputedStyle(body).backgroundColor"
    page = open_page(theme="dark")
    body = page.locator("body")
    dark = body.evaluate(background)
    page.locator("#theme-button").click()
    light = body.evaluate(background)
    assert _brightness(dark) < 60 < 200 < _brightness(light)
    page.reload()
    assert body.evaluate(background) == light
    assert body.evaluate("body => getComputedStyle(body).color") != light


def test_controls_have_names_and_pictures_have_texts(open_page):
    for path in ("", "#/asset/1", "#/map"):
        page = open_page(path)
        page.locator("#results .card, .stage[data-loaded], .legend button").first.wait_for()
        controls = page.locator("button:visible, select:visible, input:visible, a:visible, canvas:visible")
        assert controls.evaluate_all(UNNAMED) == []
        assert page.locator("img:not([alt])").count() == 0


def _brightness(color: str) -> float:
    return sum(float(value) for value in color.removeprefix("rgb(").removesuffix(")").split(",")) / 3


def _covered(image: np.ndarray, empty: np.ndarray) -> float:
    return float((np.abs(image - empty).max(-1) > 40).mean())


def _until(measure, is_enough):
    """Measure again and again until the value is as it should be."""
    end = time.monotonic() + SECONDS
    while True:
        value = measure()
        if is_enough(value):
            return value
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
