# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes ploop1 images from plain numbers, right or wrong, and reads them back in the simplest way. See ploop-format(5)."""
import hashlib
import struct

SECTOR = 512
SIGNATURES = {1: b"WithoutFreeSpace", 2: b"WithouFreSpacExt"}
IN_USE, CLOSED, CLOSED_V21 = 0x746F6E59, 0, 0x312E3276
EMPTY, CONVERTING = 1, 2
NECESSARY, TRANSIT = 1, 2
EXTENSION, BITMAP = 0xAB234CEF23DCEA87, 0x20385FAE252CB34A
FILL = 256 * 1024  # bytes of a cluster that are filled at most
HEADER = struct.Struct("<16sIIIIIQIIIQ")


class Image:
    """Fields of the header by name, `map` from clusters of the disk to clusters of the file. All may be changed before write()."""

    def __init__(self, version=2, cluster=64, clusters=100, mapped=(0, 1, 2, 5, 99)):
        self.cluster = cluster  # sectors; as the file is laid out, whatever the header says
        need = -(-(64 + 4 * clusters) // (cluster * SECTOR))
        self.header = {
            "signature": SIGNATURES[version], "type": 2, "heads": 16, "cylinders": 40, "sectors": cluster,
            "entries": clusters, "size": clusters * cluster, "in_use": CLOSED, "first": need * cluster,
            "flags": 0, "extension": 0,
        }
        self.version = version
        self.base = 0  # sectors; where file cluster 0 would be
        self.map = {v: need + i for i, v in enumerate(reversed(mapped))}
        self.entries = {}  # stored as they are
        self.pokes = {}  # bytes at an offset
        self.length = None  # bytes; None: to the end of the last cluster
        self.clusters = {k: bytes([k % 255 + 1]) for k in self.map.values()}  # what fills the clusters of the file

    def after(self):
        """What is left to do when the extension is in place."""

    def offset(self, k):
        return (self.base + k * self.cluster) * SECTOR

    def unit(self, k):
        return k if self.version == 2 else self.base + k * self.cluster

    def end(self):
        return self.offset(max(self.clusters, default=self.header["first"] // self.cluster - 1) + 1)

    def write(self, path):
        h = self.header
        size = self.end() if self.length is None else self.length
        with open(path, "wb") as f:
            f.write(HEADER.pack(h["signature"], h["type"], h["heads"], h["cylinders"], h["sectors"], h["entries"], h["size"],
                                h["in_use"], h["first"], h["flags"], h["extension"]))
            for v, entry in ({v: self.unit(k) for v, k in self.map.items()} | self.entries).items():
                f.seek(64 + 4 * v)
                f.write(struct.pack("<I", entry))
            for k, fill in self.clusters.items():
                f.seek(self.offset(k))
                f.write(fill * (min(self.cluster * SECTOR, FILL) // len(fill)))
            for offset, data in self.pokes.items():
                f.seek(offset)
                f.write(data)
            f.truncate(size)

    def add_extension(self, *features, k=None, state=CLOSED_V21):
        """Puts a sealed extension into file cluster k (the next). Each feature: magic, flags, data."""
        k = max(self.clusters) + 1 if k is None else k
        body = b""
        for magic, flags, data in features:
            body += struct.pack("<QQII", magic, flags, len(data), 0) + data + bytes(-len(data) % 8)
        body += bytes(self.cluster * SECTOR - 24 - len(body))
        self.clusters[k] = struct.pack("<Q", EXTENSION) + hashlib.md5(body).digest() + body
        self.header["extension"] = self.base + k * self.cluster
        self.header["in_use"] = state
        return k

    def bitmap(self, *table, size=None, granularity=64):
        """The data of a bitmap feature."""
        size = self.header["size"] if size is None else size
        return struct.pack("<Q16sII", size, b"backup-of-monday", granularity, len(table)) + struct.pack(f"<{len(table)}Q", *table)


def view(path):
    """The first byte of each cluster of the disk, as who takes an entry that leads nowhere for a hole reads it."""
    with open(path, "rb") as f:
        data = f.read()
    signature, _, _, _, cluster, entries, size, _, first, _, _ = HEADER.unpack(data[:64])
    if signature == SIGNATURES[1]:
        size &= 0xFFFFFFFF
    unit = cluster if signature == SIGNATURES[2] else 1
    least = -(-(64 + 4 * entries) // SECTOR)
    result = []
    for v in range(min(entries, -(-size // cluster))):
        at = struct.unpack_from("<I", data, 64 + 4 * v)[0] if 68 + 4 * v <= len(data) else 0
        sector = at * unit
        aligned = signature == SIGNATURES[2] or not first or first % cluster or sector % cluster == 0
        there = sector >= least and sector * SECTOR < len(data) and aligned
        result.append(data[sector * SECTOR] if there else 0)
    return result
