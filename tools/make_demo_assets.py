"""Makes the bundled demo objects: CC0 models of the furniture test split, as .splat files, with their attribution.

    python tools/make_demo_assets.py [--furniture DIR]

Objects of the evaluated classes come in turn, class by class, until COUNT are chosen, so that every class that has a
CC0 model is there. Models with missing textures are passed over. The query picture is the catalogue icon, drawn by
another renderer, of a CC0 object that is not among them.
"""

import argparse
import io
import json
from collections import defaultdict
from pathlib import Path

from PIL import Image

from splatsense.corpora import CorpusObject, safe_key
from splatsense.corpora.furniture import catalogue_icon, evaluation_labels, furniture
from splatsense.io import save
from splatsense.io.surface import mesh_to_gaussians

COUNT, GAUSSIANS, ICON_SIZE = 64, 3500, 256
QUERY = "BlendSwap-CC-0_sofa2"
ASSETS = Path(__file__).parent.parent / "src" / "splatsense" / "assets"


def choose(objects: list[CorpusObject]) -> list[CorpusObject]:
    """COUNT objects, the classes taking turns."""
    by_class = defaultdict(list)
    for item in objects:
        if item.licence == "CC0-1.0" and item.split == "test" and item.label in evaluation_labels() and item.key != QUERY:
            by_class[item.label].append(item)
    turns = max(len(items) for items in by_class.values())
    ordered = [items[turn] for turn in range(turns) for items in by_class.values() if turn < len(items)]
    return [item for item in ordered if not item.load_mesh().missing_textures][:COUNT]


def main() -> None:
    """Write the splats, objects.json and query.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--furniture", help="folder of the Sweet Home 3D libraries")
    objects = furniture(parser.parse_args().furniture)
    folder = ASSETS / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.splat"):
        old.unlink()
    entries = []
    for item in sorted(choose(objects), key=lambda item: item.name):
        file = f"{safe_key(item.key.split('_', 1)[1])}.splat"
        save(mesh_to_gaussians(item.load_mesh().normalized(), GAUSSIANS), folder / file)
        entries.append({"file": file, "name": item.name, "licence": item.licence, "creator": item.creator})
    (ASSETS / "objects.json").write_text(json.dumps(entries, indent=1) + "\n")
    icon = next(catalogue_icon(item) for item in objects if item.key == QUERY)
    picture = Image.open(io.BytesIO(icon)).convert("RGBA").resize((ICON_SIZE, ICON_SIZE), Image.Resampling.BICUBIC)
    background = Image.new("RGBA", picture.size, "white")
    background.alpha_composite(picture)
    background.convert("RGB").save(ASSETS / "query.png")
    print(f"{len(entries)} objects, {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
