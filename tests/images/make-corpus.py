#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the corpus of fuzz/fuzz-header.c from the cases of this folder: make-corpus.py FOLDER. Big clusters are left out."""
import pathlib
import struct
import sys
import tempfile

from cases import CASES
from image import SECTOR

HEAD_LIMIT = 700  # bytes; the first entries


def encode(case, folder):
    """The input that makes the image, or something like it."""
    image = case["make"]()
    if image.cluster > 64:
        return None
    path = folder / "image"
    image.write(path)
    length = path.stat().st_size
    with open(path, "rb") as f:
        head = f.read(HEAD_LIMIT)
        f.seek(min(image.header["extension"] * SECTOR, length))
        extension = f.read(image.cluster * SECTOR)[24:].rstrip(b"\0") if image.header["extension"] else b""
    if length // SECTOR >= 1 << 21:
        return None
    flags = 1 if extension and "checksum" not in case["name"] else 0
    return struct.pack("<IHBB", length // SECTOR, len(head), flags, length % SECTOR % 256) + head + extension


def main():
    target = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for case in CASES:
            data = encode(case, pathlib.Path(folder))
            if data:
                name = "".join(c if c.isalnum() else "-" for c in case["name"])
                (target / name).write_bytes(data)


if __name__ == "__main__":
    main()
