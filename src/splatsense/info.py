"""`splatsense info`: what an asset file holds, and what may be wrong with it."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splatsense.batch import BatchReport, Input, run_batch
from splatsense.gaussians import Gaussians
from splatsense.log_messages import logged
from splatsense.tables import counted, short_path, size_text, table

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
QUANTILE_NAMES = ("smallest", "1 %", "25 %", "median", "75 %", "99 %", "largest")
FLOATER_FRACTION, FLOATER_RATIO = 0.002, 2.0  # the box without these ends of each axis is smaller by this factor
NEEDLE_RATIO, NEEDLE_SHARE = 20.0, 0.02  # longest over middle axis; share of Gaussians worth a warning
INVISIBLE = 1 / 255  # opacity that no 8-bit picture shows
INVISIBLE_SHARE = 0.5
COARSE_SHARE = 0.5  # step of float32 where the Gaussians are, over their median size


@dataclass(frozen=True)
class Info:
    """What an asset file holds.

    Attributes:
        path: the file.
        bytes: its size.
        gaussians: how many, after unusable ones were left out.
        sh_degree: of the spherical harmonics.
        low: smallest coordinates of the means.
        high: largest coordinates of the means.
        opacity: quantiles by `QUANTILES`.
        scale: quantiles of each Gaussian's longest standard deviation, by `QUANTILES`.
        memory: bytes of the Gaussians in memory.
        notes: sentences of the reader that are no fault, such as that the file asks for antialiased rendering.
        warnings: sentences on what may be wrong.
    """

    path: str
    bytes: int
    gaussians: int
    sh_degree: int
    low: list[float]
    high: list[float]
    opacity: list[float]
    scale: list[float]
    memory: int
    notes: list[str]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Everything, with quantiles by name."""
        named = {key: dict(zip(QUANTILE_NAMES, getattr(self, key), strict=True)) for key in ("opacity", "scale")}
        return asdict(self) | named

    def __str__(self) -> str:
        corners = ["  ".join(f"{value:,.4g}" for value in corner) for corner in (self.low, self.high)]
        size = "  ".join(f"{b - a:,.4g}" for a, b in zip(self.low, self.high, strict=True))
        facts = [
            ("Gaussians", f"{self.gaussians:,}, SH degree {self.sh_degree}"),
            ("size", f"{size_text(self.bytes)}, {size_text(self.memory)} in memory"),
            ("bounds", f"{corners[0]}  to  {corners[1]}"),
            ("extent", size),
        ]
        quantiles = [("", *QUANTILE_NAMES)]
        quantiles += [(key, *(f"{value:.3g}" for value in getattr(self, key))) for key in ("opacity", "scale")]
        lines = [short_path(Path(self.path)), table(facts, "<<"), table(quantiles, "<" + ">" * len(QUANTILES))]
        said = [*(f"  - {note}" for note in self.notes), *(f"  ! {warning}" for warning in self.warnings)]
        return "\n".join([*lines, *said])


def file_info(path: Path) -> Info:
    """Read an asset file and say what it holds. Raises SplatSenseError when it cannot be read."""
    from splatsense.library.reading import load_asset

    with logged() as said:
        gaussians = load_asset(path)
    return info_of(path, gaussians, said)


def info_of(path: Path, gaussians: Gaussians, said: Sequence[tuple[int, str]]) -> Info:
    """What an asset file that has been read holds.

    Args:
        path: the file.
        gaussians: that it holds.
        said: (level, message) of what its reader logged.
    """
    low, high = gaussians.bounds.tolist()
    return Info(
        path=str(path),
        bytes=path.stat().st_size,
        gaussians=len(gaussians),
        sh_degree=gaussians.sh_degree,
        low=low,
        high=high,
        opacity=_quantiles(gaussians.opacities.numpy()),
        scale=_quantiles(gaussians.scales.amax(1).numpy()),
        memory=sum(tensor.nbytes for tensor in vars(gaussians).values()),
        notes=[message.removeprefix(f"{path}: ") for level, message in said if level < logging.WARNING],
        warnings=[message.removeprefix(f"{path}: ") for level, message in said if level >= logging.WARNING]
        + find_faults(gaussians),
    )


def find_faults(gaussians: Gaussians) -> list[str]:
    """Sentences on what may be wrong with Gaussians: transparency, floaters, needles, coordinates too large for float32."""
    found = (
        _transparency(gaussians.opacities.numpy()),
        _floaters(gaussians.means.numpy()),
        _needles(gaussians.scales.numpy()),
        _coarse(gaussians.means.numpy(), gaussians.scales.numpy()),
    )
    return [fault for fault in found if fault]


def _transparency(opacities: np.ndarray) -> str:
    invisible = opacities < INVISIBLE
    if invisible.all():
        return f"Everything is transparent: no opacity reaches {INVISIBLE:.3f}."
    if invisible.mean() > INVISIBLE_SHARE:
        return f"{invisible.mean():.0%} of the Gaussians are too transparent to be seen; they can be removed."
    return ""


def _floaters(means: np.ndarray) -> str:
    ends = np.quantile(means, [FLOATER_FRACTION, 1 - FLOATER_FRACTION], axis=0)
    inner, whole = (ends[1] - ends[0]).max(), np.ptp(means, axis=0).max()
    if not inner > 0 or whole < FLOATER_RATIO * inner:
        return ""
    margin = (ends[1] - ends[0]) / 2
    outside = ((means < ends[0] - margin) | (means > ends[1] + margin)).any(1).sum()
    return (
        f"Floaters: {counted(int(outside), 'Gaussian')} far outside the rest, which takes {inner / whole:.0%} of the extent; "
        "crop them."
    )


def _needles(scales: np.ndarray) -> str:
    ordered = np.sort(scales, axis=1)
    share = (ordered[:, 2] > NEEDLE_RATIO * ordered[:, 1]).mean()
    if share <= NEEDLE_SHARE:
        return ""
    return f"{share:.0%} of the Gaussians are needles, over {NEEDLE_RATIO:.0f} times as long as wide."


def _coarse(means: np.ndarray, scales: np.ndarray) -> str:
    farthest, size = np.abs(means).max(), np.median(scales.max(1))
    step = float(np.spacing(farthest))
    if step <= COARSE_SHARE * size or size == 0:
        return ""
    return (
        f"Coordinates reach {farthest:,.0f}, where float32 has steps of {step:.2g}, and half of the Gaussians are smaller than "
        f"{size:.2g}; move them to the origin before they are exported."
    )


def _quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, QUANTILES).tolist()


def info_of_files(paths: Sequence[Path], as_json: bool = False) -> BatchReport:
    """Print what every asset among `paths` and in the folders among them holds, as text or as a JSON list."""
    infos: list[Info] = []

    def work(item: Input) -> bool:
        infos.append(file_info(item.path))
        if not as_json:
            print("\n" * (len(infos) > 1) + str(infos[-1]))
        return True

    report = run_batch("reading", paths, None, work, progress=as_json)
    if as_json:
        print(json.dumps([info.to_json() for info in infos], indent=1))
    return report
