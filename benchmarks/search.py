"""How fast a library answers, and how fast and how leanly it indexes.

    python benchmarks/search.py [--model clip-gs-tiny] [--folder DIR]

Prints, for this machine: the time of `splatsense search` in a new process; the time of a search apart from encoding
its text, for 10,000 and 100,000 assets; and the rate and the largest resident memory of indexing a folder.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from shared.targets import judged

from splatsense.library.index import read_index, write_index
from splatsense.library.records import Embeddings, Revision

REVISION = Revision(bytes(16), 0)
COLD_START, QUERY, MEMORY = 4.0, 20, 1500  # wanted on 2 cores: s, ms, MB
INDEX_CODE = """
import resource, sys, time
from splatsense import Library
with Library(sys.argv[1], sys.argv[2]) as library:
    start = time.monotonic()
    report = library.add(sys.argv[3], progress=False)
    seconds = time.monotonic() - start
print(report.indexed, len(report.failed), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="clip-gs-tiny")
    parser.add_argument("--folder", type=Path, help="what to index; by default the bundled objects")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}\n{' '.join(['python', *sys.argv])}\n")
    with tempfile.TemporaryDirectory() as temporary:
        library = Path(temporary) / "library"
        indexing(library, arguments.model, arguments.folder or bundled())
        cold_start(library, arguments.model)
        for rows in (10_000, 100_000):
            nearest(Path(temporary) / "vectors.f32", rows)


def bundled() -> Path:
    import splatsense

    return Path(splatsense.__file__).parent / "assets" / "objects"


def indexing(library: Path, model: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INDEX_CODE, str(library), model, str(folder)], capture_output=True, text=True, check=True
    )
    indexed, failed, seconds, kilobytes = done.stdout.split()
    print(f"index {indexed} assets ({failed} failed): {float(seconds):.1f} s, {int(indexed) / float(seconds):.1f} assets/s")
    print(judged("largest resident memory of indexing", int(kilobytes) / 1e3, "MB", MEMORY))


def cold_start(library: Path, model: str, repeats: int = 5) -> None:
    command = [sys.executable, "-m", "splatsense", "search", str(library), "a wooden chair", "--model", model]
    seconds = median_seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), repeats)
    print(judged("`splatsense search` in a new process, median", seconds, "s", COLD_START))


def nearest(path: Path, rows: int, dim: int = 384, k: int = 10) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_index(path, [Embeddings(np.arange(rows), vectors)], rows, dim, REVISION)
    index = read_index(path, REVISION.epoch)
    if index is None:
        raise SystemExit(f"{path}: what was just written cannot be read")
    seconds = median_seconds(lambda: index.top_k(vectors[0], k), 20)
    print(judged(f"best {k} of {rows:,} assets, {dim} dimensions, median", seconds * 1e3, "ms", QUERY))


def median_seconds(job, repeats: int) -> float:
    """Median over repeats, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
