"""Decompression that a small file cannot use to fill the memory.

Design
- A reader learns from the header of its format how many bytes must come out. `check_expansion` refuses that number, before
  anything is allocated, if the compressed bytes cannot expand so far or if the caller's cap is passed.
- `Decompressed` then hands out exactly the bytes asked for: fewer in the file is an error, and so is one more. Input goes
  in a piece at a time and output grows as it comes, so a header that lies costs no more memory than the file really holds.
"""

import sys
import zlib
from io import BufferedIOBase

from splatsense.errors import FormatError, LimitError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FREE_BYTES, MOST_INFLATED = 64 << 20, 64

MOST_PADDING = 3
"""Zeros that may follow a stream: glTF aligns what it holds to four bytes."""
PIECE_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20
DEFLATE_LARGEST_RATIO = 1032  # 258 bytes from two bits
ZSTD_LARGEST_BLOCK, ZSTD_SMALLEST_BLOCK = 1 << 17, 4  # RFC 8878, 3.1.1.2: a header of three bytes and one to repeat
ZSTD_SMALLEST_WINDOW_LOG, ZSTD_LARGEST_WINDOW_LOG = 23, 31


def inflation_limit(file_size: int) -> int:
    """Bytes that all streams or members of a file of `file_size` bytes may decompress to together."""
    return FREE_BYTES + MOST_INFLATED * file_size


def gzip_bound(compressed: int) -> int:
    """The most bytes that `compressed` bytes of gzip can hold."""
    return compressed * DEFLATE_LARGEST_RATIO


def zstd_bound(compressed: int) -> int:
    """The most bytes that `compressed` bytes of zstd can hold."""
    return (compressed // ZSTD_SMALLEST_BLOCK + 1) * ZSTD_LARGEST_BLOCK


def check_expansion(where: str, what: str, size: int, bound: int, max_bytes: int) -> None:
    """Check that `what`, of `size` bytes when decompressed, can be in the file and may be decompressed.

    Raises:
        FormatError: more than `bound`, what the compressed bytes can hold at most.
        LimitError: more than `max_bytes`.
    """
    if size > bound:
        raise FormatError(
            f"{where}: the header promises {what} of {size} bytes, but the compressed data can hold {bound} at most; "
            "the file is cut off or damaged. Copy or export it again."
        )
    if size > max_bytes:
        raise LimitError(
            f"{where}: {what} would decompress to {size} bytes, more than {max_bytes}; it is damaged or hostile. "
            "If you trust it, read it with read_spz and a larger max_bytes."
        )


class _GzipDecompressor:
    """zlib's decompressor behind the interface that those of zstd, bz2 and lzma share. Checks the sum at the end."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


class Decompressed:
    """Reads one compressed stream that ends where `handle` ends.

    Args:
        where: the file, named in errors.
        what: the stream, named in errors.
        handle: the compressed bytes, from its position to its end.
        decompressor: `Decompressed.gzip` and `Decompressed.zstd` bring one.
    """

    def __init__(
        self, where: str, what: str, handle: BufferedIOBase, decompressor: _GzipDecompressor | zstd.ZstdDecompressor
    ) -> None:
        self._where, self._what, self._handle, self._decompressor = where, what, handle, decompressor
        self._given = 0

    @classmethod
    def gzip(cls, where: str, what: str, handle: BufferedIOBase) -> "Decompressed":
        """A gzip stream of a single member."""
        return cls(where, what, handle, _GzipDecompressor())

    @classmethod
    def zstd(cls, where: str, what: str, handle: BufferedIOBase, size: int) -> "Decompressed":
        """A zstd stream of a single frame of `size` bytes. The window it may ask for is bounded by that size too."""
        window = min(max(size.bit_length(), ZSTD_SMALLEST_WINDOW_LOG), ZSTD_LARGEST_WINDOW_LOG)
        options = {int(zstd.DecompressionParameter.window_log_max): window}
        return cls(where, what, handle, zstd.ZstdDecompressor(options=options))

    def read(self, size: int) -> bytearray:
        """The next `size` bytes.

        Raises:
            FormatError: the data is damaged or ends before.
        """
        result = bytearray()
        while len(result) < size:
            block = self._next(min(size - len(result), BLOCK_BYTES))
            if not block:
                raise FormatError(
                    f"{self._where}: cut off: {self._what} ends after {self._given} bytes, {size - len(result)} short. "
                    "Copy or export it again."
                )
            result += block
        return result

    def read_rest(self, limit: int) -> bytearray:
        """Whatever is left, which must not be more than `limit` bytes."""
        result = bytearray()
        while block := self._next(limit + 1 - len(result)):
            result += block
            if len(result) > limit:
                raise FormatError(f"{self._where}: {self._what} goes on for more than {limit} bytes after its last Gaussian.")
        return result

    def finish(self) -> None:
        """Check that all has been read, that the stream is complete, and that nothing but padding follows it."""
        if self._next(1):
            raise FormatError(
                f"{self._where}: {self._what} goes on after the {self._given - 1} bytes that the header promises; "
                "the file is damaged. Export it again."
            )
        if not self._decompressor.eof:
            raise FormatError(f"{self._where}: cut off: {self._what} has no end. Copy or export it again.")
        rest = self._decompressor.unused_data + self._handle.read(MOST_PADDING + 1)
        if len(rest) > MOST_PADDING or any(rest):
            raise FormatError(f"{self._where}: other data follows {self._what}; the file is damaged. Export it again.")

    def _next(self, limit: int) -> bytes:
        """One to `limit` more bytes; none at the end, complete or not."""
        piece = b""
        try:
            while not self._decompressor.eof:
                block = self._decompressor.decompress(piece, limit)
                self._given += len(block)
                if block:
                    return block
                if not self._decompressor.eof and not (piece := self._handle.read(PIECE_BYTES)):
                    break
        except (zlib.error, zstd.ZstdError) as error:
            raise FormatError(
                f"{self._where}: {self._what} is damaged after {self._given} decompressed bytes ({error}). "
                "Copy or export it again."
            ) from error
        return b""
