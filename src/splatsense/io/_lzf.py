"""LZF, the compression inside .pcd files (the format of Marc Lehmann's liblzf): native, with a plain reference.

A stream is a sequence of runs. A control byte below 32 is followed by that many bytes and one, taken as they are. Any other
copies what came before: its upper three bits plus 2 are the length (7 means that a byte to add follows), its lower five bits
and the next byte the distance less one. So three bytes give at most 264.
"""

import ctypes

import numpy as np

from splatsense.native import load_native, pointer

LARGEST_RATIO = 88  # 264 bytes out of 3


class LzfError(Exception):
    """The stream is damaged, or does not have the promised size; says how many bytes were decompressed before."""


def decompress(data: bytes, size: int) -> np.ndarray:
    """(size,) uint8 that `data` stands for. Raises LzfError when it is damaged or stands for more or fewer bytes."""
    native = load_native()
    if native is None:
        return decompress_reference(data, size)
    source, output = np.frombuffer(data, np.uint8), np.empty(size, np.uint8)
    function = native.ss_lzf_decompress
    function.restype = ctypes.c_int64
    written = function(pointer(source), ctypes.c_int64(len(data)), pointer(output), ctypes.c_int64(size))
    if written != size:
        raise LzfError(f"damaged after {written if written >= 0 else -1 - written} of {size} bytes")
    return output


def decompress_reference(data: bytes, size: int) -> np.ndarray:
    """`decompress` in plain Python."""
    output = bytearray()
    position = 0
    while position < len(data):
        control = data[position]
        if control < 32:
            run = data[position + 1 : position + control + 2]
            position += control + 2
            fits = len(run) == control + 1
        else:
            head = 3 if control >> 5 == 7 else 2
            tail = data[position + 1 : position + head]
            position += head
            length = (control >> 5) + 2 + (tail[0] if head == 3 and tail else 0)
            distance = ((control & 31) << 8) + tail[-1] + 1 if len(tail) == head - 1 else len(output) + 1
            fits = distance <= len(output)
            run = (output[-distance:] * (length // distance + 1))[:length] if fits else b""
        if not fits or len(output) + len(run) > size:
            raise LzfError(f"damaged after {len(output)} of {size} bytes")
        output += run
    if len(output) != size:
        raise LzfError(f"damaged after {len(output)} of {size} bytes")
    return np.frombuffer(bytes(output), np.uint8)
