#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills each verb that changes a disk at every system call that changes something. TAP. See README.md.

    run-kills.py [--every N] [--seconds N] [--seed N] [--only WORD] [--on here|xfs|btrfs] BUILD

With --every N only one in N of the kill points is tried, and what moves data runs either with io_uring or without, drawn by the
seed. With --seconds N the cases come in any order, and those that would begin later are left out.
"""
import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import disks
import kills
from balloons import balloon, balloon_daemon
from copies import copying, copying_daemon, resumed
from disks import A, B, C, NEW, TOP, file_of, leaf_of, ploop, run
from kills import Case, client, daemon, frozen, offline, recovery, renaming, shrinking, stopped
from shrinks import shrinking_daemon

# ---- Command lines that are not just words before the folder ----


def delete_leaf(folder):
    return "snapshot-delete", "-u", leaf_of(folder), str(folder)


def merge_files(*guids, options=()):
    """The low-level merge: images by name, the newest first."""
    return lambda folder: ("merge", *options, *(file_of(folder, guid) for guid in guids))


def replace(*options):
    return lambda folder: ("replace", "-u", B, *options, "-i", str(folder / disks.OTHER), str(folder))


REPLACES = {"verb": replace(), "prepare": disks.replaceable, "again": 38}

SNAPSHOT = ("snapshot", "-u", NEW)
MERGE_TOP = ("snapshot-merge", "-u", TOP)
MERGE_LOWER = ("snapshot-merge", "-u", B)
MERGE_RANGE = ("snapshot-merge", "-u", C, "-U", A)
MERGE_ALL = ("snapshot-merge", "-A")
GROW = ("grow", "-s", "600m")
RESIZE = ("resize", "-s", "300m")
GROWS = {"prepare": disks.small_clusters, "engine": True}
ON_CHAIN = {"prepare": disks.chain, "engine": True, "again": None}

CASES = [
    Case("snapshot", offline, SNAPSHOT, again=38),
    Case("switch", offline, ("snapshot-switch", "-u", B)),
    Case("switch-and-keep", offline, ("snapshot-switch", "-D", "-u", A), again=None),
    Case("delete-leaf", offline, delete_leaf, again=43),
    Case("delete-top", offline, ("snapshot-delete", "-u", TOP), again=38),
    Case("delete-with-child", offline, ("snapshot-delete", "-u", C), again=43, spent=(C,), engine=True),
    Case("delete-with-children", offline, ("snapshot-delete", "-u", A), again=43, spent=(A,), engine=True),
    Case("merge-top", offline, MERGE_TOP, spent=(C,), **ON_CHAIN),
    Case("merge-lower", offline, MERGE_LOWER, spent=(A,), **ON_CHAIN),
    Case("merge-range", offline, MERGE_RANGE, spent=(A, B), **ON_CHAIN),
    Case("merge-all", offline, MERGE_ALL, spent=(A, B, C), **ON_CHAIN),
    Case("merge-raw", offline, MERGE_ALL, spent=(A, B, C), prepare=disks.raw_chain, engine=True, again=None),
    Case("merge-one-file", offline, merge_files(TOP, C), spent=(C,), **ON_CHAIN),
    Case("merge-three-files", offline, merge_files(TOP, C, B, A), spent=(A, B, C), **ON_CHAIN),
    Case("convert-version", offline, ("convert", "-v", "1")),
    Case("convert-to-raw", offline, ("convert", "-f", "raw")),
    Case("convert-from-raw", offline, ("convert", "-f", "expanded"), prepare=disks.raw_chain, engine=True),
    Case("grow", offline, GROW, **GROWS),
    Case("resize", offline, RESIZE, **GROWS),
    Case("replace", offline, **REPLACES),
    Case("replace-and-keep-name", renaming, replace("-k"), prepare=disks.replaceable),
    Case("recover-replace", recovery, **REPLACES),
    Case("recover-convert", recovery, ("convert", "-v", "1")),
    Case("compact", shrinking, ("compact",), prepare=disks.holes, engine=True),
    Case("recover-snapshot", recovery, SNAPSHOT),
    Case("recover-switch", recovery, ("snapshot-switch", "-u", B)),
    Case("recover-delete", recovery, delete_leaf),
    Case("recover-merge", recovery, MERGE_ALL, spent=(A, B, C), prepare=disks.chain, again=None),
    Case("online-snapshot", client, SNAPSHOT),
    Case("online-merge-top", client, MERGE_TOP, spent=(C,), prepare=disks.chain, again=None),
    Case("online-merge-lower", client, MERGE_LOWER, spent=(A,), prepare=disks.chain, again=None),
    Case("online-merge-all", client, MERGE_ALL, spent=(A, B, C), prepare=disks.chain, again=None),
    Case("online-grow", client, GROW, **GROWS),
    Case("online-resize", client, RESIZE, **GROWS),
    Case("ploopd-snapshot", daemon, SNAPSHOT, again=38, engine=True),
    Case("ploopd-merge-top", daemon, MERGE_TOP, spent=(C,), **ON_CHAIN),
    Case("ploopd-merge-lower", daemon, MERGE_LOWER, spent=(A,), **ON_CHAIN),
    Case("ploopd-merge-range", daemon, MERGE_RANGE, spent=(A, B), **ON_CHAIN),
    Case("ploopd-merge-all", daemon, MERGE_ALL, spent=(A, B, C), **ON_CHAIN),
    Case("online-replace", client, **REPLACES),
    Case("online-replace-and-keep-name", client, replace("-k"), prepare=disks.replaceable),
    Case("ploopd-replace", daemon, **REPLACES),
    Case("ploopd-grow", daemon, GROW, **GROWS),
    Case("ploopd-resize", daemon, RESIZE, **GROWS),
    Case("ploopd-compact", shrinking_daemon, ("compact",), prepare=disks.holes, engine=True),
    Case("balloon", balloon, ("balloon", "change", "-s", "40m"), prepare=disks.files),
    Case("ploopd-balloon", balloon_daemon, ("balloon", "change", "-s", "40m"), prepare=disks.files, engine=True),
    Case("copy", copying, ("--flat",), prepare=disks.chain, engine=True),
    Case("copy-all", copying, ("--all",), prepare=disks.chain),
    Case("ploopd-copy", copying_daemon, ("--flat",), prepare=disks.chain, engine=True),
    Case("copy-resume", resumed, ()),
    Case("online-frozen", frozen, ("snapshot",)),
    Case("online-stopped", stopped, ("snapshot",)),
]


def needs_devices(case):
    return case.how not in (offline, recovery, renaming, shrinking)


def can_have_devices():
    return os.geteuid() == 0 and os.path.exists("/dev/fuse") and os.path.exists("/dev/loop-control")


class Place:
    """A folder to work in: in /var/tmp, or on a file system of its own in a loop device."""

    MKFS = {"xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"), "btrfs": ("mkfs.btrfs", "-q")}

    def __init__(self, kind):
        self.kind = kind
        self.folder = tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ploop-kills-")
        self.path = pathlib.Path(self.folder.name)

    def __enter__(self):
        if self.kind != "here":
            image, mount = self.path / "host", self.path / "mnt"
            mount.mkdir()
            with open(image, "wb") as file:
                file.truncate(3 << 30)
            run(*self.MKFS[self.kind], str(image))
            run("mount", "-o", "loop", str(image), str(mount))
            self.path = mount
        return self

    def __exit__(self, *_):
        if self.kind != "here":
            run("umount", str(self.path))
        self.folder.cleanup()

    def clear(self):
        """What a failed test left."""
        run("sh", "-c", f"grep ' {self.path}/' /proc/self/mountinfo | cut -d' ' -f5 | xargs -r umount -l", check=False)
        ploop("umount", "--all", check=False)
        self.remove()

    def remove(self):
        """All but the disks that others begin with."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.name.startswith("made-by-"):
                shutil.rmtree(entry, ignore_errors=True)


def run_case(place, case, uring, args):
    place.remove()
    os.environ["PLOOP_RUN_DIR"], os.environ["PLOOP_DEV_DIR"] = str(place.path / "run"), str(place.path / "dev")
    (place.path / "dev").mkdir()
    torture = kills.Torture(args.build, place.path, args.every, args.seed, uring)
    return case.how(torture, case), torture.kills


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--only", default="")
    parser.add_argument("--on", choices=("here", *Place.MKFS), default="here")
    parser.add_argument("build", type=lambda path: pathlib.Path(path).resolve())
    return parser.parse_args()


def choose(args):
    """[(case, with io_uring)]"""
    draw = random.Random(args.seed)
    todo = []
    for case in CASES:
        ways = (True, False) if case.engine else (True,)
        todo += [(case, uring) for uring in (ways if args.every <= 1 else (draw.choice(ways),)) if args.only in case.name]
    if args.seconds:
        draw.shuffle(todo)
    return todo


def why_not(case):
    if not shutil.which("qemu-io") or not shutil.which("qemu-img"):
        return "no qemu-img"
    if needs_devices(case) and not can_have_devices():
        return "no devices"
    return None


def main():
    args = arguments()
    disks.use(str(args.build / "ploop"))
    todo = choose(args)
    failed = total = 0
    begin = time.monotonic()
    number = 0
    print(f"# --every {args.every} --seed {args.seed} --on {args.on}", flush=True)
    with Place(args.on) as place:
        for number, (case, uring) in enumerate(todo, 1):
            # With --seconds as many cases as there is time for: what is drawn first.
            if args.seconds and time.monotonic() - begin > args.seconds:
                number -= 1
                break
            name = case.name + ("" if uring else " without io_uring")
            reason = why_not(case)
            if reason:
                print(f"ok {number} {name} # SKIP {reason}", flush=True)
                continue
            start = time.monotonic()
            try:
                text, count = run_case(place, case, uring, args)
                print(f"ok {number} {name}: {text} ({time.monotonic() - start:.1f} s)", flush=True)
                total += count
            except (AssertionError, subprocess.CalledProcessError) as error:
                failed += 1
                text = f"{error} {getattr(error, 'stderr', '')}".replace("\n", "\n# ")
                print(f"not ok {number} {name}\n# {text}", flush=True)
                place.clear()
    print(f"1..{number}")
    print(f"# {number} of {len(todo)} cases, {total} kills in {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
