"""`FitConfig`: how Gaussians are fitted."""

from dataclasses import dataclass

from splatsense.errors import DataError


@dataclass(frozen=True)
class FitConfig:
    """How Gaussians are fitted. Learning rates are those of the first step."""

    gaussians: int = 4096
    """Budget of Gaussians. A longer start is thinned out, a shorter one filled up by copies."""
    steps: tuple[int, int] = (150, 150)
    """Steps with pictures of half and of the full size."""
    views_per_step: int = 1
    """Views compared in each step."""
    lr_means: float = 2e-3
    """Learning rate of the centres, world units."""
    lr_scales: float = 2e-1
    """Learning rate of the logarithms of the scales."""
    lr_quats: float = 1e-2
    """Learning rate of the quaternions."""
    lr_opacities: float = 5e-2
    """Learning rate of the logits of the opacities."""
    lr_sh: float = 2e-2
    """Learning rate of the colour coefficients."""
    lr_end: float = 0.1
    """Learning rates of the last step relative to the first; exponential in between."""
    ssim_weight: float = 0.2
    """Share of 1 - SSIM in the loss, 0 to 1; the rest is l1."""
    relocate_every: int = 50
    """Steps between two relocations; there is always one before the first step."""
    relocate_until: float = 0.7
    """Share of all steps after which nothing is relocated any more."""
    min_opacity: float = 0.005
    """Gaussians less opaque are dead."""
    min_pixels: float = 0.06
    """Gaussians that make up fewer pixels of a half-size view than this, on average over views, are dead."""
    curve_every: int = 0
    """Steps between two entries of `Fit.curve`; 0 leaves it empty."""
    seed: int = 0
    """Of the order of views, backgrounds and relocation."""

    def __post_init__(self) -> None:
        for name in ("gaussians", "views_per_step", "relocate_every"):
            if getattr(self, name) < 1:
                raise DataError(f"FitConfig.{name} must be at least 1, got {getattr(self, name)}.")
        if min(self.steps) < 0 or self.curve_every < 0:
            raise DataError(f"FitConfig: steps and curve_every must not be negative, got {self.steps} and {self.curve_every}.")
        for name in ("lr_means", "lr_scales", "lr_quats", "lr_opacities", "lr_sh", "min_pixels"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise DataError(f"FitConfig.{name} must be finite and at least 0, got {getattr(self, name)}.")
        for name in ("ssim_weight", "relocate_until", "lr_end", "min_opacity"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"FitConfig.{name} must lie in [0, 1], got {getattr(self, name)}.")
