#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills and replaces the engine of a mounted disk while fio writes and verifies on it, and says what the longest pause was.

    run-survive.py [--kills N] [--upgrades N] [--front-end NAME] [--pause SECONDS] [--most-ms MS] [--work FOLDER] BUILD

Each kill is SIGKILL to the engine at a random moment, each upgrade a `ploop upgrade`. Afterwards fio must have ended without an error,
and the file system and the image must be clean. A probe writes and syncs a block on the same file system all the time: its slowest
round is the pause that a user sees. With --most-ms a longer one is a failure.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TIMEOUT = 120
PAGE = 4096


def run(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=TIMEOUT, **more).stdout


class Probe(threading.Thread):
    """Writes a block and syncs it, again and again, and remembers when it took long."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.over = False
        self.error = None
        self.slow = []  # when it began, and how long it took

    def run(self):
        try:
            while not self.over:
                began = time.monotonic()
                os.pwrite(self.file, os.urandom(PAGE), 0)
                os.fdatasync(self.file)
                self.slow.append((began, time.monotonic() - began))
                time.sleep(0.002)
        except OSError as error:
            self.error = error

    def longest(self, since, until):
        return max((took for began, took in self.slow if began <= until and began + took >= since), default=0)


class Disk:
    def __init__(self, work, front_end):
        self.work = work
        self.image = work / "disk.hds"
        self.mnt = work / "mnt"
        for name in ("run", "dev", "mnt"):
            (work / name).mkdir()
        os.environ.update(PLOOP_RUN_DIR=str(work / "run"), PLOOP_DEV_DIR=str(work / "dev"), PLOOPD_CRASHES="100")
        run("ploop", "-v-1", "init", "-s", "1g", str(self.image))
        more = ("--front-end", front_end) if front_end else ()
        run("ploop", "-v-1", "mount", "-d", "ploop0", "-m", str(self.mnt), *more, str(self.image))

    def engine(self):
        """Its pid, as soon as there is one."""
        for _ in range(1000):
            pids = (self.work / "run/ploop0/pid").read_text().splitlines()
            pid = int(pids[-1].split()[0])
            if len(pids) == 2 and os.path.exists(f"/proc/{pid}/fd"):
                return pid
            time.sleep(0.01)
        raise RuntimeError("the device has no engine")

    def serving(self, before):
        """Waits until another engine serves."""
        for _ in range(1000):
            if self.engine() != before:
                return
            time.sleep(0.01)
        raise RuntimeError("nobody took over")

    def kill(self):
        before = self.engine()
        os.kill(before, signal.SIGKILL)
        self.serving(before)

    def upgrade(self):
        run("ploop", "-v-1", "upgrade", "-d", "ploop0")

    def close(self):
        node = os.path.realpath(self.work / "dev/ploop0p1")
        run("umount", str(self.mnt))
        clean = run("e2fsck", "-fn", node)
        run("ploop", "-v-1", "umount", "-d", "ploop0")
        run("ploop", "check", str(self.image))
        return clean


def start_fio(disk):
    return subprocess.Popen(
        ("fio", "--name=load", f"--filename={disk.mnt}/load", "--size=192m", "--rw=randwrite", "--bsrange=4k-256k",
         "--blockalign=4k", "--ioengine=io_uring", "--iodepth=16", "--direct=1", "--verify=crc32c", "--verify_fatal=1",
         "--verify_backlog=128", "--verify_backlog_batch=32", "--verify_state_save=0", "--randrepeat=0",
         "--loops=100000", "--fsync=64", "--output-format=json"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=os.setsid)


def torture(disk, acts, pause):
    """Returns the pauses in seconds."""
    probe = Probe(disk.mnt / "probe")
    fio = start_fio(disk)
    pauses = []
    probe.start()
    time.sleep(1)
    for act in acts:
        time.sleep(random.uniform(0, 2 * pause))
        began = time.monotonic()
        act()
        time.sleep(0.1)
        pauses.append((began, time.monotonic()))
        if fio.poll() is not None or probe.error:
            break
    time.sleep(0.5)
    early = fio.poll()
    fio.send_signal(signal.SIGINT)
    output, _ = fio.communicate(timeout=TIMEOUT)
    probe.over = True
    probe.join()
    os.close(probe.file)
    if probe.error:
        sys.exit(f"the file system gave an error: {probe.error}")
    report = json.loads(output[output.index("{"):output.rindex("}") + 1])["jobs"][0]
    if early is not None or report["error"]:
        sys.exit(f"fio failed: {output}")
    print(f"fio wrote {report['write']['io_kbytes'] // 1024} MiB, verified {report['read']['io_kbytes'] // 1024} MiB")
    return [probe.longest(*span) for span in pauses]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--upgrades", type=int, default=0)
    parser.add_argument("--front-end")
    parser.add_argument("--pause", type=float, default=0.5, help="between them, on average")
    parser.add_argument("--most-ms", type=float, default=0)
    parser.add_argument("--work", default="/var/tmp")
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    args = parser.parse_args()
    random.seed(args.seed)
    os.environ["PATH"] = f"{args.build.resolve()}:{os.environ['PATH']}"
    if os.geteuid() or not os.path.exists("/dev/fuse") or not shutil.which("fio"):
        print("skipped: needs root, /dev/fuse and fio")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="ploop-survive-", dir=args.work) as folder:
        disk = Disk(pathlib.Path(folder), args.front_end)
        acts = [disk.kill] * args.kills + [disk.upgrade] * args.upgrades
        random.shuffle(acts)
        try:
            pauses = torture(disk, acts, args.pause)
            disk.close()
        finally:
            subprocess.run(("umount", "-l", str(disk.mnt)), check=False, stderr=subprocess.DEVNULL)
            subprocess.run(("ploop", "-v-1", "umount", "--all"), check=False, timeout=TIMEOUT)
    pauses.sort()
    print(f"{args.kills} kills, {args.upgrades} upgrades, seed {args.seed}: longest pause {pauses[-1] * 1000:.0f} ms, "
          f"median {pauses[len(pauses) // 2] * 1000:.0f} ms")
    if args.most_ms and pauses[-1] * 1000 > args.most_ms:
        sys.exit(f"longer than {args.most_ms:.0f} ms")


if __name__ == "__main__":
    main()
