"""What `test_contrast` starts in two processes: `two_processes.py SCENE OUT` trains three steps of two scenes."""

import sys

import pytest

from scene_contrast.conftest import make_small
from splatsense.scene_contrast.config import ContrastConfig
from splatsense.scene_contrast.pretrain import pretrain_contrast

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        config = ContrastConfig(
            (sys.argv[1],), sys.argv[2], steps=3, batch_size=2, pairs=200, dim=16, checkpoint_every=3, log_every=1
        )
        pretrain_contrast(config)
