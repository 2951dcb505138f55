"""The study of GaussianCross: what pre-training of scenes is worth downstream (docs/gaussian-cross.md)."""
