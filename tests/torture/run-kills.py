#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills each verb that changes a disk at every system call that changes something: run-kills.py PLOOP KILLAT [WORD]. TAP.

After each kill the disk is read by the few lines below, which know nothing but the format: it is the old disk or the new one,
in every snapshot, byte by byte. `ploop gc` names every file that is left over. The next verb settles what was interrupted,
and then nothing is left. With WORD only the cases whose name contains it run.
"""
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

CLUSTER = 64 << 10
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
NONE = "{00000000-0000-0000-0000-000000000000}"
A, B, C, NOBODY = ("{11111111-aaaa-4bbb-8ccc-00000000000%d}" % n for n in range(1, 5))
KILLED = 99

PLOOP = KILLAT = ""


def run(*command, check=True, **more):
    return subprocess.run(command, check=check, capture_output=True, text=True, **more)


def ploop(*arguments, **more):
    return run(PLOOP, *arguments, **more)


# ---- The format, as anybody could read it ----

def clusters(path):
    """{virtual cluster: bytes} of one ploop1 v2 image."""
    data = path.read_bytes()
    sectors, entries = struct.unpack_from("<II", data, 28)
    size = sectors * 512
    bat = struct.unpack_from(f"<{entries}I", data, 64)
    return {v: data[k * size:(k + 1) * size].ljust(size, b"\0") for v, k in enumerate(bat) if k}


def read_disk(folder):
    """{GUID: content} of all snapshots, the top among them, and the names of the files."""
    root = ElementTree.parse(folder / "DiskDescriptor.xml").getroot()
    size = int(root.findtext("Disk_Parameters/Disk_size")) * 512
    files = {i.findtext("GUID"): i.findtext("File") for i in root.iterfind("StorageData/Storage/Image")}
    parents = {s.findtext("GUID"): s.findtext("ParentGUID") for s in root.iterfind("Snapshots/Shot")}
    assert set(files) == set(parents), "Images and Shots differ"
    assert root.findtext("Snapshots/TopGUID") == TOP
    images = {guid: clusters(folder / name) for guid, name in files.items()}
    disk = {}
    for guid in files:
        content, at = {}, guid
        while at != NONE:
            content = images[at] | content
            at = parents[at]
        disk[guid] = b"".join(content.get(v, bytes(CLUSTER)) for v in range(size // CLUSTER))
    return disk, set(files.values())


# ---- Disks to work on ----

def write(path, pattern, offset):
    run("qemu-io", "-f", "parallels", "-c", f"write -q -P {pattern} {offset} {CLUSTER}", str(path))


def top_of(folder):
    answer = json.loads(ploop("snapshot-list", "--json", str(folder)).stdout)
    return pathlib.Path(next(s["file"] for s in answer["snapshots"] if s["current"]))


def leaf_of(folder):
    answer = json.loads(ploop("snapshot-list", "--json", str(folder)).stdout)
    return next(s["uuid"] for s in answer["snapshots"] if not s["children"] and not s["current"])


def template(folder):
    """base - A - B - top, each with some clusters of its own; on A also C and a leaf without a known name."""
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


# ---- Offline ----

def others(folder, named):
    return {p.name for p in folder.iterdir()} - named - {"DiskDescriptor.xml", "DiskDescriptor.xml.lck"}


def check_leftovers(folder, named, where):
    listed = {os.path.basename(i["path"]) for i in json.loads(ploop("gc", "--json", str(folder)).stdout)["leftovers"]}
    assert others(folder, named) == listed, f"{where}: left {others(folder, named)}, gc names {listed}"


def settle(folder, where):
    """Any verb that takes the lock settles. What stays then is at most half of a small file."""
    before, _ = read_disk(folder)
    result = ploop("snapshot-delete", "-u", NOBODY, str(folder), check=False)
    assert result.returncode == 43, f"{where}: {result.stderr}"
    after, named = read_disk(folder)
    assert before == after, f"{where}: settling changed the disk"
    rest = others(folder, named)
    assert all(name.endswith(".tmp") for name in rest), f"{where}: left after settling: {rest}"
    ploop("gc", "--remove", str(folder))
    assert not others(folder, named), f"{where}: left after gc: {others(folder, named)}"


def offline(work, name, verb, again):
    """`again`: the exit statuses of the same verb once more, on the new disk."""
    origin = work / "origin"
    old, _ = read_disk(origin)
    verb = [leaf_of(origin) if word == "LEAF" else word for word in verb]
    shutil.copytree(origin, work / "new")
    ploop(*verb, str(work / "new"))
    new, _ = read_disk(work / "new")
    counts = {False: 0, True: 0}
    for n in range(1, 1000):
        folder = work / f"{name}-{n}"
        shutil.copytree(origin, folder)
        result = run(KILLAT, str(n), PLOOP, "-v-1", *verb, str(folder), check=False)
        where = f"{name}, {result.stderr.strip()}"
        disk, named = read_disk(folder)
        is_new = strip(disk) == strip(new)
        assert is_new or disk == old, f"{where}: neither the old nor the new disk"
        if result.returncode != KILLED:
            break
        counts[is_new] += 1
        check_leftovers(folder, named, where)
        settle(folder, where)
        status = ploop("-v-1", *verb, str(folder), check=False).returncode
        assert status == (again if is_new else 0), f"{where}: once more gives {status}"
        shutil.rmtree(folder)
    assert result.returncode == 0, f"{where}: exit status {result.returncode}"
    assert is_new and counts[False] and counts[True], f"{name}: {counts}"
    shutil.rmtree(work / "new")
    return f"{counts[False]} kills leave the old disk, {counts[True]} the new one"


def strip(disk):
    """Without the names that are made up anew each time."""
    known = {TOP, A, B, C}
    return {g: c for g, c in disk.items() if g in known}, sorted(c for g, c in disk.items() if g not in known)


# ---- Online: the client dies, the device lives ----

def device_of(folder, *options):
    text = ploop("-v0", "mount", *options, str(folder)).stdout
    return re.search(r"^Adding delta dev=(\S+)", text, re.MULTILINE).group(1)


def put(device, text, sector):
    """Written and flushed."""
    fd = os.open(device, os.O_RDWR | os.O_SYNC)
    os.pwrite(fd, text.encode().ljust(512, b"."), sector * 512)
    os.fsync(fd)
    os.close(fd)


def pid_of(device):
    return int((pathlib.Path(os.environ["PLOOP_RUN_DIR"]) / os.path.basename(device) / "pid").read_text().split()[0])


def end(device, hard):
    if hard:
        pid = pid_of(device)
        os.kill(pid, 9)
        while pathlib.Path(f"/proc/{pid}/exe").exists():
            pass
    ploop("umount", "-d", device)


def online(work, name, verb, _again):
    old, _ = read_disk(work / "origin")
    taken = 0
    for n in range(1, 1000):
        folder = work / f"{name}-{n}"
        shutil.copytree(work / "origin", folder)
        device = device_of(folder)
        put(device, "before", 0)
        result = run(KILLAT, str(n), PLOOP, "-v-1", *verb, str(folder), check=False)
        where = f"{name}, {result.stderr.strip()}"
        put(device, "after", 1)
        _, named = read_disk(folder)
        check_leftovers(folder, named, where)
        # Every other time the next verb comes while the device still runs, and every third time that dies.
        if n % 2:
            ploop("snapshot", str(folder))
            put(device, "later", 2)
        end(device, n % 3 == 0)
        settle(folder, where)
        disk, _ = read_disk(folder)
        want = bytearray(old[TOP])
        for sector, text in enumerate(["before", "after"] + ["later"] * (n % 2)):
            want[sector * 512:(sector + 1) * 512] = text.encode().ljust(512, b".")
        assert disk[TOP] == want, f"{where}: lost what was flushed"
        if C[:-2] + "9}" in disk:
            taken += 1
            assert disk[C[:-2] + "9}"][:6] == b"before", f"{where}: not what was there"
        shutil.rmtree(folder)
        if result.returncode != KILLED:
            break
    assert result.returncode == 0 and taken > 1, f"{where}: exit status {result.returncode}"
    return f"{n - 1} kills, {taken - 1} with the snapshot taken"


def frozen(work, name, verb, _again):
    """With a mounted file system: it goes on, wherever the client died."""
    folder = work / "fs"
    folder.mkdir()
    mount = work / "mnt"
    mount.mkdir()
    ploop("init", "-s", "32m", str(folder / "root.hds"))
    device = device_of(folder, "-m", str(mount))
    try:
        for n in range(1, 1000):
            (mount / "file").write_text(f"{n}")
            result = run(KILLAT, str(n), PLOOP, "-v-1", *verb[:-1], str(folder), check=False)
            where = f"{name}, {result.stderr.strip()}"
            run("timeout", "5", "sh", "-c", f"echo {n} >{mount}/after && sync -f {mount}/after")
            if result.returncode != KILLED:
                break
        assert result.returncode == 0, f"{where}: exit status {result.returncode}: {result.stderr}"
    finally:
        ploop("umount", "-d", device)
    return f"{n - 1} kills"


def daemon(work, name, verb, _again):
    """ploopd dies in the middle of it."""
    old, _ = read_disk(work / "origin")
    want = bytearray(old[TOP])
    want[:512] = b"before".ljust(512, b".")
    taken = 0
    for n in range(1, 1000):
        folder = work / f"{name}-{n}"
        shutil.copytree(work / "origin", folder)
        device = device_of(folder)
        put(device, "before", 0)
        with subprocess.Popen([KILLAT, str(n), "-p", str(pid_of(device))], stderr=subprocess.PIPE, text=True) as killer:
            assert killer.stderr.readline() == "ready\n"
            client = ploop("-v-1", *verb, str(folder), check=False)
            lives = client.returncode == 0 and killer.poll() is None
            if lives:
                killer.terminate()
            where = f"{name}, {n}: {killer.stderr.read().strip()}"
        # It may have been killed just when it was to be let go, and die while it is asked to end.
        if ploop("umount", "-d", device, check=False).returncode:
            ploop("umount", "-d", device)
        disk, named = read_disk(folder)
        check_leftovers(folder, named, where)
        assert disk[TOP] == want, f"{where}: lost what was flushed"
        there = disk.get(C[:-2] + "9}")
        assert there in (None, want), f"{where}: not what was there"
        assert there or client.returncode, f"{where}: said to be taken, and is not there"
        taken += there is not None
        settle(folder, where)
        # And it can be used.
        device = device_of(folder)
        put(device, "again", 1)
        ploop("umount", "-d", device)
        shutil.rmtree(folder)
        if lives:
            return f"{n - 1} kills, {taken} with the snapshot taken"
    raise AssertionError(f"{where}: no end")


CASES = [
    ("snapshot", offline, ("snapshot", "-u", C[:-2] + "9}"), 38),
    ("switch", offline, ("snapshot-switch", "-u", B), 0),
    ("switch-and-keep", offline, ("snapshot-switch", "-D", "-u", A), 0),
    ("delete-leaf", offline, ("snapshot-delete", "-u", "LEAF"), 43),
    ("delete-top", offline, ("snapshot-delete", "-u", TOP), 38),
    ("online-snapshot", online, ("snapshot", "-u", C[:-2] + "9}"), None),
    ("ploopd", daemon, ("snapshot", "-u", C[:-2] + "9}"), None),
    ("online-frozen", frozen, ("snapshot", ""), None),
]


def can_have_devices():
    return os.geteuid() == 0 and os.path.exists("/dev/fuse") and os.path.exists("/dev/loop-control")


def main():
    global PLOOP, KILLAT
    PLOOP, KILLAT = sys.argv[1:3]
    cases = [c for c in CASES if len(sys.argv) < 4 or sys.argv[3] in c[0]]
    failed = 0
    print(f"1..{len(cases)}")
    for number, (name, how, verb, again) in enumerate(cases, 1):
        if not shutil.which("qemu-io") or (how is not offline and not can_have_devices()):
            print(f"ok {number} {name} # SKIP no qemu-io, or no devices")
            continue
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ploop-kills-") as work:
            work = pathlib.Path(work)
            os.environ["PLOOP_RUN_DIR"], os.environ["PLOOP_DEV_DIR"] = str(work / "run"), str(work / "dev")
            (work / "dev").mkdir()
            try:
                template(work / "origin")
                print(f"ok {number} {name}: {how(work, name, verb, again)}", flush=True)
            except (AssertionError, subprocess.CalledProcessError) as error:
                failed += 1
                print(f"not ok {number} {name}\n# {error} {getattr(error, 'stderr', '')}", flush=True)
                run("sh", "-c", f"grep ' {work}/' /proc/self/mountinfo | cut -d' ' -f5 | xargs -r umount -l")
                ploop("umount", "--all", check=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
