#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A foreign disk with branches and temporary snapshots, changed by each verb: run-descriptor.py PLOOP. Speaks TAP.

The descriptor must be what the original would have left, in the same order; and who knows only the formats (disk.py) must find
in each snapshot what was written.
"""
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "images")]
# pylint: disable=wrong-import-position
from disk import NONE, SECTOR, TOP, Broken, Disk  # noqa: E402
from image import Image  # noqa: E402

CLUSTER, CLUSTERS = 64, 100  # sectors, clusters

# Lines of a tree: NAME<PARENT FILE, t for temporary. 3 is needed by two, 6 by nobody but 5, which makes it go by itself.
TREE = "1<- root.hds; 2<1 f2; 3<2 f3 t; 4<3 f4; 6<1 f6 t; 5<6 f5; T<3 ft"
FORGOTTEN = "1<- root.hds; 2<1 f2; 3<2 f3 t; 4<3 f4; 5<1 f6; T<3 ft"

# Verb; what it leaves; whose content is whose, where a name has another one than before. "+" is a file that is new.
CASES = (
    ("snapshot -u 7 @", "1<- root.hds; 2<1 f2; 3<2 f3 t; 4<3 f4; 5<1 f6; 7<3 ft; T<7 +", "7=T"),
    ("snapshot-switch -u 2 @", "1<- root.hds; 2<1 f2; 3<2 f3 t; 4<3 f4; 6<1 f6 t; 5<6 f5; T<2 +", "T=2"),
    ("snapshot-switch -D -u 2 @", "1<- root.hds; 2<1 f2; 3<2 f3 t; 4<3 f4; 6<1 f6 t; 5<6 f5; *<3 ft; T<2 +", "T=2 *=T"),
    ("snapshot-delete -u 4 @", "1<- root.hds; 2<1 f2; T<2 f3; 5<1 f6", ""),
    ("snapshot-delete -u 5 @", "1<- root.hds; 2<1 f2; 3<2 f3 t; 4<3 f4; T<3 ft", ""),
    ("snapshot-delete -u 6 @", FORGOTTEN, ""),
    ("snapshot-delete -u 2 @", "1<- root.hds; 3<1 f2 t; 4<3 f4; 5<1 f6; T<3 ft", ""),
    ("snapshot-merge -u 3 @", "1<- root.hds; 3<1 f2 t; 4<3 f4; 6<1 f6 t; 5<6 f5; T<3 ft", ""),
    ("snapshot-merge -u 5 @", FORGOTTEN, ""),
    ("snapshot-merge -u 3 -n @/new @", "1<- root.hds; 3<1 new t; 4<3 f4; 6<1 f6 t; 5<6 f5; T<3 ft", ""),
    ("snapshot-merge @", "1<- root.hds; 2<1 f2; T<2 f3; 4<2 +; 6<1 f6 t; 5<6 f5", ""),
    ("snapshot-merge -u 3 -U 1 @", "3<- root.hds t; 4<3 f4; 6<3 + t; 5<6 f5; T<3 ft", ""),
    ("snapshot-delete -u 3 @", "1<- root.hds; 2<1 f2; 4<2 f3; 5<1 f6; T<2 +", ""),
    ("merge @/f5 @/f6", FORGOTTEN, ""),
    ("check --repair=all @", TREE, ""),
    ("repair-descriptor @", TREE, ""),
    ("snapshot-list @", TREE, ""),
    ("gc --remove @", TREE, ""),
    ("convert -v 1 @", TREE, ""),
    ("convert -f raw @", TREE, ""),
)

# The top has a GUID of its own. The first are refused, and nothing changes; the others give it the one that it has today.
OLD_TOP = "{99999999-dddd-4eee-8fff-00000000000f}"
REFUSED_OLD = ("snapshot -u 7 @", "snapshot-switch -u 2 @", "snapshot-delete -u 5 @", "snapshot-merge -u 5 @", "merge @/f5 @/f6")
CONVERTED_OLD = ("convert -v 1 @", "convert -f raw @", "repair-descriptor @")
SIZES = ("33m", "100m")  # MiB clusters: a base with a file system, and nothing above it


class Wrong(Exception):
    pass


def guid(name):
    return {"-": NONE, "T": TOP}.get(name) or f"{{11111111-aaaa-4bbb-8ccc-{int(name):012}}}"


def name_of(text):
    """The way back; "*" for one that was made up."""
    known = {guid(name): name for name in ("-", "T", *map(str, range(1, 100)))}
    return known.get(text, "*")


def parse(tree):
    for line in tree.split("; "):
        name, file, *temporary = line.split()
        yield *name.split("<"), file, bool(temporary)


def rows(disk, files):
    for s in disk.shots:
        yield name_of(s.guid), name_of(s.parent), s.file if s.file in files else "+", s.temporary


def write_descriptor(path, tree, top, sectors, cluster):
    """As the original writes it."""
    text = f"""<?xml version="1.0"?>
<Parallels_disk_image>
  <Disk_Parameters><Disk_size>{sectors}</Disk_size><Cylinders>40</Cylinders><Heads>16</Heads><Sectors>10</Sectors><Padding>0</Padding></Disk_Parameters>
  <StorageData><Storage><Start>0</Start><End>{sectors}</End><Blocksize>{cluster}</Blocksize>
"""
    for name, _, file, _ in parse(tree):
        text += f"    <Image><GUID>{top if name == 'T' else guid(name)}</GUID><Type>Compressed</Type><File>{file}</File></Image>\n"
    text += f"  </Storage></StorageData>\n  <Snapshots>\n    <TopGUID>{top}</TopGUID>\n"
    for name, parent, _, temporary in parse(tree):
        text += (f"    <Shot><GUID>{top if name == 'T' else guid(name)}</GUID><ParentGUID>{guid(parent)}</ParentGUID>"
                 f"{'<Temporary/>' if temporary else ''}</Shot>\n")
    path.write_text(text + "  </Snapshots>\n</Parallels_disk_image>\n")


def make(folder, top=TOP):
    """Every image has clusters of its own, and some that lie above others."""
    for number, (_, _, file, _) in enumerate(parse(TREE)):
        image = Image(cluster=CLUSTER, clusters=CLUSTERS, mapped=(0, 1 + number, 20 + number, 21 + number, 99 - 2 * number))
        image.clusters = {k: bytes([16 * (number + 1) + k]) for k in image.clusters}
        image.write(folder / file)
    write_descriptor(folder / "DiskDescriptor.xml", TREE, top, CLUSTER * CLUSTERS, CLUSTER)


def change(ploop, verb, folder, status=0):
    words = [guid(w) if w.isdigit() and before in ("-u", "-U") else w.replace("@", str(folder))
             for before, w in zip(["", *verb.split()], verb.split())]
    result = subprocess.run([ploop, "-v0", *words], capture_output=True, text=True, timeout=120, check=False)
    if result.returncode != status:
        raise Wrong(f"ploop {' '.join(words)}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def contents(disk):
    return {name_of(s.guid): disk.content(s.guid) for s in disk.shots}


def compare(disk, before, expected, renamed, left=None):
    """Rows, contents, and that the folder holds nothing else."""
    expected = list(parse(expected))
    files = {row[2] for row in expected}
    found = list(rows(disk, files))
    if found != expected:
        raise Wrong("\n".join(["is:", *map(str, found), "should be:", *map(str, expected)]))
    origin = dict(pair.split("=") for pair in renamed.split())
    for name, content in contents(disk).items():
        if content != before[origin.get(name, name)]:
            raise Wrong(f"{name} does not hold what it held")
    there = {p.name for p in disk.folder.iterdir()}
    extra = there - {s.file for s in disk.shots} - {"DiskDescriptor.xml", "DiskDescriptor.xml.lck", left}
    if extra:
        raise Wrong(f"left over: {' '.join(sorted(extra))}")


def changed(ploop, verb, expected, renamed, folder):
    make(folder)
    before = contents(Disk(folder / "DiskDescriptor.xml"))
    change(ploop, verb, folder)
    disk = Disk(folder / "DiskDescriptor.xml")
    compare(disk, before, expected, renamed, left="f5" if verb.startswith("merge") else None)  # its files are the user's
    for s in disk.shots:
        if (s.kind == "Plain") != (s.parent == NONE and "-f raw" in verb):
            raise Wrong(f"{s.file} is called {s.kind}")


def refused(ploop, verb, top, folder):
    """Not a byte changes, of any file."""
    make(folder, top)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    change(ploop, verb, folder, status=38)
    (folder / "DiskDescriptor.xml.lck").unlink(missing_ok=True)
    if {p.name: p.read_bytes() for p in folder.iterdir()} != before:
        raise Wrong("refused, and something has changed")


def converted(ploop, verb, folder):
    make(folder, OLD_TOP)
    old = Disk(folder / "DiskDescriptor.xml")
    before = {"T" if s.guid == OLD_TOP else name_of(s.guid): old.content(s.guid) for s in old.shots}
    change(ploop, verb, folder)
    compare(Disk(folder / "DiskDescriptor.xml"), before, TREE, "")


def resized(ploop, size, top, folder):
    """A base with a file system; the rest is empty. Snapshots keep what they hold, the top gets the new size."""
    sectors, cluster = 65536 * 2, 2048
    for _, _, file, _ in parse(TREE):
        Image(cluster=cluster, clusters=sectors // cluster, mapped=()).write(folder / file)
    (folder / "root.hds").unlink()
    change(ploop, "init -s 64m @/root.hds", folder)
    write_descriptor(folder / "DiskDescriptor.xml", TREE, top, sectors, cluster)
    old = Disk(folder / "DiskDescriptor.xml")
    before = {name_of(s.guid): old.content(s.guid) for s in old.shots if s.guid != top}
    change(ploop, f"resize -s {size} @", folder)
    disk = Disk(folder / "DiskDescriptor.xml")
    disk.size, larger = max(disk.size, old.size), disk.size
    if larger != (100 << 20 if size == "100m" else 64 << 20):
        raise Wrong(f"the disk has {larger} bytes")
    before["T"] = disk.content(TOP)
    if before["T"] == before["3"]:
        raise Wrong("the file system is what it was")
    compare(disk, before, TREE, "")


def plan(ploop):
    for verb, expected, renamed in CASES:
        yield verb, lambda folder, case=(verb, expected, renamed): changed(ploop, *case, folder)
    yield "convert -f preallocated @ is refused", lambda folder: refused(ploop, "convert -f preallocated @", TOP, folder)
    for verb in REFUSED_OLD:
        yield f"old format, refused: {verb}", lambda folder, verb=verb: refused(ploop, verb, OLD_TOP, folder)
    for verb in CONVERTED_OLD:
        yield f"old format, converted: {verb}", lambda folder, verb=verb: converted(ploop, verb, folder)
    for size in SIZES:
        for what, top in (("", TOP), ("old format: ", OLD_TOP)):
            yield f"{what}resize -s {size}", lambda folder, size=size, top=top: resized(ploop, size, top, folder)


def main():
    ploop = str(pathlib.Path(sys.argv[1]).resolve())
    tests = list(plan(ploop))
    bad = 0
    print(f"1..{len(tests)}")
    for number, (name, test) in enumerate(tests, 1):
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ploop-descriptor-") as folder:
            try:
                test(pathlib.Path(folder).resolve())
                print(f"ok {number} - {name.replace('@/', '').replace('@', 'DISK')}", flush=True)
            except (Wrong, Broken) as wrong:
                bad += 1
                print(f"not ok {number} - {name}")
                print("\n".join(f"# {line}" for line in str(wrong).splitlines()), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
