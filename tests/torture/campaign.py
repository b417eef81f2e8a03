#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots are taken, merged, deleted and switched at random while others write and verify, and ploopd is killed now and then.

    campaign.py [--seconds N] [--seed N] BUILD

Two disks, in turns. On one, `flushed` writes to the device and knows what must be there after a kill. On the other there is ext4, on
which fio writes and verifies, and files are written and synced whose sums are kept. Meanwhile verbs that change the disk run, two
at a time now and then, and some of them are killed. After each round the device is unmounted: then every snapshot whose content is
known is read and compared, `ploop check` and `qemu-img check` find nothing in any image, and verbs run offline, among
them snapshot-switch.
"""
import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROUND = 5  # seconds
BUSY = re.compile(r"in use|busy|merged|try again|is frozen|goes on|work")


class Finding(Exception):
    pass


class Disk:
    """A disk in a folder of its own, and what is known of its snapshots."""

    def __init__(self, campaign, name, fs, size):
        self.campaign = campaign
        self.folder = campaign.work / name
        self.folder.mkdir()
        self.mount_point = campaign.work / f"{name}.mnt" if fs else None
        self.device = None
        self.sums = {}  # of snapshots, by GUID
        campaign.ploop("init", "-s", size, "-b", "128", "-t", fs or "none", str(self.folder / "root.hds"))
        if fs:
            self.mount_point.mkdir()

    def mount(self, *options, where=None):
        words = ["-v0", "mount", *options]
        if where:
            words += ["-m", str(where)]
        text = self.campaign.ploop(*words, str(self.folder)).stdout
        return re.search(r"^Adding delta dev=(\S+)", text, re.MULTILINE).group(1)

    def start(self):
        self.device = self.mount(where=self.mount_point)
        self.campaign.note("mounted")

    def kill(self):
        pid = (pathlib.Path(os.environ["PLOOP_RUN_DIR"]) / os.path.basename(self.device) / "pid").read_text().split()[0]
        os.kill(int(pid), 9)
        self.campaign.note("ploopd killed")
        self.campaign.counts["kills of ploopd"] += 1

    def stop(self):
        # A verb that looks at the file system, or a frozen one, may hold it for a moment.
        for _ in range(50):
            result = self.campaign.ploop("umount", "-d", self.device, check=False)
            self.campaign.note(f"umount: {result.returncode} {result.stderr.strip()}")
            if result.returncode == 0:
                break
            time.sleep(0.2)
        else:
            raise Finding(f"umount: {result.stderr}")
        self.device = None

    def snapshots(self):
        return json.loads(self.campaign.ploop("snapshot-list", "--json", str(self.folder)).stdout)["snapshots"]

    def read(self, *options):
        """The sum of all that is on a snapshot, or on the top."""
        device = self.mount("-r", *options)
        digest = hashlib.sha256()
        with open(device, "rb", buffering=0) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        self.campaign.ploop("umount", "-d", device)
        return digest.hexdigest()


class Campaign:
    def __init__(self, args, work):
        self.work, self.build = work, args.build
        self.only = args.round
        self.random = random.Random(args.seed)
        self.end = time.monotonic() + args.seconds
        self.counts = collections.Counter()
        self.lock = threading.Lock()

    def note(self, text):
        """What happened, for who looks for the cause of a finding."""
        with self.lock, open(self.work / "log", "a", encoding="utf-8") as log:
            log.write(f"{time.monotonic():.3f} {text}\n")

    def ploop(self, *words, check=True, timeout=120):
        result = subprocess.run([str(self.build / "ploop"), *words], capture_output=True, text=True, timeout=timeout, check=False)
        if check and result.returncode:
            raise Finding(f"ploop {' '.join(words)}: exit status {result.returncode}: {result.stderr}")
        return result

    # ---- Verbs at random ----

    def draw(self, disk):
        """A command line for the disk as it is now, which may be another when it runs."""
        draw, folder = self.random, str(disk.folder)
        snapshots = disk.snapshots()
        names = [s["uuid"] for s in snapshots]
        below = [s["uuid"] for s in snapshots if not s["current"]] or names  # deleting the top is going back
        if len(names) < 4 or (len(names) < 12 and draw.random() < 0.4):
            return ["snapshot", folder]
        merges = [["snapshot-merge", "-u", draw.choice(names), folder], ["snapshot-merge", "-A", folder],
                  ["snapshot-delete", "-u", draw.choice(below), folder],
                  ["snapshot-merge", "-u", draw.choice(names), "-U", draw.choice(names), folder]]
        if disk.device:
            low = draw.randrange(len(names))
            merges.append(["merge", "-d", disk.device, "-l", f"{low}..{low + draw.randint(1, 3)}"])
        words = draw.choice(merges)
        return words + ["--rate", "30m"] if words[0] != "snapshot-delete" and draw.random() < 0.3 else words

    def do(self, words, disturbed):
        """Runs it, or kills it in the middle. What is refused must say why."""
        kill_after = self.random.random() * 0.2 if self.random.random() < 0.15 else None
        self.note(f"begins: {' '.join(words)}")
        with subprocess.Popen([str(self.build / "ploop"), "-v-1", *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              text=True) as verb:
            try:
                _, text = verb.communicate(timeout=kill_after or 120)
            except subprocess.TimeoutExpired:
                if kill_after is None:
                    raise Finding(f"{words} does not end") from None
                verb.kill()
                verb.communicate()
                self.note(f"killed: {' '.join(words)}")
                with self.lock:
                    self.counts["verbs killed"] += 1
                return
        self.note(f"status {verb.returncode}: {' '.join(words)}: {text.strip()}")
        with self.lock:
            self.counts[words[0] + (" refused" if verb.returncode else "")] += 1
        if (verb.returncode < 0 or not text and verb.returncode) and not disturbed.is_set():
            raise Finding(f"{words}: exit status {verb.returncode}, {text}")

    def meddle(self, disk, stop, disturbed, findings):
        while not stop.is_set():
            try:
                self.do(self.draw(disk), disturbed)
            except (Finding, subprocess.TimeoutExpired, json.JSONDecodeError) as finding:
                if not disturbed.is_set():
                    findings.append(finding)
            stop.wait(self.random.random() * 0.2)

    def with_meddlers(self, disk, work):
        """Calls work(disturbed) while one or two others change the disk. `disturbed`: ploopd is being killed."""
        stop, disturbed, findings = threading.Event(), threading.Event(), []
        meddlers = [threading.Thread(target=self.meddle, args=(disk, stop, disturbed, findings))
                    for _ in range(self.random.randint(1, 2))]
        for meddler in meddlers:
            meddler.start()
        try:
            work(disturbed)
        finally:
            stop.set()
            for meddler in meddlers:
                meddler.join()
        if findings:
            raise findings[0]

    # ---- Rounds ----

    def on_device(self, disk):
        """`flushed` on the whole device; ploopd dies once or twice, and comes again."""
        disk.start()
        command = [str(self.build / "tests/torture/flushed"), "-a", "-z", "-j", "8", "-t", "600", "-s", str(self.random.randrange(1 << 30)),
                   disk.device]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            self.hear(writer, "seed")
            for _ in range(self.random.randint(1, 2)):
                def killed(disturbed):
                    time.sleep(self.random.random() * ROUND)
                    disturbed.set()
                    disk.kill()
                    self.counts["operations"] += int(self.hear(writer, "stopped").split()[2])
                self.with_meddlers(disk, killed)
                disk.stop()
                if self.random.random() < 0.3:
                    self.do(self.draw(disk), threading.Event())
                disk.start()
                writer.stdin.write(disk.device + "\n")
                writer.stdin.flush()
                self.hear(writer, "verified")
                self.counts["verified after a kill"] += 1
            self.with_meddlers(disk, lambda _: time.sleep(self.random.random() * ROUND / 2))
            writer.kill()
        disk.stop()

    @staticmethod
    def hear(writer, word):
        line = writer.stdout.readline()
        if not line.startswith(word):
            raise Finding(f"flushed: {line}{writer.stdout.readline()}")
        return line

    def on_files(self, disk):
        """fio verifies what it writes. Nobody is killed but verbs."""
        disk.start()
        log = self.work / "fio.log"

        def fio(_):
            result = subprocess.run(
                ["fio", "--name=verify", f"--directory={disk.mount_point}", "--rw=randwrite", "--bssplit=4k/40:64k/40:256k/20", "--direct=1",
                 "--ioengine=libaio", "--iodepth=8", "--size=24m", "--numjobs=2", "--verify=crc32c", "--verify_backlog=128",
                 "--verify_fatal=1", "--verify_state_save=0", "--time_based", f"--runtime={ROUND}", f"--output={log}", f"--randseed={self.random.randrange(1 << 30)}"],
                check=False)
            if result.returncode:
                raise Finding(f"fio: {log.read_text()}")
            self.counts["fio runs verified"] += 1
        self.with_meddlers(disk, fio)
        disk.stop()

    def on_synced_files(self, disk):
        """Files are written and synced until ploopd dies: all are there, and the file system is sound once its journal is replayed."""
        disk.start()
        sums = {}

        def write(disturbed):
            end = time.monotonic() + self.random.random() * ROUND
            killer = threading.Timer(end - time.monotonic(), lambda: (disturbed.set(), disk.kill()))
            killer.start()
            try:
                for number in range(100000):
                    data = self.random.randbytes(self.random.randint(1, 300000))
                    with open(disk.mount_point / f"file{number % 60}", "wb") as file:
                        sums.pop(number % 60, None)
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                    sums[number % 60] = hashlib.sha256(data).digest()
            except OSError:
                pass
            killer.join()
        self.with_meddlers(disk, write)
        disk.stop()
        disk.start()
        for number, digest in sums.items():
            if hashlib.sha256((disk.mount_point / f"file{number}").read_bytes()).digest() != digest:
                raise Finding(f"file{number} is not what was synced")
        self.counts["synced files verified"] += len(sums)
        disk.stop()

    # ---- Between rounds: nobody uses the disk ----

    def check(self, disk):
        for snapshot in disk.snapshots():
            if snapshot["uuid"] in disk.sums and not snapshot.get("temporary") and self.random.random() < 0.4:
                if disk.read("-u", snapshot["uuid"]) != disk.sums[snapshot["uuid"]]:
                    raise Finding(f"snapshot {snapshot['uuid']} has changed")
                self.counts["snapshots compared"] += 1
            if pathlib.Path(snapshot["file"]).exists():
                result = subprocess.run(["qemu-img", "check", "-q", "-f", "parallels", snapshot["file"]], capture_output=True, text=True,
                                        check=False)
                if result.returncode:
                    raise Finding(f"qemu-img check {snapshot['file']}: {result.stdout}{result.stderr}")
                self.counts["images checked"] += 1
        result = self.ploop("check", str(disk.folder), check=False)
        if result.returncode:
            raise Finding(f"ploop check: exit status {result.returncode}: {result.stdout}{result.stderr}")
        if disk.mount_point:
            self.check_files(disk)

    def check_files(self, disk):
        device = disk.mount("-r")
        result = subprocess.run(["e2fsck", "-fn", device + "p1"], capture_output=True, text=True, check=False)
        self.ploop("umount", "-d", device)
        if result.returncode:
            raise Finding(f"e2fsck: {result.stdout}{result.stderr}")
        self.counts["file systems checked"] += 1

    def change_offline(self, disk):
        top = disk.read()
        result = self.ploop("-v-1", "snapshot", str(disk.folder), check=False)
        if result.returncode == 0:
            parent = next(s for s in disk.snapshots() if s["current"])["parent_uuid"]
            disk.sums[parent] = top
        for _ in range(self.random.randint(0, 3)):
            self.do(self.draw(disk), threading.Event())
        known = [s["uuid"] for s in disk.snapshots() if s["uuid"] in disk.sums and not s.get("temporary")]
        if known and self.random.random() < 0.6:
            uuid = self.random.choice(known)
            keep = ["-D"] if self.random.random() < 0.5 else []
            result = self.ploop("-v-1", "snapshot-switch", *keep, "-u", uuid, str(disk.folder), check=False)
            self.counts["snapshot-switch" + (" refused" if result.returncode else "")] += 1
            if result.returncode == 0 and disk.read() != disk.sums[uuid]:
                raise Finding(f"switched to {uuid}, and it is another")
        elif disk.read() != top:
            raise Finding("changes offline changed what is on the disk")
        self.ploop("gc", "--remove", str(disk.folder))

    def run(self):
        raw, files = Disk(self, "raw", None, "96m"), Disk(self, "files", "ext4", "160m")
        rounds = [(self.on_device, raw), (self.on_files, files), (self.on_synced_files, files)]
        while time.monotonic() < self.end:
            work, disk = rounds[self.counts["rounds"] % len(rounds) if self.only is None else self.only]
            self.note(f"round {self.counts['rounds']}: {work.__name__}")
            work(disk)
            self.check(disk)
            self.change_offline(disk)
            self.counts["rounds"] += 1


def clear(work):
    subprocess.run(["sh", "-c", f"grep ' {work}/' /proc/self/mountinfo | cut -d' ' -f5 | xargs -r umount -l"], check=False)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=18)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--keep", action="store_true", help="keep the disks of a finding")
    parser.add_argument("--round", type=int, choices=(0, 1, 2), help="only rounds of this kind")
    parser.add_argument("--folder", default="/var/tmp", help="where the disks are, for other file systems")
    parser.add_argument("build", type=lambda path: pathlib.Path(path).resolve())
    return parser.parse_args()


def main():
    args = arguments()
    needed = [p for p in ("fio", "qemu-img", "e2fsck") if not shutil.which(p)]
    if os.geteuid() or needed or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        print(f"not root, no devices, or no {needed}")
        return 77
    os.environ["PLOOPD_ALONE"] = "1"  # nobody takes over
    work = pathlib.Path(tempfile.mkdtemp(dir=args.folder, prefix="ploop-campaign-"))
    os.environ["PLOOP_RUN_DIR"], os.environ["PLOOP_DEV_DIR"] = str(work / "run"), str(work / "dev")
    (work / "dev").mkdir()
    campaign = Campaign(args, work)
    print(f"seed {args.seed}", flush=True)
    status = 0
    try:
        campaign.run()
    except (Finding, OSError, subprocess.TimeoutExpired) as finding:
        print(f"FINDING in round {campaign.counts['rounds']}: {finding}")
        status = 1
    print(", ".join(f"{n} {what}" for what, n in sorted(campaign.counts.items())), flush=True)
    clear(work)
    campaign.ploop("umount", "--all", check=False)
    if status and args.keep:
        print(f"kept: {work}")
    else:
        shutil.rmtree(work)
    return status


if __name__ == "__main__":
    sys.exit(main())
