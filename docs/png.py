"""Smaller pictures: PNGs of Chromium, 8 bits a channel, with a palette of at most 256 colours. Screens of text have few."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB = (8, 2, 0, 0, 0)
"""Bit depth, colour type, compression, filter and interlace of IHDR (PNG, third edition, 11.2.1)."""
MOST = 256


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _rows(raw: bytes, width: int) -> Iterator[bytearray]:
    """Each line's pixels: the filters of PNG undone."""
    stride, before = 3 * width, bytearray(3 * width)
    for start in range(0, len(raw), stride + 1):
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for at in range(stride) if kind else ():
            left = row[at - 3] if at > 2 else 0
            up, corner = before[at], before[at - 3] if at > 2 else 0
            row[at] = (row[at] + (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]) & 255
        yield row
        before = row


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))


def _coarse(pixel: bytes, bits: int) -> bytes:
    """The pixel's colour with fewer bits a channel; black stays black and white white."""
    top = (1 << bits) - 1
    return bytes(round(round(value * top / 255) * 255 / top) for value in pixel)


def shrink(path: Path) -> None:
    """Write the picture again with a palette. Raises ValueError for what is no RGB picture."""
    chunks = list(_chunks(path.read_bytes()))
    width, height, *form = struct.unpack(">IIBBBBB", chunks[0][1])
    if tuple(form) != RGB:
        raise ValueError(f"{path.name}: not a PNG with 8 bits for each of red, green and blue")
    rows = list(_rows(zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT")), width))
    pixels = [[bytes(row[at : at + 3]) for at in range(0, 3 * width, 3)] for row in rows]
    there = sorted({pixel for row in pixels for pixel in row})
    for bits in range(8, 0, -1):
        mapped = {pixel: _coarse(pixel, bits) for pixel in there}
        colours = sorted(set(mapped.values()))
        if len(colours) <= MOST:
            break
    numbers = {colour: number for number, colour in enumerate(colours)}
    lines = b"".join(b"\0" + bytes(numbers[mapped[pixel]] for pixel in row) for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", b"".join(colours)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    path.write_bytes(SIGNATURE + b"".join(_chunk(kind, content) for kind, content in parts))
