import gzip
import sys

import pytest

from splatsense.io._decompression import gzip_bound, zstd_bound

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.mark.parametrize("size", [1, 1000, 10_000_000])
def test_bounds_of_expansion(size):
    """The best that the encoders themselves reach stays within what the readers take for possible."""
    assert gzip_bound(len(gzip.compress(bytes(size)))) >= size
    assert zstd_bound(len(zstd.compress(bytes(size), 19))) >= size
