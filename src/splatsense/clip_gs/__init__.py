"""CLIP-GS (arXiv 2412.19142): one embedding space for splats, images and text. One file per section of the paper."""
