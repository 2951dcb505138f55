"""Contrastive pre-training of scenes, the baseline of the study: two crops of a scene, InfoNCE over their points."""
