# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies of a disk in use are killed: what has the final name is whole, the source stays what it is, and --resume goes on."""
import json
import os
import pathlib
import shutil
import subprocess
import time

import disks
from disks import TOP, ploop, read_disk
from kills import KILLED, Online, device_of, end, is_dead, let_go, pid_of, put, reached, sound, with_texts

MOMENTS = 50  # at which a copy is killed that is resumed
SIZE = 24 << 20


class Copy(Online):
    """The copy is made beside the images of the disk, or, of a whole disk, beside its folder."""

    def __init__(self, torture, case):
        # pylint: disable=super-init-not-called
        self.torture, self.case = torture, case
        self.origin = torture.prepare(case)
        self.old = self.new = read_disk(self.origin)
        self.device = None
        self.whole = "--all" in case.verb
        self.folder = self.target = None

    def mount(self, name):
        self.folder = super().mount(name)
        self.target = self.torture.work / f"{name}-copy" if self.whole else self.folder / "copy.hds"
        put(self.device, "before", 0)

    def words(self, _=None):
        return ["copy", "-s", self.device, "-d", str(self.target), *self.case.verb]

    def part(self):
        return self.target.with_name(self.target.name + ".ploop-part")

    def content(self):
        if self.whole:
            return read_disk(self.target)[TOP].content
        found = disks.clusters(self.target, disks.CLUSTER)
        count = self.old[TOP].size // disks.CLUSTER
        return b"".join(found.get(v, bytes(disks.CLUSTER)) for v in range(count))

    def is_whole(self, where, *texts):
        """Every byte of the copy. Sector by sector it may have what was written while it was made."""
        want = with_texts(self.old[TOP].content, *texts)
        content = self.content()
        assert content[:len(want)] == want and not any(content[len(want):]), f"{where}: the copy is another disk"
        if self.whole:
            for guid, snapshot in read_disk(self.target).items():
                assert guid == TOP or snapshot.content == self.old[guid].content, f"{where}: {guid} is another"
                path = self.target / snapshot.file
                result = disks.run("qemu-img", "check", "-q", "-f", "parallels", str(path), check=False)
                assert not result.returncode, f"{where}: qemu-img check {snapshot.file}: {result.stdout}"
        else:
            result = disks.run("qemu-img", "check", "-q", "-f", "parallels", str(self.target), check=False)
            assert not result.returncode, f"{where}: qemu-img check: {result.stdout}"

    def left(self, where):
        """After a kill, in the folder of the disk: what is left is named. A whole copy is no disk's, but that is its name."""
        listed = {os.path.basename(i["path"]) for i in json.loads(ploop("gc", "--json", str(self.folder)).stdout)["leftovers"]}
        found = disks.others(self.folder, read_disk(self.folder)) - {self.target.name}
        assert found == listed, f"{where}: left {found}, gc names {listed}"
        assert not (self.target.exists() and self.part().exists()), f"{where}: both names"

    def remove(self):
        for path in (self.target, self.part()):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def source_is(self, where, *texts):
        """The device is gone: what the disk holds now."""
        end(device_of(self.torture, self.folder), False)  # which closes what a kill left open
        disk = read_disk(self.folder)
        assert disk[TOP].content == with_texts(self.old[TOP].content, *texts), f"{where}: the source has changed"
        for guid, snapshot in disk.items():
            assert guid == TOP or snapshot.content == self.old[guid].content, f"{where}: {guid} has changed"
        sound(self.folder, where)

    def go_on(self, where, *texts):
        """By --resume; the same is there that would have been."""
        if not self.target.exists():
            result = ploop("-v-1", *self.words(), *(() if self.whole else ("--resume",)), check=False)
            assert result.returncode == 0, f"{where}: once more: {result.stderr}"
            self.is_whole(where, *texts)
        assert not self.part().exists(), f"{where}: the part is left"
        self.remove()


def is_idle(device):
    """Who follows the changes for a copy has seen that it is gone: a copy of others is possible."""
    deadline = time.monotonic() + 60
    while ploop("balloon", "status", "-d", device, check=False).stdout != "Current state of in-kernel maintenance: OFF\n":
        assert time.monotonic() < deadline, f"{device}: the copy is not over"
        time.sleep(0.01)


def copying(torture, case):
    """Who copies dies, at every call. The source is used meanwhile and afterwards."""
    life = Copy(torture, case)
    life.mount("count")
    total = reached(torture.kill(0, life.words()).stderr)
    end(life.device, False)
    life.remove()
    shutil.rmtree(life.folder)
    done = kills = 0
    for n in torture.points(total):
        life.mount(f"{case.name}-{n}")
        result = torture.kill(n, life.words())
        where = f"{case.name}, {result.stderr.strip()}"
        if life.target.exists():
            life.is_whole(where, "before")
            done += 1
        life.left(where)
        put(life.device, "after", 1)
        is_idle(life.device)
        if life.whole and life.part().exists():
            shutil.rmtree(life.part())
        life.go_on(where, "before", "after")
        end(life.device, n % 3 == 0)
        life.source_is(where, "before", "after")
        shutil.rmtree(life.folder)
        if result.returncode != KILLED:
            assert result.returncode == 0, f"{where}: exit status {result.returncode}"
            break
        kills += 1
    return f"{kills} kills, {done} of them after it was done"


def copy_once(life, n):
    """Returns the number of calls of the source's ploopd when it was not killed."""
    torture = life.torture
    life.mount(f"{life.case.name}-{n}")
    with subprocess.Popen([torture.killat, str(n), "-p", str(pid_of(life.device))], stderr=subprocess.PIPE,
                          text=True) as killer:
        assert killer.stderr.readline() == "ready\n"
        answer = ploop("-v-1", *life.words(), check=False)
        said = let_go(killer)
    where = f"{life.case.name}, {n}: {said}"
    assert life.target.exists() == (answer.returncode == 0), f"{where}: exit status {answer.returncode}: {answer.stderr}"
    if life.target.exists():
        life.is_whole(where, "before")
    life.left(where)
    if ploop("umount", "-d", life.device, check=False).returncode:
        ploop("umount", "-d", life.device)
    life.source_is(where, "before")
    life.device = device_of(torture, life.folder)
    put(life.device, "after", 1)
    life.go_on(where, "before", "after")
    end(life.device, False)
    life.source_is(where, "before", "after")
    shutil.rmtree(life.folder)
    return None if said.startswith("killed") else reached(said)


def copying_daemon(torture, case):
    """The ploopd of the source dies: it loses nothing."""
    life = Copy(torture, case)
    total = copy_once(life, 0)
    kills = 0
    for n in torture.points(total):
        if copy_once(life, n) is not None:
            break
        kills += 1
    torture.kills += kills
    return f"{kills} kills, of {total} calls"


# ---- Who goes on where it broke off ----

def children(pid):
    """All of them, the last first."""
    try:
        own = [int(c) for c in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        own = []
    return [c for child in own for c in [*children(child), child]]


def kill_after(process, seconds, receiver):
    """One half of a copy is killed, unless it ended before. True: it was."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        pass
    others = children(process.pid)  # of the command that we started
    if receiver:
        for pid in others:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
    else:
        process.kill()
    process.wait()
    while not all(is_dead(pid) for pid in others):
        time.sleep(0.001)
    return process.returncode != 0


class Resumed:
    """One disk that changes, and copies of it, each of which breaks off some times."""

    def __init__(self, torture):
        self.torture = torture
        self.random = torture.random
        self.target = torture.work / "copy.hds"
        folder = torture.work / "source"
        folder.mkdir()
        ploop("init", "-s", f"{SIZE >> 10}k", "-b", "128", "-t", "none", str(folder / "root.hds"))
        self.device = device_of(torture, folder)
        self.write(SIZE // 2)

    def write(self, length):
        at = self.random.randrange((SIZE - length) // 512) * 512
        fd = os.open(self.device, os.O_RDWR)
        os.pwrite(fd, self.random.randbytes(length), at)
        os.fsync(fd)
        os.close(fd)

    def words(self, rate=None):
        """In one process, or as two halves."""
        receiver = f"{disks.PLOOP} copy -d {self.target} --resume -f 1"
        way = ["--via", receiver] if rate or self.random.random() < 0.5 else ["-d", str(self.target)]
        return ["-v-1", "copy", "-s", self.device, "--resume", *way, *(["--rate", rate] if rate else [])]

    def kill_one(self):
        with subprocess.Popen([disks.PLOOP, *self.words("40m")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            return kill_after(process, self.random.random() * 0.5, self.random.random() < 0.5)

    def finish(self, where):
        """It may have its name already: then the last who was killed had nothing more to do."""
        is_idle(self.device)
        if not self.target.exists():
            result = ploop(*self.words(), check=False)
            assert result.returncode == 0, f"{where}: {result.stderr}"
        with open(self.device, "rb") as file:
            want = file.read()
        found = disks.clusters(self.target, disks.CLUSTER)
        have = b"".join(found.get(v, bytes(disks.CLUSTER)) for v in range(SIZE // disks.CLUSTER))
        assert want == have, f"{where}: the copy is another disk"
        left = list(self.torture.work.glob("*.ploop-part"))
        assert not left, f"{where}: left {left}"
        self.target.unlink()


def resumed(torture, case):
    """Sender or receiver die at random moments, while the disk changes between the tries. What comes out is the same image."""
    life = Resumed(torture)
    kills = images = tries = 0
    while kills < (MOMENTS if torture.every <= 1 else MOMENTS // 10):
        for _ in range(life.random.randint(1, 3)):
            tries += 1
            kills += life.kill_one()
            if life.target.exists():
                break
            is_idle(life.device)
            life.write(1 << 20)
        life.finish(f"{case.name}, after {kills} kills")
        images += 1
        assert tries < 20 * MOMENTS, f"{case.name}: {kills} kills in {tries} tries"
    end(life.device, False)
    torture.kills += kills
    return f"{kills} kills in {tries} tries, {images} images"
