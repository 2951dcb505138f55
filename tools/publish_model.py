"""Copies a trained model into the package and completes its card with data, licences and measured figures.

splatsense evaluate all --model RUN/model --data cache/furniture --labels furniture --drop-unknown --json fitted.json
splatsense evaluate all --model RUN/model --data cache/surface --labels furniture --drop-unknown --json surface.json
python tools/publish_model.py RUN/model "fitted=fitted.json" "surface-converted=surface.json"
"""

import argparse
import json
import shutil
from pathlib import Path

from splatsense import __version__
from splatsense.model_folder import BUNDLED, CONFIG, WEIGHTS

FACTS = {
    "method": "CLIP-GS (arXiv 2412.19142), our implementation",
    "licence": "Apache-2.0",
    "data": [
        "Sweet Home 3D furniture libraries, train split (Scopia, BlendSwap-CC-BY, Reallusion, default catalogue): CC-BY 3.0",
        "32 model packs by Quaternius: CC0 1.0",
    ],
    "input": "Gaussians fitted to pictures of meshes, and made from mesh surfaces; none from photographs; objects with y up",
    "limits": "Trained on some two thousand low-polygon objects, mostly furniture. The teacher is not CLIP.",
}


def training_history(card: dict) -> list[dict]:
    """Settings of every stage, the first one first, without the paths of the machine it ran on."""
    training = dict(card["training"])
    training.pop("triplets", None)
    start = training.pop("init", "")
    before = training_history(json.loads((Path(start) / CONFIG).read_text())) if start else []
    return [*before, {**training, "objects": card["objects"], "steps": card["steps"]}]


def measured(tables: dict, name: str) -> dict:
    """The model's own figures in what `evaluate all` wrote, shares in [0, 1]; comparisons with others stay there."""
    found = {"zero_shot": tables["zero_shot"]["results"][name], "linear_probe": tables["linear_probe"]["results"][name]["test"]}
    plain = {table: {key: value for key, value in row.items() if key != "by_class"} for table, row in found.items()}
    for table in ("retrieval", "few_shot"):
        plain[table] = {kind: rows[name] for kind, rows in tables[table]["results"].items()}
    return plain


def main() -> None:
    """Write `weights/<name>/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("figures", nargs="+", metavar="KIND=JSON", help="kind of splats of the furniture test split")
    options = parser.parse_args()
    card = json.loads((options.model / CONFIG).read_text())
    card["training"] = training_history(card)
    metrics = {}
    for kind, path in (figures.split("=", 1) for figures in options.figures):
        metrics[f"furniture test split, {kind}"] = measured(json.loads(Path(path).read_text()), card["name"])
    folder = BUNDLED / card["name"]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.model / WEIGHTS, folder / WEIGHTS)
    described = {**card, **FACTS, "code_version": __version__, "metrics": metrics}
    (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    print(f"{folder}: {(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
