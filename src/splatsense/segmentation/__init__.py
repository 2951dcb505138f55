"""What a pre-trained backbone gives downstream: semantic and instance segmentation of scenes (GaussianCross, arXiv 2508.02172,
section 4), their metrics, and predictions for a user's own scans (docs/segmentation.md)."""
