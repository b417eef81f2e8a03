# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small disks for the crash tests: how they are made, and how they are read by lines that know nothing but the format."""
import collections
import json
import pathlib
import struct
import subprocess
import xml.etree.ElementTree as ElementTree

CLUSTER = 64 << 10
EXTENSION = struct.pack("<Q", 0xAB234CEF23DCEA87)
PARTIAL = 0x5E1B90C7A3D2468F
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
NONE = "{00000000-0000-0000-0000-000000000000}"
A, B, C, NEW, NOBODY = ("{11111111-aaaa-4bbb-8ccc-00000000000%d}" % n for n in range(1, 6))
KNOWN = {TOP, A, B, C, NEW}
OTHER = "more/other"  # an image that may take the place of another one

Snapshot = collections.namedtuple("Snapshot", "content size temporary parent file form")

PLOOP = "ploop"


def use(program):
    global PLOOP
    PLOOP = program


def run(*command, check=True, **more):
    return subprocess.run(command, check=check, capture_output=True, text=True, **more)


def ploop(*arguments, **more):
    return run(PLOOP, *arguments, **more)


# ---- The format, as anybody could read it ----

def header(path):
    """(version, bytes of a cluster, entries, in use, extension) of a ploop1 image; None for a raw one."""
    with open(path, "rb") as file:
        head = file.read(64)
    version = {b"WithoutFreeSpace": 1, b"WithouFreSpacExt": 2}.get(head[:16])
    if not version:
        return None
    sectors, entries = struct.unpack_from("<II", head, 28)
    return version, sectors * 512, entries, head[44:48] == b"p59.", struct.unpack_from("<Q", head, 56)[0]


def clusters(path, cluster):
    """{virtual cluster: bytes} of one image."""
    data = path.read_bytes()
    head = header(path)
    if not head:
        return {v: data[v * cluster:(v + 1) * cluster].ljust(cluster, b"\0") for v in range(-(-len(data) // cluster))}
    version, size, entries, _, _ = head
    assert size == cluster, f"{path.name}: clusters of {size} bytes"
    unit = 512 if version == 1 else size
    bat = struct.unpack_from(f"<{entries}I", data, 64)
    assert len(set(bat) - {0}) == sum(k != 0 for k in bat), f"{path.name}: a cluster is used twice"
    return {v: data[k * unit:k * unit + size].ljust(size, b"\0") for v, k in enumerate(bat) if k}


def partial_clusters(path, cluster):
    """{virtual cluster: [bytes of a part, or None where it is still below]}: what a crash left. ploop-format(5)."""
    data, head = path.read_bytes(), header(path)
    unit = head and (512 if head[0] == 1 else cluster)
    at = next((head[4] * u for u in (unit, 512) if data[head[4] * u:][:8] == EXTENSION), 0) if head and head[4] else 0
    end, found = at + cluster, {}
    at += 24
    while 24 < at < end and struct.unpack_from("<Q", data, at)[0] not in (0, PARTIAL):
        at += 24 + (struct.unpack_from("<I", data, at + 16)[0] + 7) // 8 * 8
    if not 24 < at < end or struct.unpack_from("<Q", data, at)[0] != PARTIAL:
        return found
    table, size, pages = struct.unpack_from("<QII", data, at + 24)
    whole = struct.unpack_from(f"<{head[2]}I", data, 64)
    for page in range(pages):
        copies = [data[table * 512 + (2 * page + n) * 4096:][:4096] for n in (0, 1)]
        newest = max(copies, key=lambda copy: struct.unpack_from("<Q", copy.ljust(16, b"\0"), 8))
        for record in struct.iter_unpack("<II32s", newest[64:4064]):
            v, entry, bits = record[0], record[1], int.from_bytes(record[2], "little")
            if entry and not whole[v]:
                parts = range(entry * unit, entry * unit + cluster, size)
                found[v] = [data[p:p + size].ljust(size, b"\0") if bits >> n & 1 else None for n, p in enumerate(parts)]
    return found


def over(content, partial, cluster):
    """What is below, with the parts that are there."""
    for v, parts in partial.items():
        below, size = content.get(v, bytes(cluster)), cluster // len(parts)
        content[v] = b"".join(below[n * size:(n + 1) * size] if part is None else part for n, part in enumerate(parts))
    return content


def read_disk(folder):
    """{GUID: Snapshot} of all snapshots, the top among them. Clusters of zeros at the end are left out of the content."""
    root = ElementTree.parse(folder / "DiskDescriptor.xml").getroot()
    size = int(root.findtext("Disk_Parameters/Disk_size")) * 512
    cluster = int(root.findtext("StorageData/Storage/Blocksize")) * 512
    files = {i.findtext("GUID"): i.findtext("File") for i in root.iterfind("StorageData/Storage/Image")}
    shots = {s.findtext("GUID"): s for s in root.iterfind("Snapshots/Shot")}
    parents = {guid: s.findtext("ParentGUID") for guid, s in shots.items()}
    assert set(files) == set(shots), "Images and Shots differ"
    assert root.findtext("Snapshots/TopGUID") == TOP
    images = {guid: clusters(folder / name, cluster) for guid, name in files.items()}
    partial = {guid: partial_clusters(folder / name, cluster) for guid, name in files.items()}
    disk = {}
    for guid in files:
        content, at, line = {}, guid, []
        while at != NONE:
            line.insert(0, at)
            at = parents[at]
        for at in line:
            content = over(content | images[at], partial[at], cluster)
        end = max((v + 1 for v, data in content.items() if v * cluster < size and any(data)), default=1)
        data = b"".join(content.get(v, bytes(cluster)) for v in range(end))[:size]
        form = (header(folder / files[guid]) or (0,))[0]  # the version; 0: raw
        disk[guid] = Snapshot(data, size, shots[guid].find("Temporary") is not None, parents[guid], files[guid], form)
    return disk


def others(folder, disk):
    """Files that the descriptor does not name."""
    named = {snapshot.file for snapshot in disk.values()}
    return {p.name for p in folder.iterdir() if p.is_file()} - named - {"DiskDescriptor.xml", "DiskDescriptor.xml.lck"}


# ---- Disks to work on ----

def write(path, pattern, offset, form="parallels", length=CLUSTER):
    run("qemu-io", "-f", form, "-c", f"write -q -P {pattern} {offset} {length}", str(path))


def snapshots(folder):
    return json.loads(ploop("snapshot-list", "--json", str(folder)).stdout)["snapshots"]


def top_of(folder):
    return pathlib.Path(next(s["file"] for s in snapshots(folder) if s["current"]))


def leaf_of(folder):
    return next(s["uuid"] for s in snapshots(folder) if not s["children"] and not s["current"])


def file_of(folder, guid):
    return next(s["file"] for s in snapshots(folder) if s["uuid"] == guid)


def branches(folder):
    """base A - B - top, each with some clusters of its own; on A also C and a leaf without a known name."""
    folder.mkdir()
    ploop("init", "-s", "512k", "-b", "128", "-t", "none", str(folder / "root.hds"))
    for number, uuid in enumerate((A, C)):
        write(top_of(folder), number + 1, number * CLUSTER)
        write(top_of(folder), number + 8, 6 * CLUSTER)
        ploop("snapshot", "-u", uuid, str(folder))
    write(top_of(folder), 3, 2 * CLUSTER)
    ploop("snapshot-switch", "-D", "-u", A, str(folder))
    write(top_of(folder), 4, 3 * CLUSTER)
    ploop("snapshot", "-u", B, str(folder))
    write(top_of(folder), 5, 0)


def chain(folder, *options, form="parallels"):
    """base A - B - C - top: clusters of each alone, of several, and one that is written over by zeros."""
    folder.mkdir()
    ploop("init", "-s", "768k", "-b", "128", "-t", "none", *options, str(folder / "root.hds"))
    for number, uuid in enumerate((A, B, C, None), 1):
        top = top_of(folder)
        write(top, number, (number - 1) * CLUSTER, form)
        write(top, number + 8, 6 * CLUSTER, form)
        write(top, number + 16, (6 + number) * CLUSTER - 4096, form, 8192)
        if number == 3:
            write(top, 0, 0, form)
        if uuid:
            ploop("snapshot", "-u", uuid, str(folder))
        form = "parallels"


def raw_chain(folder):
    chain(folder, "-f", "raw", form="raw")


def holes(folder):
    """A top with entries taken out of its index, so that every second cluster of its file is free."""
    folder.mkdir()
    ploop("init", "-s", "1m", "-b", "128", "-t", "none", str(folder / "root.hds"))
    for number in range(16):
        write(folder / "root.hds", number + 1, number * CLUSTER)
    with open(folder / "root.hds", "r+b") as file:
        for number in range(0, 16, 2):
            file.seek(64 + 4 * number)
            file.write(bytes(4))


def replaceable(folder):
    """A chain, and in a folder of its own another image that holds what B's holds."""
    chain(folder)
    (folder / OTHER).parent.mkdir()
    run("cp", "--sparse=always", file_of(folder, B), str(folder / OTHER))


def small_clusters(folder):
    """The smallest, so that a little more size makes the index longer, and what follows it moves."""
    chain(folder, "-b", "64")


def files(folder):
    """A mounted file system with files in it, of which most are gone again. The mount point is called mnt."""
    mount = folder.parent / "mnt"
    folder.mkdir()
    mount.mkdir(exist_ok=True)
    ploop("init", "-s", "64m", "-b", "128", str(folder / "root.hds"))
    ploop("mount", "-m", str(mount), str(folder))
    for number in range(24):
        (mount / f"file{number}").write_bytes(bytes([number + 1]) * (1 << 20))
    run("sync", "-f", str(mount))
    for number in range(24):
        if number % 5:
            (mount / f"file{number}").unlink()
    ploop("umount", str(folder))
