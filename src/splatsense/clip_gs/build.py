"""`splatsense triplets build`: a corpus to shards, with one process or many, on one machine or a cluster.

Design
- `BuildFolder` knows what is done, an engine does the rest, and each outcome is on disk before the next is asked for. Killing
  the build, or any worker, at any moment loses at most the objects under way; the same command goes on.
- The shards are the same to the last byte whichever engine makes them and with however many workers (on a CPU; on a GPU sums
  are atomic, and the last bits of a fit differ from run to run).
- Failures are counted against a budget, and listed with their reasons when the build ends.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from splatsense.clip_gs.build_folder import BuildFolder
from splatsense.clip_gs.engines import Engine, InProcess, make_outcomes, run_groups
from splatsense.clip_gs.local_engine import LocalEngine
from splatsense.clip_gs.ray_engine import RayEngine
from splatsense.clip_gs.triplets import DEFAULT, TripletConfig
from splatsense.corpora import Corpus, CorpusObject
from splatsense.corpora.sources import open_corpus
from splatsense.errors import DataError
from splatsense.files import locked
from splatsense.render import cuda
from splatsense.tables import counted, table
from splatsense.training.progress import Progress

log = logging.getLogger("splatsense")

WORKERS_PER_GPU = 4  # so that some read and draw while one fits
SHOWN = 20  # failures that the command lists; the manifest has them all


@dataclass(frozen=True)
class RunConfig:
    """Who builds. Nothing here changes what is built."""

    engine: Literal["local", "ray"] = "local"
    """processes of this machine, or a Ray cluster (extra `ray`)"""
    workers: int | None = None
    """processes; by default one for each core, or a few for each GPU. 0 works in this process, without others"""
    address: str = ""
    """of a running Ray cluster, such as "auto"; by default one is started on this machine"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where fits run; auto takes a GPU where gsplat works (extra `gpu`)"""
    fit_batch: int = 16
    """objects that are fitted together on a GPU"""
    time_limit: int = 900
    """seconds after which a worker that is still at an object is ended; 0 for no limit"""
    max_failures: int = 100
    """objects that may fail; with one more the build stops and ends with status 1"""
    retry_failures: bool = False
    """try the objects again that failed in earlier runs"""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for flag, least in (("workers", 0), ("fit_batch", 1), ("time_limit", 0), ("max_failures", 0)):
            value = getattr(self, flag)
            if value is not None and value < least:
                raise DataError(f"--{flag.replace('_', '-')}: must be at least {least}, got {value}.")
        if self.address and self.engine != "ray":
            raise DataError("--address: is of a Ray cluster; add --engine ray.")


IN_PROCESS = RunConfig(workers=0)


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        manifest: of the folder, as written.
        failures: reason by key of every object that cannot be used, of earlier runs too.
        made: objects with an outcome of this run.
        seconds: this run took.
        over_budget: it stopped because of too many failures.
    """

    manifest: dict[str, Any]
    failures: dict[str, str]
    made: int
    seconds: float
    over_budget: bool


def build_triplets(
    corpus: Sequence[CorpusObject], out: str | Path, config: TripletConfig = DEFAULT, run: RunConfig = IN_PROCESS
) -> BuildReport:
    """Write the shards of a corpus, or what is missing of them.

    Args:
        corpus: objects in a fixed order.
        out: folder of the shards, made when missing.
        config: what triplets are like; all shards of a folder share one.
        run: who makes them.

    Raises:
        FormatError: the folder was built with other settings or from another corpus, or another build is at work in it.
        DataError: two objects have one key.
        SplatSenseError: the engine cannot start.
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus("objects", tuple(corpus))
    start = time.monotonic()
    with locked(Path(out), "build"):
        folder = BuildFolder(Path(out), corpus, config)
        before = folder.done
        try:
            if run.retry_failures:
                folder.retry_failures()
                before = folder.done
            _fill(folder, corpus, config, run)
        finally:
            manifest = folder.close()
        failures = folder.failures
        made = folder.done - before
    return BuildReport(manifest, failures, made, time.monotonic() - start, len(failures) > run.max_failures)


def _fill(folder: BuildFolder, corpus: Corpus, config: TripletConfig, run: RunConfig) -> None:
    """Have an engine make what is missing, until it is done or too much has failed."""
    progress = Progress("triplets", len(corpus), folder.done)
    pending = folder.pending()
    device = _device(run)
    size = run.fit_batch if device == "cuda" else 1
    groups = [tuple(corpus[i] for i in pending[at : at + size]) for at in range(0, len(pending), size)]
    if groups and len(folder.failures) <= run.max_failures:
        with contextlib.closing(_engine(config, run, device, len(groups))) as engine:
            for outcome in run_groups(engine, groups):
                folder.add(outcome)
                failed = len(folder.failures)
                progress.advance(1, f"{failed} failed")
                if failed > run.max_failures:
                    break
    progress.close()


def _device(run: RunConfig) -> str:
    if run.device == "auto":
        if not torch.cuda.is_available():
            return "cpu"
        problem = cuda.problem()  # compiles gsplat here, not in workers that have a time limit
        if problem:
            log.warning("triplets: fits run on the CPU: %s", problem)
        return "cpu" if problem else "cuda"
    if run.device == "cuda" and not torch.cuda.is_available() and run.engine == "local":
        raise DataError("--device cuda: this machine has no CUDA device; use --device cpu.")
    return run.device


def _engine(config: TripletConfig, run: RunConfig, device: str, groups: int) -> Engine:
    work = partial(make_outcomes, config=config, device=device, time_limit=run.time_limit if run.workers != 0 else 0)
    if run.engine == "ray":
        return RayEngine(work, run.workers, run.address, gpu=device == "cuda")
    if run.workers == 0:
        return InProcess(work)
    devices = torch.cuda.device_count() if device == "cuda" else 0
    cores = len(os.sched_getaffinity(0))
    workers = run.workers or (max(devices, min(cores, WORKERS_PER_GPU * devices)) if devices else cores)
    return LocalEngine(work, min(workers, groups), devices)


def triplets_build(
    corpus: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    licence: str = "",
    config: TripletConfig = DEFAULT,
    run: RunConfig = RunConfig(),
) -> int:
    """Turn a corpus of objects into training data: Gaussians, pictures and captions in WebDataset shards.

    It may be interrupted or killed at any moment; the same command goes on from there. docs/triplets.md has the format.

    Args:
        corpus: furniture, furniture:PATH, folder:PATH, modelnet40:PATH or splats:PATH.
        out: Folder of the shards, made when missing.
        licence: Licence of everything that a folder's caption file gives none for.
        config: What triplets are like.
        run: Who makes them.
    """
    report = build_triplets(open_corpus(corpus, licence), out, config, run)
    told = report.manifest["summary"]
    samples = counted(told["samples"], "sample")
    print(f"{out}: {samples}, {len(report.failures)} failed; {counted(report.made, 'object')} in {report.seconds:,.0f} s.")
    if "psnr" in told:
        print(f"PSNR on held-out views: mean {told['psnr']['mean']} dB, median {told['psnr']['p50']} dB.")
    if report.failures:
        rows = list(report.failures.items())[: None if report.over_budget else SHOWN]
        left = len(report.failures) - len(rows)
        print(table(rows, "<<") + (f"\n... and {left} more in {out / 'manifest.json'}" if left else ""), file=sys.stderr)
    if report.over_budget:
        print(f"{len(report.failures)} objects failed, more than --max-failures {run.max_failures}.", file=sys.stderr)
    return 1 if report.over_budget or not told["samples"] else 0
