# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a verb is killed at every system call that changes something, and what must be true then. The cases are in run-kills.py.

After each kill the disk is read by disks.py, which knows nothing but the format: it is the old disk or the new one, in every
snapshot, byte by byte. `ploop gc` names every file that is left over. The next verb settles what was interrupted, and then
nothing is left. The same verb once more ends what was begun.
"""
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import typing

import disks
from disks import KNOWN, NEW, NOBODY, OTHER, TOP, ploop, read_disk, run

KILLED = 99


@dataclasses.dataclass
class Case:
    name: str
    how: typing.Callable  # one of the functions below: who is killed, and what is in use meanwhile
    # Words of the command line, the folder of the disk left out: it comes last. Or a function that is given the folder and returns
    # all of them.
    verb: typing.Any
    again: typing.Optional[int] = 0  # exit status of the same verb on the new disk; None: that would be another change
    prepare: typing.Callable = disks.branches  # makes the disk in a folder that is not there yet
    # What is merged into: from the moment the descriptor calls such a snapshot temporary it may hold anything.
    spent: tuple = ()
    engine: bool = False  # moves data through the engine: it is run without io_uring too

    def words(self, folder):
        return list(self.verb(folder)) if callable(self.verb) else [*self.verb, str(folder)]


class Torture:
    """One run of one case: where, with what, and which of the kill points."""

    def __init__(self, build, work, every, seed, uring):
        self.work = work
        self.every = every
        self.random = random.Random(seed)
        self.killat = str(build / "tests/torture/killat")
        self.before = [] if uring else [str(build / "tests/torture/nouring")]
        self.kills = 0

    def ploop(self, *arguments, **more):
        return run(*self.before, disks.PLOOP, *arguments, **more)

    def kill(self, n, words):
        result = run(self.killat, str(n), *self.before, disks.PLOOP, "-v-1", *words, check=False)
        self.kills += result.returncode == KILLED
        return result

    def points(self, total):
        """All, until one is not reached; or some of `total`, and the end."""
        if self.every <= 1:
            yield from range(1, 100000)
        yield from range(1 + self.random.randrange(self.every), total + 1, self.every)
        yield 100000

    def copy(self, folder, name):
        copy = self.work / name
        shutil.copytree(folder, copy, symlinks=True)
        return copy

    def prepare(self, case):
        """Disks are made once for all cases."""
        origin = self.work / f"made-by-{case.prepare.__name__}"
        if not origin.exists():
            case.prepare(self.work / "making")
            (self.work / "making").rename(origin)
        return origin


def reached(result):
    return int(re.search(r"^(?:finished|let go) (\d+)", result, re.MULTILINE).group(1))


# ---- What must be true ----

def view(disk, without=()):
    """Without the names that are made up anew each time."""
    looks = {g: (s.content, s.size, s.temporary, s.form, s.file == OTHER) for g, s in disk.items()}
    known = {g: look for g, look in looks.items() if g in KNOWN and g not in without}
    return known, sorted(look for g, look in looks.items() if g not in KNOWN)


def same(disk, want, spent=()):
    without = {g for g in spent if g in disk and g in want and disk[g].temporary}
    return view(disk, without) == view(want, without)


def check_leftovers(folder, disk, where):
    listed = {os.path.basename(i["path"]) for i in json.loads(ploop("gc", "--json", str(folder)).stdout)["leftovers"]}
    left = disks.others(folder, disk)
    assert left == listed, f"{where}: left {left}, gc names {listed}"


def settle(folder, where, kept=()):
    """Any verb that takes the lock settles. What stays then is at most half of a small file, and what is always `kept`."""
    before = read_disk(folder)
    result = ploop("snapshot-delete", "-u", NOBODY, str(folder), check=False)
    assert result.returncode == 43, f"{where}: {result.stderr}"
    after = read_disk(folder)
    assert before == after, f"{where}: settling changed the disk"
    rest = disks.others(folder, after) - set(kept)
    assert all(name.endswith(".tmp") for name in rest), f"{where}: left after settling: {rest}"
    ploop("gc", "--remove", str(folder))
    left = disks.others(folder, after)
    assert not left, f"{where}: left after gc: {left}"


def sound(folder, where):
    """Nothing is wrong with any image, for others too."""
    for snapshot in read_disk(folder).values():
        path = folder / snapshot.file
        if disks.header(path):
            result = run("qemu-img", "check", "-q", "-f", "parallels", str(path), check=False)
            assert not result.returncode, f"{where}: qemu-img check {snapshot.file}: {result.stdout}{result.stderr}"


# ---- Offline: the verb does it all ----

class Offline:
    """The old disk, the new one, and the command between."""

    def __init__(self, torture, case):
        self.torture, self.case = torture, case
        self.origin = torture.prepare(case)
        self.old = read_disk(self.origin)
        self.verb = case.words(self.origin)
        ended = torture.copy(self.origin, "new")
        result = torture.kill(0, self.words(ended))
        assert result.returncode == 0, f"{case.name}: exit status {result.returncode}: {result.stderr}"
        self.total = reached(result.stderr)
        self.new = read_disk(ended)
        self.kept = disks.others(ended, self.new)  # merged files that only gc removes
        check_leftovers(ended, self.new, case.name)
        sound(ended, case.name)
        shutil.rmtree(ended)

    def words(self, folder):
        return [word.replace(str(self.origin), str(folder)) for word in self.verb]

    def state(self, folder, where):
        """"old", "new", or on the way between."""
        disk = read_disk(folder)
        if same(disk, self.new):
            return "new"
        assert same(disk, self.old, self.case.spent), f"{where}: neither the old nor the new disk"
        return "old" if same(disk, self.old) else "between"

    def finish(self, folder, state, where):
        """The verb once more: it goes on, or has nothing to do."""
        if state == "new" and self.case.again is None:
            return
        result = ploop("-v-1", *self.words(folder), check=False)
        want = self.case.again if state == "new" else 0
        assert result.returncode == want, f"{where}: once more gives {result.returncode}: {result.stderr}"
        assert state == "new" or self.state(folder, f"{where}, once more") == "new", f"{where}: ended, but not new"
        sound(folder, where)


def offline(torture, case):
    life = Offline(torture, case)
    counts = {"old": 0, "between": 0, "new": 0}
    for n in torture.points(life.total):
        folder = torture.copy(life.origin, f"{case.name}-{n}")
        result = torture.kill(n, life.words(folder))
        where = f"{case.name}, {result.stderr.strip()}"
        state = life.state(folder, where)
        check_leftovers(folder, read_disk(folder), where)
        if result.returncode != KILLED:
            assert result.returncode == 0 and state == "new", f"{where}: {state}, exit status {result.returncode}"
            shutil.rmtree(folder)
            break
        counts[state] += 1
        settle(folder, where, life.kept)
        life.finish(folder, state, where)
        shutil.rmtree(folder)
    assert torture.every > 1 or counts["old"] and counts["new"], f"{case.name}: {counts}"
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n)


def shrinking(torture, case):
    """The content is the same all the time, and the verb once more makes the image as short as it gets."""
    origin = torture.prepare(case)
    want = read_disk(origin)
    ended = torture.copy(origin, "new")
    result = torture.kill(0, case.words(ended))
    assert result.returncode == 0, f"{case.name}: exit status {result.returncode}: {result.stderr}"
    total, short = reached(result.stderr), (ended / want[TOP].file).stat().st_size
    assert short < (origin / want[TOP].file).stat().st_size, f"{case.name}: it is as long as before"
    shutil.rmtree(ended)
    kills = 0
    for n in torture.points(total):
        folder = torture.copy(origin, f"{case.name}-{n}")
        result = torture.kill(n, case.words(folder))
        where = f"{case.name}, {result.stderr.strip()}"
        assert read_disk(folder) == want, f"{where}: the disk has changed"
        again = ploop("-v-1", *case.words(folder), check=False)
        assert again.returncode == 0, f"{where}: once more gives {again.returncode}: {again.stderr}"
        assert read_disk(folder) == want, f"{where}: the disk has changed, once more"
        assert (folder / want[TOP].file).stat().st_size == short, f"{where}: not as short as in peace"
        sound(folder, where)
        shutil.rmtree(folder)
        if result.returncode != KILLED:
            break
        kills += 1
    return f"{kills} kills"


def renaming(torture, case):
    """A file gets the name of another one that holds the same: what it was called before is there, or not."""
    origin = torture.prepare(case)
    want = read_disk(origin)
    counts = {"old": 0, "new": 0}
    for n in torture.points(20):
        folder = torture.copy(origin, f"{case.name}-{n}")
        result = torture.kill(n, case.words(folder))
        where = f"{case.name}, {result.stderr.strip()}"
        state = "old" if (folder / OTHER).exists() else "new"
        assert read_disk(folder) == want, f"{where}: the disk has changed"
        check_leftovers(folder, want, where)
        if result.returncode != KILLED:
            assert result.returncode == 0 and state == "new", f"{where}: {state}, exit status {result.returncode}"
        elif state == "old":
            again = ploop("-v-1", *case.words(folder), check=False)
            assert again.returncode == 0, f"{where}: once more gives {again.returncode}: {again.stderr}"
        settle(folder, where)
        sound(folder, where)
        shutil.rmtree(folder)
        if result.returncode != KILLED:
            break
        counts[state] += 1
    assert torture.every > 1 or counts["old"], f"{case.name}: {counts}"
    return ", ".join(f"{n} {state}" for state, n in counts.items())


def recovery(torture, case):
    """Also who settles is killed, at every call, after every kill that left a journal."""
    life = Offline(torture, case)
    settling = ("snapshot-delete", "-u", NOBODY)
    journals = 0
    for n in torture.points(life.total):
        broken = torture.copy(life.origin, "broken")
        result = torture.kill(n, life.words(broken))
        if result.returncode != KILLED:
            break
        disk = read_disk(broken)
        journals += (broken / "DiskDescriptor.xml.journal").exists()
        for m in torture.points(12) if (broken / "DiskDescriptor.xml.journal").exists() else ():
            folder = torture.copy(broken, f"again-{m}")
            inner = torture.kill(m, [*settling, str(folder)])
            where = f"{case.name}, {result.stderr.strip()}, settling {inner.stderr.strip()}"
            assert read_disk(folder) == disk, f"{where}: settling changed the disk"
            check_leftovers(folder, disk, where)
            settle(folder, where, life.kept)
            shutil.rmtree(folder)
            if inner.returncode != KILLED:
                break
        shutil.rmtree(broken)
    return f"{journals} journals"


# ---- Online: a device uses the disk ----

def device_of(torture, folder, *options):
    text = torture.ploop("-v0", "mount", *options, str(folder)).stdout
    return re.search(r"^Adding delta dev=(\S+)", text, re.MULTILINE).group(1)


def put(device, text, sector):
    """Written and flushed."""
    fd = os.open(device, os.O_RDWR | os.O_SYNC)
    os.pwrite(fd, text.encode().ljust(512, b"."), sector * 512)
    os.fsync(fd)
    os.close(fd)


def with_texts(content, *texts):
    """Texts in sectors 0, 1, ..; None leaves what is there."""
    content = bytearray(content)
    for sector, text in enumerate(texts):
        if text:
            content[sector * 512:(sector + 1) * 512] = text.encode().ljust(512, b".")
    return bytes(content)


def pid_of(device):
    return int((pathlib.Path(os.environ["PLOOP_RUN_DIR"]) / os.path.basename(device) / "pid").read_text().split()[0])


def is_dead(pid):
    """Its sockets are closed only when all its threads are gone; the first may wait to be reaped for ever."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def end(device, hard):
    if hard:
        pid = pid_of(device)
        os.kill(pid, 9)
        while not is_dead(pid):
            pass
    ploop("umount", "-d", device)


def wait_for_merge(device):
    while json.loads(ploop("merge", "-d", device, "--status", "--json").stdout)["state"] in ("running", "paused"):
        pass


class Online(Offline):
    """The same with a device on it, to which `texts` were written before and after the moment of the kill."""

    def __init__(self, torture, case):
        super().__init__(torture, case)
        self.device = None

    def mount(self, name):
        folder = self.torture.copy(self.origin, name)
        self.device = device_of(self.torture, folder)
        return folder

    def is_new(self, disk):
        """By the names of its snapshots, by its size, and by the image that took the place of another one."""
        found, old, new = (({g for g in d if g in KNOWN}, d[TOP].size, OTHER in {s.file for s in d.values()})
                           for d in (disk, self.old, self.new))
        return found == new != old

    def check(self, folder, texts, where):
        """The old disk with the texts, or the new one. Returns which."""
        disk = read_disk(folder)
        is_new = self.is_new(disk)
        want = self.new if is_new else self.old
        assert disk[TOP].content == with_texts(want[TOP].content, *texts), f"{where}: lost what was flushed"
        if NEW in disk:  # a new snapshot has what was there before, and perhaps what was written meanwhile
            at = [text if with_texts(disk[NEW].content, *texts[:n], text) == disk[NEW].content else None
                  for n, text in enumerate(texts)]
            assert at[0] and disk[NEW].content == with_texts(self.old[TOP].content, *at), f"{where}: not what was there"
        # What others do to the disk adds snapshots with names of their own.
        changed = {g: s for g, s in disk.items() if g in KNOWN and g not in (TOP, NEW)}
        for guid, snapshot in changed.items():
            if not snapshot.temporary or guid not in self.case.spent:
                assert snapshot.content == want[guid].content, f"{where}: {guid} has changed"
        return is_new


def client(torture, case):
    """The one who asked dies, the device lives."""
    life = Online(torture, case)
    device_total = torture.copy(life.origin, "count")
    device = device_of(torture, device_total)
    total = reached(torture.kill(0, life.words(device_total)).stderr)
    end(device, False)
    shutil.rmtree(device_total)
    done = kills = 0
    for n in torture.points(total):
        folder = life.mount(f"{case.name}-{n}")
        put(life.device, "before", 0)
        result = torture.kill(n, life.words(folder))
        where = f"{case.name}, {result.stderr.strip()}"
        put(life.device, "after", 1)
        check_leftovers(folder, read_disk(folder), where)
        # Every other time the next verb comes while the device still runs, and every third time that dies.
        later = "later" if n % 2 else None
        if later:
            wait_for_merge(life.device)
            ploop("snapshot", str(folder))
            put(life.device, "later", 2)
        end(life.device, n % 3 == 0)
        settle(folder, where, life.kept)
        done += life.check(folder, ("before", "after", later), where)
        end(device_of(torture, folder), False)  # which closes what a kill left open
        sound(folder, where)
        shutil.rmtree(folder)
        if result.returncode != KILLED:
            assert result.returncode == 0, f"{where}: exit status {result.returncode}"
            break
        kills += 1
    return f"{kills} kills, {done} of them after it was done"


def mounted_disk(torture):
    folder, mount = torture.work / "fs", torture.work / "mnt"
    folder.mkdir()
    mount.mkdir()
    ploop("init", "-s", "32m", str(folder / "root.hds"))
    return folder, mount, device_of(torture, folder, "-m", str(mount))


def stopped(torture, case):
    """The client stops and does not go on: the watchdog thaws, and later the client ends as if nothing had been."""
    folder, mount, device = mounted_disk(torture)
    os.environ["PLOOPD_ALONE"] = "1"  # nobody takes over
    os.environ["PLOOP_FREEZE_SECONDS"] = "1"
    stops = 0
    try:
        for n in torture.points(27):
            (mount / "file").write_text(f"{n}")
            with subprocess.Popen([torture.killat, str(n), "-s", disks.PLOOP, "-v-1", *case.words(folder)], stderr=subprocess.PIPE,
                                  text=True) as killer:
                said = killer.stderr.readline()
                where = f"{case.name}, {n}: {said.strip()}"
                if said.startswith("stopped"):
                    run("timeout", "60", "sh", "-c", f"echo {n} >{mount}/after && sync -f {mount}/after")
                    pid = int(said.split()[1])
                    os.kill(pid, 18)
                    while not is_dead(pid):
                        pass
                    stops += 1
            run("timeout", "60", "sh", "-c", f"echo {n} >{mount}/after && sync -f {mount}/after")
            if not said.startswith("stopped"):
                break
        assert said.startswith("finished") and killer.returncode == 0, f"{where}: exit status {killer.returncode}"
    finally:
        del os.environ["PLOOP_FREEZE_SECONDS"]
        ploop("umount", "-d", device)
    return f"{stops} stops"


def frozen(torture, case):
    """With a mounted file system: it goes on, wherever the client died."""
    folder, mount, device = mounted_disk(torture)
    kills = 0
    try:
        for n in torture.points(27):
            (mount / "file").write_text(f"{n}")
            result = torture.kill(n, case.words(folder))
            where = f"{case.name}, {result.stderr.strip()}"
            run("timeout", "30", "sh", "-c", f"echo {n} >{mount}/after && sync -f {mount}/after")
            if result.returncode != KILLED:
                break
            kills += 1
        assert result.returncode == 0, f"{where}: exit status {result.returncode}: {result.stderr}"
    finally:
        ploop("umount", "-d", device)
    return f"{kills} kills"


def let_go(killer):
    """Ends the killer, and says what it did: it may have killed just when it was to let go."""
    killer.terminate()
    said = killer.stderr.read().strip()
    killer.wait()
    return said


def daemon(torture, case):
    """ploopd dies in the middle of it."""
    life = Online(torture, case)
    done = kills = total = 0
    for n in [0, *torture.points(0)] if torture.every <= 1 else [0]:
        total, is_new = daemon_once(life, n)
        kills, done = kills + (n > 0 and total is None), done + is_new
        if n and total is not None:
            break
    for n in torture.points(total) if torture.every > 1 else ():
        left, is_new = daemon_once(life, n)
        kills, done = kills + (left is None), done + is_new
    torture.kills += kills
    return f"{kills} kills, {done} of them after it was done"


def daemon_once(life, n):
    """Returns the number of calls when ploopd was not killed, else None; and whether it was done."""
    torture, case = life.torture, life.case
    folder = life.mount(f"{case.name}-{n}")
    put(life.device, "before", 0)
    with subprocess.Popen([torture.killat, str(n), "-p", str(pid_of(life.device))], stderr=subprocess.PIPE,
                          text=True) as killer:
        assert killer.stderr.readline() == "ready\n"
        answer = ploop("-v-1", *life.words(folder), check=False)
        said = let_go(killer)
    where = f"{case.name}, {n}: {said}"
    # It may have been killed just when it was to be let go, and die while it is asked to end.
    if ploop("umount", "-d", life.device, check=False).returncode:
        ploop("umount", "-d", life.device)
    check_leftovers(folder, read_disk(folder), where)
    is_new = life.check(folder, ("before",), where)
    assert is_new or answer.returncode, f"{where}: said to be done, and is not"
    settle(folder, where, life.kept)
    # It can be used, and what was begun can be ended, online and offline.
    life.device = device_of(torture, folder)
    put(life.device, "again", 1)
    # A mount merges temporary snapshots that nobody owns, and what a merge has begun with is one.
    tidied = not is_new and life.check(folder, ("before", "again"), where)
    if n % 2:
        end(life.device, False)
    if not tidied and (not is_new or case.again is not None):
        status = ploop("-v-1", *life.words(folder), check=False).returncode
        assert status == (case.again if is_new else 0), f"{where}: once more gives {status}"
    if not n % 2:
        end(life.device, False)
    assert life.check(folder, ("before", "again"), where), f"{where}: ended, but not new"
    sound(folder, where)
    shutil.rmtree(folder)
    return (None if said.startswith("killed") else reached(said)), is_new
