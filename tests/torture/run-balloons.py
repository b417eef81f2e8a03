#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills who changes a balloon, or the ploopd, at random moments; what then is put right ends where nobody was killed. TAP.

    run-balloons.py [--times N] [--seed N] BUILD

After each kill the balloon has its old size or its new one, no state is left that a verb cannot end, and after `complete`,
`repair` and the same change once more the image is as short and takes as little room as after a change in peace; the files
inside are the same, and neither the image nor the file system has any fault.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import disks
from disks import ploop, run

SIZE = 90 << 20  # of the balloon
RATE = "60m"
SLACK = 4 << 20  # metadata of the file system is not the same each time


def number(folder):
    return json.loads(ploop("balloon", "show", "--json", str(folder)).stdout)["size"]


def state(folder):
    return json.loads(ploop("balloon", "status", "--json", str(folder)).stdout)["maintenance"]


def change(folder, **more):
    return ploop("-v-1", "balloon", "change", "-s", str(SIZE // 512), str(folder), **more)


class Disk:
    """A copy of the disk, mounted, from which most of what it holds was just deleted."""

    def __init__(self, work, origin, name):
        self.folder, self.mount = work / name, work / f"{name}.mnt"
        run("cp", "-r", "--sparse=always", str(origin), str(self.folder))
        self.mount.mkdir()
        self.up()
        (self.mount / "gone").unlink()
        run("sync", "-f", str(self.mount))

    def up(self):
        ploop("-v-1", "mount", "-m", str(self.mount), str(self.folder))

    def down(self):
        ploop("-v-1", "umount", str(self.folder))

    def measure(self):
        """Bytes on the host, and the length, of the image."""
        run("sync", "-f", str(self.mount))
        st = (self.folder / "root.hds").stat()
        return st.st_blocks * 512, st.st_size

    def content(self):
        return run("sha256sum", str(self.mount / "kept")).stdout.split()[0]

    def pid(self):
        device = json.loads(ploop("list", "--json").stdout)["devices"][0]
        return device["pid"]

    def check(self, where):
        """Unmounts it; nothing is wrong."""
        self.down()
        image = self.folder / "root.hds"
        for command in (("qemu-img", "check", "-q", "-f", "parallels", str(image)), (disks.PLOOP, "check", str(image))):
            result = run(*command, check=False)
            assert not result.returncode, f"{where}: {command}: {result.stdout}{result.stderr}"
        device = ploop("-v0", "mount", str(self.folder)).stdout.split("dev=")[1].split()[0]
        result = run("e2fsck", "-fn", f"{device}p1", check=False)
        ploop("-v-1", "umount", "-d", device)
        assert not result.returncode, f"{where}: e2fsck: {result.stdout}"
        run("rm", "-r", str(self.folder), str(self.mount))


def make(work):
    folder, mount = work / "origin", work / "mnt"
    folder.mkdir()
    mount.mkdir()
    ploop("-v-1", "init", "-s", "160m", str(folder / "root.hds"))
    ploop("-v-1", "mount", "-m", str(mount), str(folder))
    for name, length in (("gone", 80), ("kept", 20)):
        (mount / name).write_bytes(os.urandom(length << 20))
    ploop("-v-1", "umount", str(folder))
    return folder


def in_peace(work, origin):
    disk = Disk(work, origin, "peace")
    begin = time.monotonic()
    change(disk.folder)
    took = time.monotonic() - begin
    result = disk.measure(), disk.content()
    disk.check("in peace")
    return took, *result


def once(work, origin, want, content, after, victim):
    """One kill. Returns what was found."""
    where = f"{victim} killed after {after * 1000:.0f} ms"
    disk = Disk(work, origin, "killed")
    words = (disks.PLOOP, "-v-1", "balloon", "change", "-s", str(SIZE // 512), "--rate", RATE, str(disk.folder))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asker:
        time.sleep(after)
        if victim != "ploopd":
            asker.kill()
        if victim != "client":
            os.kill(disk.pid(), 9)
        asker.wait()
    if victim == "client":
        found = state(disk.folder)
        ploop("-v-1", "balloon", "complete", str(disk.folder))
        assert state(disk.folder) == "OFF", f"{where}: the state is {state(disk.folder)}"
    else:
        found = "dead"
        disk.down()
        disk.up()
    size = number(disk.folder)
    assert size in (0, SIZE), f"{where}: the balloon has {size} bytes"
    ploop("-v-1", "balloon", "repair", str(disk.folder))
    said = ploop("balloon", "check", str(disk.folder)).stdout
    assert said.startswith("No free blocks found" if size else "Nothing to do"), f"{where}: {said}"
    change(disk.folder)
    got = disk.measure()
    assert all(abs(one - other) <= SLACK for one, other in zip(got, want)), f"{where}: {got}, in peace {want}"
    assert disk.content() == content, f"{where}: a file has changed"
    disk.check(where)
    return f"{where}: {found}, {'new' if size else 'old'} size"


def can_run():
    return os.geteuid() == 0 and os.path.exists("/dev/fuse") and os.path.exists("/dev/loop-control")


def play(args, work):
    rng = random.Random(args.seed)
    os.environ["PLOOP_RUN_DIR"], os.environ["PLOOP_DEV_DIR"] = str(work / "run"), str(work / "dev")
    (work / "dev").mkdir()
    origin = make(work)
    took, want, content = in_peace(work, origin)
    took += 20 / 60  # of the data that is moved at the rate
    failed = 0
    for n in range(1, args.times + 1):
        try:
            text = once(work, origin, want, content, rng.uniform(0, 1.2 * took), ("client", "ploopd", "both")[n % 3])
            print(f"ok {n} - {text}", flush=True)
        except (AssertionError, subprocess.CalledProcessError) as problem:
            failed += 1
            print(f"not ok {n} - {problem} {getattr(problem, 'stderr', '')} (seed {args.seed})", flush=True)
            run("sh", "-c", f"grep ' {work}/' /proc/self/mountinfo | cut -d' ' -f5 | xargs -r umount -l", check=False)
            ploop("umount", "--all", check=False)
            run("sh", "-c", f"rm -rf {work}/killed*", check=False)
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("build", type=lambda path: pathlib.Path(path).resolve())
    args = parser.parse_args()
    if not can_run():
        print("1..0 # SKIP needs root, FUSE and loop devices")
        return 0
    disks.use(str(args.build / "ploop"))
    print(f"1..{args.times}", flush=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ploop-balloons-") as folder:
        try:
            return play(args, pathlib.Path(folder))
        finally:
            ploop("umount", "--all", check=False)


if __name__ == "__main__":
    sys.exit(main())
