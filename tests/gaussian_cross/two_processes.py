"""What `test_pretrain` starts in two processes: `two_processes.py SCENE OUT` trains four steps as the fixture `config` says."""

import sys

import pytest

from gaussian_cross.conftest import make_small
from splatsense.gaussian_cross.pretrain import pretrain
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from training_runs import end_with_the_group

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        pretrain(
            PretrainConfig(
                scenes=(sys.argv[1],),
                out=sys.argv[2],
                steps=4,
                batch_size=2,
                checkpoint_every=3,
                log_every=1,
                teacher="none",
                learning_rate=1e-4,
            )
        )
    end_with_the_group()
