#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills `ploop resize` at system calls that change something, and the ploopd that works for it: run-resize.py BUILD. TAP.

After each kill the disk mounts as it is, with every file in it, and its image is in order. The same command then does what was
asked for, and leaves nothing behind. Without --every each system call of the client is taken; --every N takes one of N, and
--seed chooses which.
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

KILLED = 99
TIMEOUT = 60
FILES = 12


class Torture:
    def __init__(self, build, folder, fstype):
        self.ploop_path, self.killat = str(build / "ploop"), str(build / "tests/torture/killat")
        self.folder, self.fstype = folder, fstype
        self.disk, self.mount = folder / "disk", folder / "mnt"
        self.sums = {}
        for name in ("run", "dev", "mnt", "made"):
            (folder / name).mkdir()
        os.environ.update(PLOOP_RUN_DIR=str(folder / "run"), PLOOP_DEV_DIR=str(folder / "dev"))

    def ploop(self, *arguments, check=True):
        return subprocess.run((self.ploop_path, "-v-1", *map(str, arguments)), check=check, capture_output=True, text=True)

    def make(self, size):
        """The disk that every kill begins with."""
        self.ploop("init", "-s", size, "-t", self.fstype, self.folder / "made" / "disk.hds")
        self.ploop("mount", "-m", self.mount, self.folder / "made")
        for number in range(FILES):
            data = random.randbytes(random.randrange(1 << 19))
            (self.mount / f"f{number}").write_bytes(data)
            self.sums[f"f{number}"] = hashlib.sha256(data).hexdigest()
        self.ploop("umount", self.folder / "made")

    def fresh(self):
        shutil.rmtree(self.disk, ignore_errors=True)
        shutil.copytree(self.folder / "made", self.disk)

    def settle(self):
        """The ploopd of a client that died ends by itself; a dead one is cleared."""
        end = time.monotonic() + TIMEOUT
        while devices := json.loads(self.ploop("list", "--json").stdout)["devices"]:
            for device in devices:
                if device["state"] == "dead":
                    self.ploop("umount", "-d", device["device"], check=False)
            assert time.monotonic() < end, f"a device is left: {devices}"
            time.sleep(0.05)

    def check_files(self):
        self.ploop("mount", "-m", self.mount, self.disk)
        found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in self.mount.glob("f*")}
        self.ploop("umount", self.disk)
        assert found == self.sums, "files are not what they were"

    def check_sound(self):
        subprocess.run(("qemu-img", "check", "-q", "-f", "parallels", str(self.disk / "disk.hds")), check=True,
                       capture_output=True, text=True)
        self.ploop("mount", "-d", self.folder / "dev/ploop0", self.disk)
        command = ("e2fsck", "-fn") if self.fstype == "ext4" else ("xfs_repair", "-n")
        done = subprocess.run((*command, str(self.folder / "dev/ploop0p1")), check=False, capture_output=True, text=True)
        self.ploop("umount", self.disk)
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"

    def finish(self, size, sectors):
        """After a kill: nothing is lost, and the same command ends as if there had been none."""
        self.settle()
        self.check_files()
        self.ploop("resize", "-s", size, self.disk)
        assert f"size:\t\t{sectors}\n" in self.ploop("info", "-s", self.disk).stdout, "not the size that was asked for"
        left = [line for line in self.ploop("gc", self.disk).stdout.splitlines() if not line.startswith("lock")]
        assert not left, f"left over: {left}"
        self.check_files()
        self.check_sound()

    def count(self, size):
        self.fresh()
        done = subprocess.run((self.killat, "0", self.ploop_path, "-v-1", "resize", "-s", size, str(self.disk)),
                              check=True, capture_output=True, text=True)
        return int(re.search(r"^finished (\d+)", done.stderr, re.MULTILINE).group(1))

    def kill_client(self, size, sectors, number):
        self.fresh()
        done = subprocess.run((self.killat, str(number), self.ploop_path, "-v-1", "resize", "-s", size, str(self.disk)),
                              check=False, capture_output=True, text=True)
        assert done.returncode in (0, KILLED), f"status {done.returncode}: {done.stderr}"
        self.finish(size, sectors)

    def kill_daemon(self, size, sectors, seconds):
        """Kills ploopd so long after it came up. The client says that it failed, or had what it needed."""
        self.fresh()
        os.environ["PLOOPD_ALONE"] = "1"
        client = subprocess.Popen((self.ploop_path, "-v-1", "resize", "-s", size, str(self.disk)),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            while client.poll() is None:
                files = list((self.folder / "run").glob("ploop*/pid"))
                if files:
                    time.sleep(seconds)
                    try:
                        os.kill(int(files[0].read_text().split()[0]), signal.SIGKILL)
                    except (OSError, ValueError, IndexError):
                        pass
                    break
                time.sleep(0.001)
            client.communicate(timeout=TIMEOUT)
        finally:
            client.kill()
        self.finish(size, sectors)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--daemon", type=int, default=20, help="times that ploopd is killed")
    parser.add_argument("build", type=lambda path: pathlib.Path(path).resolve())
    return parser.parse_args()


def run_all(torture, size, sectors, args):
    total = torture.count(size)
    first = random.randrange(min(args.every, total)) + 1
    kills = 0
    for number in range(first, total + 1, args.every):
        try:
            torture.kill_client(size, sectors, number)
        except (AssertionError, subprocess.SubprocessError) as error:
            raise AssertionError(f"call {number} of {total}: {error} {getattr(error, 'stderr', '')}") from error
        kills += 1
    for _ in range(args.daemon):
        seconds = random.random() * 0.6
        try:
            torture.kill_daemon(size, sectors, seconds)
        except (AssertionError, subprocess.SubprocessError) as error:
            raise AssertionError(f"ploopd after {seconds} s: {error} {getattr(error, 'stderr', '')}") from error
    return f"{kills} of {total} calls, and ploopd {args.daemon} times"


CASES = (
    ("ext4 becomes smaller", "ext4", "160m", "100m", 204800),
    ("ext4 becomes larger", "ext4", "100m", "700m", 1433600),
    ("xfs becomes larger", "xfs", "320m", "700m", 1433600),
)


def main():
    args = arguments()
    random.seed(args.seed)
    failed = 0
    print(f"1..{len(CASES)}\n# --every {args.every} --daemon {args.daemon} --seed {args.seed}", flush=True)
    for number, (name, fstype, before, size, sectors) in enumerate(CASES, 1):
        tool = "resize2fs" if fstype == "ext4" else "mkfs.xfs"
        if os.geteuid() or not os.path.exists("/dev/fuse") or not shutil.which(tool) or not shutil.which("qemu-img"):
            print(f"ok {number} {name} # SKIP no devices, or no {tool}")
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ploop-resize-") as folder:
            torture = Torture(args.build, pathlib.Path(folder), fstype)
            try:
                torture.make(before)
                text = run_all(torture, size, sectors, args)
                print(f"ok {number} {name}: {text} ({time.monotonic() - start:.0f} s)", flush=True)
            except AssertionError as error:
                failed += 1
                print(f"not ok {number} {name}\n# " + str(error).replace("\n", "\n# "), flush=True)
            finally:
                subprocess.run(("umount", "-l", str(torture.mount)), check=False, capture_output=True)
                torture.ploop("umount", "--all", check=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
