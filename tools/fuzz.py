"""Damages files of every supported format and sees that `splatsense.io.load` holds.

    python tools/fuzz.py --minutes 10 [--seed 1] [--kinds ply,splat] [--corpus DIR] [--out build/fuzz]

Each case is loaded in a worker process under a limit on its address space. It may load, or be refused with one of the
package's own errors that names the file. Anything else is a finding: a foreign exception, a warning from our own code,
a crash, a hang, much processor time or memory for the size of the files (the limits are in `fuzzing/worker.py`), or
Gaussians that are not valid. Each distinct finding is made smaller and saved in the output folder; then the exit status is 1.
"""

import argparse
import collections
import hashlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts: a fork must find no other thread

import logging
import warnings

import torch

from fuzzing.case import Case
from fuzzing.minimise import minimise
from fuzzing.mutations import mutate
from fuzzing.seeds import make_seeds
from fuzzing.worker import WALL_SECONDS, Load, Outcome, Worker
from splatsense import io

EVERY = 20.0
"""Seconds between lines of progress."""


def main() -> int:
    """Run as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; the same seed gives the same cases")
    parser.add_argument("--kinds", default="", help="comma-separated formats; all by default")
    parser.add_argument("--corpus", type=Path, help="a folder of further seeds")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where findings are saved")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("splatsense", "trimesh"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    seeds = [seed for seed in make_seeds(arguments.corpus) if not arguments.kinds or seed.kind in arguments.kinds.split(",")]
    missing = sorted((io.READERS.keys() | io.POINT_CLOUD_READERS.keys()) - {seed.kind for seed in seeds})
    if missing and not arguments.kinds:
        print(f"no seeds for {', '.join(missing)}: write a maker in tools/fuzzing or give --corpus")
    findings = fuzz(seeds, io.load, arguments.minutes * 60, arguments.seed, arguments.out)
    print(f"{len(findings)} distinct findings{f', saved in {arguments.out}' if findings else ''}")
    return 1 if findings else 0


def fuzz(
    seeds: list[Case], load: Load, seconds: float, seed: int, out: Path, wall_seconds: float = WALL_SECONDS
) -> dict[str, Outcome]:
    """Run mutated `seeds` through `load` for `seconds`; returns the findings by signature and saves each in `out`."""
    rng = random.Random(seed)
    by_kind = collections.defaultdict(list)
    for each in seeds:
        by_kind[each.kind].append(each)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        _import_all(seeds, load, Path(temporary))
        worker = Worker(Path(temporary) / "case", load, wall_seconds)
        try:
            findings = _check_seeds(seeds, worker, out)
            _loop(by_kind, worker, rng, seconds, out, findings)
        finally:
            worker.close()
    return findings


def _import_all(seeds: list[Case], load: Load, folder: Path) -> None:
    """Load every seed in this process, so that workers start with all modules imported. Its errors show in the worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, case in enumerate(seeds if load is io.load else ()):
            (folder / str(number)).mkdir()
            load(case.write(folder / str(number)))


def _check_seeds(seeds: list[Case], worker: Worker, out: Path) -> dict[str, Outcome]:
    findings: dict[str, Outcome] = {}
    for case in seeds:
        outcome = worker.run(case)
        if outcome.status != "loaded":
            outcome = Outcome("seed", f"{case.kind} {case.main} {outcome.place}", f"{outcome.status}: {outcome.detail}")
            _save(case, outcome, out, findings)
    return findings


def _loop(
    by_kind: dict[str, list[Case]], worker: Worker, rng: random.Random, seconds: float, out: Path, findings: dict[str, Outcome]
) -> None:
    start = report = time.monotonic()
    statuses: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in by_kind}
    kinds = sorted(by_kind)
    while (now := time.monotonic()) < start + seconds:
        kind = rng.choice(kinds)
        case = mutate(rng.choice(by_kind[kind]), rng, by_kind[rng.choice((kind, kind, kind, rng.choice(kinds)))])
        outcome = worker.run(case)
        statuses[kind][outcome.status] += 1
        if outcome.is_finding and outcome.signature not in findings:
            _save(_smaller(case, outcome, worker), outcome, out, findings)
        if now > report + EVERY:
            report = now
            _print_progress(statuses, now - start)
    _print_progress(statuses, time.monotonic() - start)


def _smaller(case: Case, outcome: Outcome, worker: Worker) -> Case:
    if outcome.status in ("hang", "slow"):  # each attempt takes as long again
        return case
    return minimise(case, lambda smaller: worker.run(smaller).signature == outcome.signature)


def _save(case: Case, outcome: Outcome, out: Path, findings: dict[str, Outcome]) -> None:
    findings[outcome.signature] = outcome
    folder = out / f"{case.kind}-{outcome.signature}-{hashlib.sha256(case.files[case.main]).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    case.write(folder)
    (folder / "report.txt").write_text(f"{outcome.status} {case.main}\n{outcome.place}\n\n{outcome.detail}\n")
    last_line = outcome.detail.strip().splitlines()[-1][:200] if outcome.detail.strip() else ""
    print(
        f"FOUND {outcome.status} in {case.kind}, {case.size} bytes: {outcome.place}\n      {last_line}\n      {folder}",
        flush=True,
    )


def _print_progress(statuses: dict[str, collections.Counter[str]], seconds: float) -> None:
    total = sum(counts.total() for counts in statuses.values())
    print(f"{seconds:6.0f} s, {total} cases, {total / max(seconds, 1e-9):.0f}/s", flush=True)
    for kind, counts in sorted(statuses.items()):
        print(f"         {kind:12} " + ", ".join(f"{count} {status}" for status, count in counts.most_common()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
