#!/usr/bin/env python3
"""Makes a model that embeds out of a bundle that classifies, for tests: its scores become the values of a vector.

    tools/embedder.py MODEL.kinglet OUT.kinglet

Written after the description of the format in runtime/src/bundle/mod.rs, without the code there: labels, calibration and thresholds go, the mark
of a model that embeds comes, and positions and checksums are computed anew.
"""
import pathlib
import struct
import sys

HEADER, ENTRY, ALIGN = 64, 32, 64
MUST_UNDERSTAND = 1


def crc32c(data):
    """CRC-32C (Castagnoli), by table."""
    if not crc32c.table:
        for byte in range(256):
            for _ in range(8):
                byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
            crc32c.table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ crc32c.table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


crc32c.table = []


def sections(bundle):
    """Returns kind, flags and content of each section."""
    (count,) = struct.unpack_from("<I", bundle, 12)
    out = []
    for i in range(count):
        kind, flags, offset, length, _, _ = struct.unpack_from("<4sIQQII", bundle, HEADER + i * ENTRY)
        out.append((kind, flags, bundle[offset : offset + length]))
    return out


def assembled(parts):
    """Returns the file of sections."""
    table, body, end = b"", b"", HEADER + len(parts) * ENTRY
    for kind, flags, content in parts:
        offset = -(-end // ALIGN) * ALIGN
        body += bytes(offset - end) + content
        end = offset + len(content)
        table += struct.pack("<4sIQQII", kind, flags, offset, len(content), crc32c(content), 0)
    header = b"\x89KINGL\r\n" + struct.pack("<IIQ", 1, len(parts), end) + bytes(36)
    return header + struct.pack("<I", crc32c(header + table)) + table + body


def embedder(bundle):
    """Returns a bundle with the same weights that embeds."""
    kept = [section for section in sections(bundle) if section[0] not in (b"LABL", b"CALI", b"MULT")]
    return assembled([*kept, (b"EMBD", MUST_UNDERSTAND, b"")])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} MODEL.kinglet OUT.kinglet")
    pathlib.Path(sys.argv[2]).write_bytes(embedder(pathlib.Path(sys.argv[1]).read_bytes()))
