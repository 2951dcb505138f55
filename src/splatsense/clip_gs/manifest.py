"""`manifest.json` of a folder of triplets: settings, shards, failures with their reasons, time, and the quality of the fits."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from splatsense.errors import FormatError
from splatsense.training.checkpoint import flat

FORMAT = "splatsense triplets 2"
NAMED = {
    "corpus": "corpus",
    "objects": "number of objects",
    "keys_sha256": "set of objects",
    "words_sha256": "words about the objects",
}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where nothing was built yet.

    Raises:
        FormatError: it is damaged or missing beside shards, or of an earlier version.
    """
    path = folder / "manifest.json"
    if not path.exists():
        if (folder / "config.json").exists() or any(folder.glob("triplets-*.tar")):
            raise FormatError(f"{folder}: its shards have no manifest.json: an earlier version made them; use another folder.")
        return None
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if manifest["format"] != FORMAT or not isinstance(manifest["shards"], dict):
            raise FormatError(f"{path}: is of format {manifest['format']!r}, not {FORMAT!r}; use another folder.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path}: damaged ({type(error).__name__}: {error}); remove the folder and build it again."
        ) from error
    return manifest


def check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise FormatError, naming what differs, when a folder was built from another corpus or with other settings."""
    differing = [f"{words} {found[name]} there, {wanted[name]} now" for name, words in NAMED.items()
                 if name in found and found[name] != wanted[name]]  # fmt: skip
    there, now = dict(flat(found.get("settings", {}))), dict(flat(wanted["settings"]))
    both_fitted = there.get("method") == now.get("method")
    differing += [
        f"{name} {there.get(name)} there, {now[name]} now"
        for name in now
        if there.get(name) != now[name] and (both_fitted or not name.startswith("fit."))
    ]
    if differing:
        raise FormatError(f"{folder}: was built with other settings ({'; '.join(differing)}); use another folder or remove it.")


def summary(shards: Iterable[dict[str, Any]], objects: int) -> dict[str, Any]:
    """What is said about all shards together; PSNR in dB over the samples that were fitted."""
    shards = list(shards)
    psnr = np.array([value for shard in shards for value in shard["psnr"] if value is not None])
    ssim = [value for shard in shards for value in shard["ssim"] if value is not None]
    samples, failed = sum(shard["samples"] for shard in shards), sum(len(shard["failures"]) for shard in shards)
    told: dict[str, Any] = {"complete": samples + failed == objects, "samples": samples, "failures": failed}
    told["worker_seconds"] = round(sum(shard["seconds"] for shard in shards), 1)
    if len(psnr):
        bins, counts = np.unique(np.floor(psnr).astype(int), return_counts=True)
        percentiles = {f"p{p}": round(float(np.percentile(psnr, p)), 2) for p in (5, 25, 50, 75, 95)}
        histogram = {str(low): int(count) for low, count in zip(bins, counts, strict=True)}
        told["psnr"] = {"mean": round(float(psnr.mean()), 2), **percentiles, "histogram": histogram}
        told["ssim_mean"] = round(float(np.mean(ssim)), 4)
    return told
