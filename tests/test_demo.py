import json

import pytest
import torch
from PIL import Image

from splatsense.demo import QUERIES, SHOWN, bundled_objects, demo, run_demo
from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import save
from splatsense.library.contact_sheet import CELL, SheetRow, draw_contact_sheet, write_contact_sheet


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    """A folder laid out as the bundled assets, with seven small splats."""
    root = tmp_path_factory.mktemp("assets")
    (root / "objects").mkdir()
    entries = []
    for seed in range(7):
        generator = torch.Generator().manual_seed(seed)
        means, rgb = torch.randn(60, 3, generator=generator), torch.rand(3, generator=generator).expand(60, 3)
        quats = torch.nn.functional.normalize(torch.randn(60, 4, generator=generator), dim=-1)
        splat = Gaussians.from_rgb(means, quats, torch.full((60, 3), 0.2), torch.ones(60), rgb)
        save(splat, root / "objects" / f"o{seed}.splat")
        entries.append({"file": f"o{seed}.splat", "name": f"Object {seed}", "licence": "CC0-1.0", "creator": "A. Maker"})
    (root / "objects.json").write_text(json.dumps(entries))
    Image.new("RGB", (64, 64), "brown").save(root / "query.png")
    return root


def test_the_demo_indexes_searches_draws_and_does_not_index_twice(assets, tmp_path, model_folder, capsys):
    results = run_demo(tmp_path / "demo", assets, model_folder)
    out = capsys.readouterr().out
    assert "7 bundled splats, CC0-1.0" in out
    assert "7 indexed, 0 already indexed" in out
    assert all(f'"{query}"' in out for query in QUERIES)
    assert out.count("  1  ") == len(QUERIES) + 1
    assert "Object " in out
    with Image.open(results) as image:
        assert image.format == "PNG"
        assert image.width > SHOWN * CELL
        assert image.height > (len(QUERIES) + 1) * CELL
    run_demo(tmp_path / "demo", assets, model_folder)
    assert "0 indexed, 7 already indexed" in capsys.readouterr().out


@pytest.mark.parametrize("listing", [None, "{", '[{"file": "a.splat"}]', "[3]"])
def test_a_damaged_listing_is_an_error(tmp_path, listing):
    if listing is not None:
        (tmp_path / "objects.json").write_text(listing)
    with pytest.raises(DataError, match=r"objects\.json: missing or damaged"):
        bundled_objects(tmp_path)


def test_results_go_into_a_folder(assets, tmp_path, model_folder):
    (tmp_path / "out").write_text("x")
    with pytest.raises(DataError, match=r"--output .*out: is a file; name a folder\."):
        run_demo(tmp_path / "out", assets, model_folder)


def test_a_missing_object_is_an_error(assets, tmp_path, model_folder):
    entries = json.loads((assets / "objects.json").read_text())
    (tmp_path / "objects.json").write_text(json.dumps([entries[0] | {"file": "gone.splat"}]))
    with pytest.raises(DataError, match=r"gone\.splat"):
        run_demo(tmp_path / "demo", tmp_path, model_folder)


def test_a_contact_sheet_shows_every_thumbnail_and_fits_long_words(tmp_path):
    colors = ["red", "lime", "blue"]
    hits = [(Image.new("RGB", (256, 256), color), "an unreasonably long name " * 9, 0.5) for color in colors]
    rows = [SheetRow("words " * 12, None, hits), SheetRow("picture", Image.new("RGB", (300, 50), "yellow"), hits[:1])]
    sheet = draw_contact_sheet(rows, "Title")
    seen = {color for _, color in sheet.getcolors(1 << 24)}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)} <= seen
    corner = sheet.getpixel((0, 0))
    assert all(sheet.getpixel((sheet.width - 5, y)) == corner for y in range(sheet.height))
    write_contact_sheet(tmp_path / "sheet.webp", rows)
    with Image.open(tmp_path / "sheet.webp") as image:
        assert image.format == "WEBP"
    with pytest.raises(FormatError, match=r"use \.png"):
        write_contact_sheet(tmp_path / "sheet.doc", rows)


@pytest.mark.parametrize(("page", "is_served"), [("yes", True), ("no", False), ("auto", False)])
def test_the_page_opens_when_asked_for_or_at_a_terminal(tmp_path, monkeypatch, capsys, page, is_served):
    served = []
    monkeypatch.setattr("splatsense.demo.run_demo", lambda output, assets: output)
    monkeypatch.setattr("splatsense.web.serve.serve", lambda library, **options: served.append((library, options)) or 0)
    assert demo(tmp_path / "demo", page) == 0
    assert served == ([(tmp_path / "demo" / "library", {"open": True})] if is_served else [])
    assert ("splatsense serve" in capsys.readouterr().out) is not is_served
