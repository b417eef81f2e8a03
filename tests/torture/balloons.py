# SPDX-License-Identifier: LGPL-2.1-or-later
"""What gives space of a mounted file system back to the host is killed: files stay, and who goes on gets the same result."""
import pathlib
import shutil
import subprocess

import disks
from disks import ploop, read_disk, run, top_of
from kills import KILLED, check_leftovers, device_of, end, let_go, pid_of, reached, sound

SLACK = 12 << 20  # of an image: files go where there is room; 24 MiB were in it


class Balloon:
    """A disk with a file system that is mounted, and what the verb makes of it when nobody is killed."""

    def __init__(self, torture, case):
        self.torture, self.case = torture, case
        self.origin = torture.prepare(case)
        self.mnt = torture.work / "mnt"
        self.mnt.mkdir(exist_ok=True)
        self.folder = self.device = self.length = None
        self.files = {}
        self.mount("count")
        self.files = self.read_files()
        result = torture.kill(0, self.words())
        assert result.returncode == 0, f"{case.name}: exit status {result.returncode}: {result.stderr}"
        self.total = reached(result.stderr)
        self.said = self.show()
        self.unmount(case.name)
        self.length = top_of(self.folder).stat().st_size
        shutil.rmtree(self.folder)

    def words(self):
        return self.case.words(self.folder)

    def mount(self, name):
        self.folder = self.torture.copy(self.origin, name)
        self.mount_again()

    def mount_again(self):
        self.device = device_of(self.torture, self.folder, "-m", str(self.mnt))

    def read_files(self):
        return {p.name: p.read_bytes() for p in self.mnt.glob("file*")}

    def show(self):
        return ploop("balloon", "show", str(self.folder)).stdout

    def write(self, name, where):
        run("timeout", "60", "sh", "-c", f"echo {name} >{self.mnt}/after && sync -f {self.mnt}/after")
        assert self.read_files() == self.files, f"{where}: files have changed"

    def finish(self, number, where):
        """Each of the ways to go on ends with the same result."""
        ploop("balloon", "status", str(self.folder))
        ploop("balloon", ("complete", "repair")[number % 2], str(self.folder))
        ploop("-v-1", *self.words())
        ploop("balloon", "repair", str(self.folder))
        assert self.show() == self.said, f"{where}: {self.show()} instead of {self.said}"
        covered = ploop("balloon", "check", str(self.folder)).stdout
        assert covered == "No free blocks found\n", f"{where}: {covered}"
        self.write("again", where)

    def unmount(self, where):
        """Image and file system are sound, and nothing is left over."""
        ploop("umount", str(self.folder))
        left = disks.others(self.folder, read_disk(self.folder))
        assert not left, f"{where}: left {left}"
        sound(self.folder, where)
        length = top_of(self.folder).stat().st_size
        assert length <= (self.length or length) + SLACK, f"{where}: the image is {length} bytes long, and was {self.length}"
        device = device_of(self.torture, self.folder)
        result = subprocess.run(["e2fsck", "-fn", device + "p1"], capture_output=True, text=True, check=False)
        end(device, False)
        assert result.returncode == 0, f"{where}: e2fsck: {result.stdout}{result.stderr}"


def balloon(torture, case):
    """The one who asked dies; the device goes on, and so does who uses the files."""
    life = Balloon(torture, case)
    kills = 0
    for n in torture.points(life.total):
        life.mount(f"{case.name}-{n}")
        result = torture.kill(n, life.words())
        where = f"{case.name}, {result.stderr.strip()}"
        life.write(n, where)
        life.finish(n, where)
        life.unmount(where)
        shutil.rmtree(life.folder)
        if result.returncode != KILLED:
            assert result.returncode == 0, f"{where}: exit status {result.returncode}: {result.stderr}"
            break
        kills += 1
    return f"{kills} kills"


def balloon_once(life, n):
    """Returns the number of calls of ploopd when it was not killed."""
    life.mount(f"{life.case.name}-{n}")
    life.write("before", life.case.name)
    with subprocess.Popen([life.torture.killat, str(n), "-p", str(pid_of(life.device))], stderr=subprocess.PIPE,
                          text=True) as killer:
        assert killer.stderr.readline() == "ready\n"
        answer = ploop("-v-1", *life.words(), check=False)
        said = let_go(killer)
    where = f"{life.case.name}, {n}: {said}"
    if said.startswith("killed"):
        if ploop("umount", "-d", life.device, check=False).returncode:
            ploop("umount", "-d", life.device)
        check_leftovers(life.folder, read_disk(life.folder), where)
        life.mount_again()
        assert pathlib.Path(life.mnt / "after").read_text() == "before\n", f"{where}: lost what was synced"
    else:
        assert answer.returncode == 0, f"{where}: exit status {answer.returncode}: {answer.stderr}"
    life.write(n, where)
    life.finish(n, where)
    life.unmount(where)
    shutil.rmtree(life.folder)
    return None if said.startswith("killed") else reached(said)


def balloon_daemon(torture, case):
    """ploopd dies, and with it the device under the file system."""
    life = Balloon(torture, case)
    total = balloon_once(life, 0)
    kills = 0
    for n in torture.points(total):
        if balloon_once(life, n) is not None:
            break
        kills += 1
    torture.kills += kills
    return f"{kills} kills, of {total} calls"
