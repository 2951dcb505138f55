"""GaussianCross: a sparse 3D backbone that teaches itself by rendering its own Gaussians (arXiv 2508.02172)."""
