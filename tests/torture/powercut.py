#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cuts the power of a virtual machine that writes to a ploop disk, and looks what is left of it.

The machine's disk is an nbdkit that keeps what is written in a cache of its own until a flush: killing both at once loses everything that
was not flushed, which a machine that is only killed does not, as the host has it. On that disk there is ext4, on it a ploop disk, mounted by the
front end that is tested, with ext4 inside, and there a program writes records (records.c): each is made durable, and then told to the
host. After the cut the host mounts what is left. Every record that was told must be there, and check must find nothing.

    powercut.py BUILD                             one cut with each front end
    powercut.py --count 20 --front-end nbd BUILD  20 cuts, in turn while nothing else happens, during snapshots, and during merges
    powercut.py --control BUILD                   one without flushes in the machine: what is told must not be there
"""
import argparse
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
VM = HERE.parent / "vm"
FRONT_ENDS = ("ublk", "nbd", "fuse")
MEANWHILE = {
    "plain": "sleep 1000",
    "snapshots": "while ploop snapshot DiskDescriptor.xml; do :; done",
    "merges": "while ploop snapshot DiskDescriptor.xml && ploop snapshot-merge DiskDescriptor.xml; do :; done",
}
GUEST = """
set -e
mkdir -p /run/cut /run/ploop /run/names /run/inside
if [ {control} = 1 ]; then echo "write through" >/sys/block/vdb/queue/write_cache; fi
mount -t ext4 /dev/vdb /run/cut
cd /run/cut
export PLOOP_RUN_DIR=/run/ploop PLOOP_DEV_DIR=/run/names
ploop mount --front-end {front_end} -m /run/inside DiskDescriptor.xml >/dev/null
( {meanwhile} ) >&2 &
exec {build}/tests/torture/records /run/inside/records
"""


class Failure(Exception):
    """What was found, in words."""


def run(*argv, **more):
    """A program on the host; its output when it fails."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    if done.returncode:
        raise Failure(f"{' '.join(map(str, argv))}: status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


class Told:
    """The records that the machine has told of."""

    def __init__(self, stream):
        self.count = 0
        self.other = []
        self.thread = threading.Thread(target=self.read, args=(stream,), daemon=True)
        self.thread.start()

    def read(self, stream):
        for line in stream:
            found = re.fullmatch(r"record (\d+)\n", line)
            if found:
                self.count = int(found.group(1)) + 1
            else:
                self.other.append(line.rstrip())


class Cut:
    """One machine, one cut."""

    def __init__(self, build, front_end, meanwhile, control=False):
        self.build = pathlib.Path(build).resolve()
        self.front_end, self.meanwhile, self.control = front_end, meanwhile, control
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="powercut.", dir="/var/tmp"))
        self.disk, self.socket = self.work / "disk", self.work / "socket"
        self.env = dict(os.environ, PATH=f"{self.build}:{os.environ['PATH']}", TMPDIR=str(self.work),
                        PLOOP_RUN_DIR=str(self.work / "run"), PLOOP_DEV_DIR=str(self.work / "dev"))
        for name in ("run", "dev", "made", "outside", "inside"):
            (self.work / name).mkdir()
        self.told = 0

    def make(self):
        """ext4 with a ploop disk on it, in a file."""
        run("ploop", "init", "-s", "300m", self.work / "made" / "disk.hds", env=self.env)
        with open(self.disk, "wb") as file:
            file.truncate(1 << 30)
        run("mkfs.ext4", "-q", "-F", "-d", self.work / "made", self.disk)

    def play(self, most):
        """Starts it, lets it write for a while, and cuts the power."""
        script = self.work / "guest"
        script.write_text(GUEST.format(control=int(self.control), front_end=self.front_end, build=self.build,
                                       meanwhile=MEANWHILE[self.meanwhile]))
        env = dict(self.env, VM_QEMU=f"-drive file=nbd+unix:///?socket={self.socket},format=raw,if=virtio,cache=none")
        with subprocess.Popen(["nbdkit", "-f", "-U", self.socket, "--filter=cache", "file", self.disk, "cache=writeback"],
                              env=self.env) as kit:
            try:
                self.machine(script, env, kit, most)
            finally:
                kit.kill()

    def machine(self, script, env, kit, most):
        deadline = time.monotonic() + 300
        while not self.socket.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with subprocess.Popen([VM / "vm-run", "-t", "600", "--", "bash", script], env=env, start_new_session=True, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(self.work / "errors", "w")) as vm:
            try:
                told = Told(vm.stdout)
                while told.count < 1 and vm.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                if vm.poll() is None and told.count:
                    time.sleep(random.uniform(0.5, most))
                alive = vm.poll() is None
                self.told = told.count
            finally:
                kit.kill()
                os.killpg(vm.pid, signal.SIGKILL)
        if not alive or not self.told:
            raise Failure("the machine did not write: " + (self.work / "errors").read_text().strip()[-2000:])

    def look(self):
        """What the host finds."""
        # `mount -o loop` would ask all other loop devices what they are, and wait for one whose server does not answer.
        loop = run("losetup", "--find", "--show", self.disk).strip()
        try:
            run("mount", loop, self.work / "outside")
            self.look_inside()
        finally:
            subprocess.run(["umount", self.work / "outside"], stderr=subprocess.DEVNULL, check=False)
            run("losetup", "--detach", loop)

    def look_inside(self):
        descriptor = self.work / "outside" / "DiskDescriptor.xml"
        run("ploop", "mount", "--front-end", "fuse", "-m", self.work / "inside", descriptor, env=self.env)
        try:
            run(self.build / "tests/torture/records", self.work / "inside" / "records", str(self.told))
        finally:
            run("ploop", "umount", "-m", self.work / "inside", env=self.env)
        run("ploop", "mount", "--front-end", "fuse", "-d", "ploop7", descriptor, env=self.env)
        try:
            run("e2fsck", "-fn", self.work / "dev" / "ploop7p1")
        finally:
            run("ploop", "umount", "-d", "ploop7", env=self.env)
        run("ploop", "check", descriptor, env=self.env)

    def __call__(self, most):
        try:
            self.make()
            self.play(most)
            self.look()
        finally:
            shutil.rmtree(self.work)


def one(cut, number, most):
    """One line of TAP. A control is good when something is missing."""
    name = f"{cut.front_end}, {cut.meanwhile}" + (", without flushes" if cut.control else "")
    start = time.monotonic()
    try:
        cut(most)
        good, why = True, ""
    except Failure as failure:
        good, why = False, str(failure)
    wrote = cut.told > 0
    if cut.control:
        good = wrote and not good
    print(f"{'ok' if good else 'not ok'} {number} - {name}: {cut.told} records told, {time.monotonic() - start:.0f} s")
    if why:
        print("# " + why.replace("\n", "\n# "))
    sys.stdout.flush()
    return good


def usable():
    """A reason why not, or nothing."""
    if os.geteuid():
        return "needs root"
    if not shutil.which("nbdkit"):
        return "no nbdkit"
    done = subprocess.run([VM / "vm-kernel"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no virtual machine"])[-1] if done.returncode else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1, help="cuts with each front end")
    parser.add_argument("--front-end", action="append", choices=FRONT_ENDS)
    parser.add_argument("--meanwhile", choices=MEANWHILE)
    parser.add_argument("--most", type=float, default=15, help="seconds of writing at most")
    parser.add_argument("--control", action="store_true", help="also one without flushes, which has to lose records")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("build")
    args = parser.parse_args()
    why = usable()
    if why:
        print(f"1..0 # SKIP {why}")
        return 0
    random.seed(args.seed)
    front_ends = args.front_end or FRONT_ENDS[:2]
    cuts = [(front_end, args.meanwhile or list(MEANWHILE)[(i + j) % len(MEANWHILE)], False)
            for i in range(args.count) for j, front_end in enumerate(front_ends)]
    if args.control:
        cuts.append((front_ends[0], "plain", True))
    print(f"# seed {args.seed}\n1..{len(cuts)}")
    sys.stdout.flush()
    results = [one(Cut(args.build, *cut), number, args.most) for number, cut in enumerate(cuts, 1)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
