"""The folder that a build writes: shards, `manifest.json`, and in `unfinished/` the outcomes of shards not complete yet.

Design: one process writes, and may be killed at any moment.
- An outcome is kept as `unfinished/<key>.tar` (the encoded sample), then `unfinished/<key>.json` (seconds, reason of failure),
  each under a temporary name first. The .json says that the object is done.
- When all objects of a shard are done, the shard is written, then entered in the manifest, then their files are removed. A
  start after a crash does whatever of this is missing; no object is made twice, none is lost.
- A shard counts as done when the manifest has it and its file has the size entered there. One that was cut short or removed
  is built again. Embeddings beside a shard are removed when it is written.
- A lock, which the system lifts when its holder dies, keeps two builds out of one folder.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splatsense.clip_gs.engines import Outcome
from splatsense.clip_gs.manifest import FORMAT, check_same, read_manifest, summary
from splatsense.clip_gs.shards import shard_name, split_shard, write_shard
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.corpora import Corpus
from splatsense.files import atomic_write

Record = dict[str, Any]
"""What is kept of an outcome besides its sample: reason, seconds, psnr, ssim."""

WORDS = ("name", "tags", "captions", "category", "label", "split", "licence", "creator", "size_cm")
"""What a corpus or a caption file says about an object that enters its sample."""


def _settings(config: TripletConfig) -> Record:
    """All that decides what a sample is: those of the fit, which the code sets, too where there is one."""
    return asdict(config) | ({"fit": asdict(config.fit)} if config.method == "fitted" else {})


class BuildFolder:
    """What of a corpus is built in a folder. Hold its lock meanwhile.

    Args:
        out: the folder.
        corpus: shard i holds its objects i * shard_size and on.
        config: how samples are made.

    Raises:
        FormatError: the folder was built with other settings or from another corpus.
    """

    def __init__(self, out: Path, corpus: Corpus, config: TripletConfig) -> None:
        self.out, self._corpus, self._size = out, corpus, config.shard_size
        self._work = out / "unfinished"
        self._work.mkdir(parents=True, exist_ok=True)
        keys = "\n".join(item.key for item in corpus)
        words = json.dumps([[getattr(item, field) for field in WORDS] for item in corpus])
        wanted = {
            "format": FORMAT,
            "corpus": corpus.name,
            "objects": len(corpus),
            "keys_sha256": hashlib.sha256(keys.encode()).hexdigest(),
            "words_sha256": hashlib.sha256(words.encode()).hexdigest(),
            "settings": json.loads(json.dumps(_settings(config))),
        }
        self._manifest = read_manifest(out) or wanted | {"unknown_captions": list(corpus.unknown), "shards": {}}
        check_same(out, self._manifest, wanted)
        self._shards: dict[str, Any] = self._manifest["shards"]
        self._records: dict[str, Record] = {}
        self._left: Counter[int] = Counter()
        self._numbers = {item.key: index // self._size for index, item in enumerate(corpus)}
        self._take_up()

    @property
    def done(self) -> int:
        """Objects with an outcome."""
        return len(self._corpus) - self._left.total()

    @property
    def failures(self) -> dict[str, str]:
        """The reason by key of every object that cannot be used."""
        finished = {key: why for shard in self._shards.values() for key, why in shard["failures"].items()}
        return finished | {key: record["reason"] for key, record in self._records.items() if record["reason"]}

    def pending(self) -> list[int]:
        """Indices of the objects without an outcome, in order."""
        return [i for i, item in enumerate(self._corpus) if self._left[i // self._size] and item.key not in self._records]

    def add(self, outcome: Outcome) -> None:
        """Keep the outcome of an object that was pending, and finish its shard if it was the last."""
        record = {"reason": outcome.reason, "seconds": outcome.seconds, "psnr": outcome.psnr, "ssim": outcome.ssim}
        self._keep(outcome.key, outcome.sample, record)
        number = self._numbers[outcome.key]
        self._left[number] -= 1
        if not self._left[number]:
            self._finish(number)

    def retry_failures(self) -> None:
        """Make the objects that failed pending again; finished shards that lack some are taken apart for it."""
        for name in [name for name, shard in self._shards.items() if shard["failures"]]:
            shard = self._shards.pop(name)
            seconds = shard["seconds"] / (shard["samples"] + len(shard["failures"]))
            parts = split_shard(self.out / name) if shard["samples"] else ()
            for index, (key, sample) in enumerate(parts):
                quality = {measure: shard[measure][index] if shard[measure] else None for measure in ("psnr", "ssim")}
                self._keep(key, sample, {"reason": "", "seconds": seconds, **quality})
            self._save()
        self._forget([key for key, record in self._records.items() if record["reason"]])
        self._take_up()

    def close(self) -> Record:
        """Clean up; returns the manifest."""
        with contextlib.suppress(OSError):  # it is not empty
            self._work.rmdir()
        self._save()
        return self._manifest

    def _take_up(self) -> None:
        """Find what is done, and do what a build that was killed left undone."""
        for name in list(self._shards):
            path = self.out / name
            if self._shards[name]["samples"] and not (path.exists() and path.stat().st_size == self._shards[name]["bytes"]):
                del self._shards[name]
        self._left = Counter(number for number in self._numbers.values() if shard_name(number) not in self._shards)
        self._records = self._read_unfinished()
        for key in self._records:
            self._left[self._numbers[key]] -= 1
        for number in [number for number, left in self._left.items() if not left]:
            self._finish(number)
        self._save()

    def _read_unfinished(self) -> dict[str, Record]:
        records: dict[str, Record] = {}
        for path in self._work.glob("*.json"):
            if self._left[self._numbers.get(path.stem, -1)] > 0:
                records[path.stem] = json.loads(path.read_text())
        for path in self._work.iterdir():  # of finished shards, of outcomes not complete, and temporary files
            if path.name.startswith(".") or path.stem not in records:
                path.unlink()
        return records

    def _keep(self, key: str, sample: bytes | None, record: Record) -> None:
        if sample is not None:
            with atomic_write(self._work / f"{key}.tar") as temporary:
                temporary.write_bytes(sample)
        with atomic_write(self._work / f"{key}.json") as temporary:
            temporary.write_text(json.dumps(record))
        self._records[key] = record

    def _forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            for suffix in ("json", "tar"):
                (self._work / f"{key}.{suffix}").unlink(missing_ok=True)
            self._records.pop(key, None)

    def _finish(self, number: int) -> None:
        name = shard_name(number)
        keys = [item.key for item in self._corpus[number * self._size : (number + 1) * self._size]]
        usable = [key for key in keys if not self._records[key]["reason"]]
        for stale in self.out.glob(f"{Path(name).stem}.*"):
            stale.unlink()
        psnr, ssim = ([self._records[key][measure] for key in usable] for measure in ("psnr", "ssim"))
        size, digest = write_shard(self.out / name, self._samples(usable)) if usable else (0, "")
        self._shards[name] = {
            "samples": len(usable),
            "bytes": size,
            "sha256": digest,
            "seconds": round(sum(self._records[key]["seconds"] for key in keys), 3),
            "psnr": [] if any(value is None for value in psnr) else psnr,
            "ssim": [] if any(value is None for value in ssim) else ssim,
            "failures": {key: self._records[key]["reason"] for key in keys if self._records[key]["reason"]},
        }
        self._save()
        self._forget(keys)

    def _samples(self, keys: Iterable[str]) -> Iterable[bytes]:
        return ((self._work / f"{key}.tar").read_bytes() for key in keys)

    def _save(self) -> None:
        self._manifest["shards"] = self._shards = dict(sorted(self._shards.items()))
        self._manifest["summary"] = summary(self._shards.values(), len(self._corpus))
        with atomic_write(self.out / "manifest.json", fsync=True) as temporary:
            temporary.write_text(json.dumps(self._manifest, indent=1))
