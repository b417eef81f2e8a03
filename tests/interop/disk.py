# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk with snapshots, read by who knows only the two formats: ploop-format(5). Shares no code with ploop, and calls none of it."""
import collections
import pathlib
import struct
import xml.etree.ElementTree as xml

SECTOR = 512
NONE = "{00000000-0000-0000-0000-000000000000}"
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
HEADER = struct.Struct("<16sIIIIIQIIIQ")
UNITS = {b"WithoutFreeSpace": 1, b"WithouFreSpacExt": 0}  # of an entry of the index, sectors; 0: a cluster

Shot = collections.namedtuple("Shot", "guid parent file kind temporary")


class Broken(Exception):
    pass


def need(good, what):
    if not good:
        raise Broken(what)


def number(node, path):
    text = node.findtext(path)
    need(text is not None and text.strip().isdigit(), f"{path} is {text!r}")
    return int(text)


class Disk:
    """A DiskDescriptor.xml: size in bytes, top, shots in the order of the file."""

    def __init__(self, path):
        self.folder = pathlib.Path(path).parent
        root = xml.parse(path).getroot()
        need(root.tag in ("Parallels_disk_image", "Virtuozzo_disk_image"), f"root element {root.tag}")
        storage = root.findall("StorageData/Storage")
        need(len(storage) == 1, f"{len(storage)} storages")
        sectors = number(root, "Disk_Parameters/Disk_size")
        need(number(root, "Disk_Parameters/Padding") == 0, "padding")
        need((number(storage[0], "Start"), number(storage[0], "End")) == (0, sectors), "Start and End are not those of the disk")
        self.size = sectors * SECTOR
        self.cluster = number(storage[0], "Blocksize") * SECTOR
        images = [(i.findtext("GUID").lower(), i.findtext("Type"), i.findtext("File")) for i in storage[0].findall("Image")]
        self.top = root.findtext("Snapshots/TopGUID").lower()
        by_guid = {guid: (kind, file) for guid, kind, file in images}
        self.shots = []
        for shot in root.findall("Snapshots/Shot"):
            guid = shot.findtext("GUID").lower()
            need(guid in by_guid, f"shot {guid} has no image")
            kind, file = by_guid[guid]
            need(kind in ("Compressed", "Plain"), f"type {kind}")
            self.shots.append(Shot(guid, shot.findtext("ParentGUID").lower(), file, kind, shot.find("Temporary") is not None))
        guids = [s.guid for s in self.shots]
        need(len(set(guids)) == len(guids) == len(images), "images and shots are not one to one")
        need([i[0] for i in images] == guids, "images and shots are not in the same order")
        need(self.top in guids, f"the top {self.top} is missing")
        need(sum(s.parent == NONE for s in self.shots) == 1, "not exactly one base")
        need(all(s.parent in guids or s.parent == NONE for s in self.shots), "a parent is missing")
        need(not any(s.temporary for s in self.shots if s.guid == self.top), "the top is temporary")
        self.levels = {}

    def chain(self, guid):
        """From this one down to the base."""
        by_guid = {s.guid: s for s in self.shots}
        chain = []
        while guid != NONE:
            chain.append(by_guid[guid])
            need(len(chain) <= len(by_guid), "a loop of parents")
            guid = by_guid[guid].parent
        return chain

    def level(self, shot):
        """Clusters of the disk that an image has: number to bytes."""
        if shot.guid not in self.levels:
            data = (self.folder / shot.file).read_bytes()
            raw = shot.parent == NONE and shot.kind == "Plain"
            self.levels[shot.guid] = self.raw_level(data) if raw else self.ploop_level(shot.file, data)
        return self.levels[shot.guid]

    def raw_level(self, data):
        return {v: data[v * self.cluster:(v + 1) * self.cluster] for v in range(-(-len(data) // self.cluster))}

    def ploop_level(self, name, data):
        signature, kind, _, _, sectors, entries, size, in_use, first, flags, _ = HEADER.unpack(data[:HEADER.size])
        need(signature in UNITS and kind == 2, f"{name}: no ploop1 image")
        need(sectors * SECTOR == self.cluster, f"{name}: clusters of {sectors} sectors")
        need(in_use in (0, 0x312E3276), f"{name}: was not closed: {in_use:#x}")
        need(flags in (0, 1), f"{name}: flags {flags:#x}")
        need(first % sectors == 0 and first * SECTOR >= HEADER.size + 4 * entries, f"{name}: data at sector {first}")
        size = (size if UNITS[signature] == 0 else size & 0xFFFFFFFF) * SECTOR
        need(size <= self.size and entries * self.cluster >= size, f"{name}: {size} bytes in {entries} clusters")
        unit = SECTOR if UNITS[signature] else self.cluster
        level, seen = {}, set()
        for v, entry in enumerate(struct.unpack_from(f"<{entries}I", data, HEADER.size)):
            if not entry:
                continue
            at = entry * unit
            need(at % self.cluster == 0 and first * SECTOR <= at < len(data) and at not in seen, f"{name}: cluster {v} at {at}")
            seen.add(at)
            level[v] = data[at:at + self.cluster]
        return level

    def content(self, guid):
        """What the disk held when this one was the top, as far as it is not zeros: cluster to bytes."""
        result = {}
        for shot in reversed(self.chain(guid)):
            result.update(self.level(shot))
        return {v: data.rstrip(b"\0") for v, data in result.items() if data.rstrip(b"\0")}
