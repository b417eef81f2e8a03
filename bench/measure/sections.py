# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured: each section yields reports of cells or of checks."""
import dataclasses
import time

from measure import devices, files, tools
from measure.cells import Cell, Subject, check, measure, report
from measure.files import MIB
from measure.scratch import Hung, Problem
from measure.tools import Work

# From one request to the next in the comparison with qemu-img, which knows no random order: an odd number of blocks, so
# that every block of a disk comes up once.
STRIDE = 90001 * 4096


@dataclasses.dataclass
class Plan:
    scratch: object
    ploop: object    # devices.Ploop
    size: int        # bytes of the disks
    rounds: int
    seconds: float   # of one run
    first: int       # first writes of one run
    merge: int       # bytes of an image that is merged
    levels: int      # of a deep stack


def _name(write, random=True):
    return f"4 KiB {'random' if random else 'strided'} {'write' if write else 'read'}"


def counted(depth, run, guess=None):
    """For tools that take a count and no time: learns the rate from the run before."""
    rate = [guess or (3e4 if depth > 1 else 8e3)]

    def timed(seconds):
        sample = run(max(int(rate[0] * seconds), 50 if guess else 500))
        rate[0] = sample.rate
        return sample

    return timed


def _need(plan, *verbs):
    missing = [verb for verb in verbs if not plan.ploop.has(verb)]
    if missing:
        raise Problem(f"this build has no ploop {' or '.join(missing)}")


def in_process(plan):
    """a. The engine without a front end."""
    raw = files.raw(plan.scratch.path("a.raw"), plan.size)
    ours = files.parallels_of(raw, plan.scratch.path("a.ploop"))
    theirs = files.parallels_of(raw, plan.scratch.path("a.parallels"))
    for depth in (32, 1):
        for write in (False, True):
            work = Work(write, depth)
            yield _run(plan, "in process", f"{_name(write)}, depth {depth}", [
                _ploop(plan, ours, work),
                Subject("fio io_uring, raw file", lambda s, w=work: tools.fio(raw, w, plan.size, s),
                        0.95 if depth == 32 else None),
            ])
            work = Work(write, depth, step=STRIDE)
            yield _run(plan, "in process", f"{_name(write, False)}, depth {depth}", [
                _ploop(plan, ours, work),
                Subject("qemu-img bench, parallels",
                        counted(depth, lambda n, w=work: tools.qemu(theirs, "parallels", w, n)),
                        1.2 if depth == 32 else None),
            ])
    for path in (raw, ours, theirs):
        path.unlink()


def _run(plan, section, title, subjects):
    cell = Cell(section, title, subjects)
    measure(cell, plan.rounds, plan.seconds)
    return report(cell)


def _ploop(plan, image, work):
    return Subject("ploop bench", counted(work.depth, lambda n: tools.ploop(plan.ploop.program, image, work, n)))


def first_writes(plan):
    """b. 4 KiB each into a cluster of its own of a new image, 1 MiB apart."""
    count, size = plan.first, plan.first * MIB

    def fresh(form, run):
        def timed(_):
            image = files.empty(plan.scratch.path(f"b.{form}"), form, size)
            try:
                return run(image)
            finally:
                image.unlink()
        return timed

    for depth in (32, 1):
        work = Work(True, depth, step=MIB)

        def ours(image, work=work):
            return tools.ploop(plan.ploop.program, image, work, count, first=True)

        def peer(form, work=work):
            return fresh(form, lambda image: tools.qemu(image, form, work, count))

        yield _run(plan, "first writes", f"4 KiB into {count} new clusters, depth {depth}", [
            Subject("ploop bench", fresh("parallels", ours)),
            Subject("qemu-img bench, parallels", peer("parallels"), 1.0 if depth == 32 else None),
            Subject("qemu-img bench, qcow2", peer("qcow2"), 2.0 if depth == 32 else None),
        ])


def on_device(plan):
    """c and d. Through the kernel: our device, and the peers under the kernel's loop device."""
    raw = files.raw(plan.scratch.path("c.raw"), plan.size)
    made = {"loop device, raw file": devices.loop(plan.scratch, raw)}
    nbd = files.raw(plan.scratch.path("c.nbd"), plan.size)
    made["nbdkit + nbdfuse, raw file"] = devices.nbdkit(plan.scratch, nbd)
    qemu = files.parallels_of(raw, plan.scratch.path("c.parallels"))
    made["qemu-storage-daemon, parallels"] = devices.qemu_fuse(plan.scratch, qemu)
    ours, problem = None, None
    try:
        _need(plan, "mount")
        ours = plan.ploop.mount(files.parallels_of(raw, plan.scratch.path("c.ploop")))
    except Problem as reason:
        problem = str(reason)

    def cell(title, work, targets):
        subjects = [_on(plan, "ploop device", ours, work, problem=problem)]
        subjects += [_on(plan, name, made[name], work, *target) for name, target in targets.items()]
        return _run(plan, "on the device", title, subjects)

    names = list(made)
    # One at a time first: qemu-storage-daemon is sound as long as that.
    for depth in (1, 32):
        for write in (False, True):
            yield cell(f"{_name(write)}, depth {depth}", Work(write, depth),
                       {names[0]: (0.5,), names[1]: (1.0, True), names[2]: (1.0, True)})
    for write in (False, True):
        yield cell(f"1 MiB sequential {'write' if write else 'read'}, depth 8", Work(write, 8, size=MIB, step=MIB),
                   {names[0]: (0.8,), names[1]: (None,), names[2]: (None,)})


def _on(plan, name, device, work, target=None, above=False, problem=None):
    def run(seconds):
        try:
            return tools.fio_device(device, work, plan.size, seconds)
        except Hung:
            device.renew()
            return tools.fio_device(device, work, plan.size, seconds)

    return Subject(name, run, target, above, problem=problem)


def _resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise Problem(f"process {pid} has no VmHWM")


def timed(plan, function):
    """The median of a few runs: function() does the work and returns what undoes it."""
    taken = []
    for _ in range(min(plan.rounds, 3)):
        start = time.monotonic()
        undo = function()
        taken.append(time.monotonic() - start)
        undo()
    return sorted(taken)[len(taken) // 2]


def checked(section, title, limit, unit, function):
    """A number that function() tells."""
    try:
        return check(section, title, function(), limit, unit)
    except Problem as problem:
        return check(section, title, None, limit, unit, str(problem))


def large(plan):
    """e. What must stay quick on large disks."""
    resident = []

    def init():
        _need(plan, "init")
        folder = plan.scratch.path("e.init")

        def once():
            folder.mkdir()
            plan.ploop.call("init", "-s", "1T", folder / "root.hds")
            return lambda: [entry.unlink() for entry in folder.iterdir()] and folder.rmdir()

        return timed(plan, once)

    def mount(image):
        def once():
            device = plan.ploop.mount(image)
            resident.append(_resident_mib(device.servers[0]))
            return device.stop

        return once

    def mount_huge():
        _need(plan, "init", "mount")
        folder = plan.scratch.folder("e.huge")
        plan.ploop.call("init", "-s", "64T", "-t", "none", folder / "root.hds")
        return timed(plan, mount(folder / "root.hds"))

    def recover():
        _need(plan, "mount")

        def once():
            image = files.dirty(plan.scratch.path("e.dirty"), 1 << 40, 1000000)
            start = time.monotonic()
            undo = mount(image)()
            spent.append(time.monotonic() - start)
            return lambda: [undo(), image.unlink()]

        spent = []
        for _ in range(min(plan.rounds, 3)):
            once()()
        return sorted(spent)[len(spent) // 2]

    yield checked("large disks", "init -s 1T with ext4", 2, "s", init)
    yield checked("large disks", "mount of an empty 64 TiB disk", 1, "s", mount_huge)
    largest = max(resident, default=None)
    yield check("large disks", "resident memory of its ploopd, at most", largest, 100, "MiB",
                None if resident else "not mounted")
    yield checked("large disks", "mount of a 1 TiB image after a crash, 1 million clusters mapped", 2, "s", recover)


SECTIONS = {"process": in_process, "first": first_writes, "device": on_device, "large": large}
