# SPDX-License-Identifier: LGPL-2.1-or-later
"""What depth costs: the same data in one image, and spread over the levels of a stack."""
import dataclasses

from measure import files, tools
from measure.cells import Cell, Subject, measure, report
from measure.files import MIB
from measure.scratch import call
from measure.sections import STRIDE, checked, counted, timed
from measure.tools import Work

GIB = 1 << 30
MOUNT_SIZE, MOUNT_SECONDS = 100 * GIB, 1


def _stack(plan, name, make):
    """The images of a stack, the base first: make(path, only), where only(v) chooses the level's clusters."""
    return [make(plan.scratch.path(f"{name}.{level}"), lambda v, level=level: v % plan.levels == level)
            for level in range(plan.levels)]


def _qcow2_chain(plan):
    """The same as a chain of qcow2 images with 1 MiB clusters; its top."""
    below = None
    for level in range(plan.levels):
        path = plan.scratch.path(f"d.{level}.qcow2")
        call("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=1M", path, plan.size)
        writes = [f"write -q -P 165 {v}M 1M" for v in range(level, plan.size // MIB, plan.levels)]
        call("qemu-io", "-f", "qcow2", *(word for write in writes for word in ("-c", write)), path)
        if below:
            call("qemu-img", "rebase", "-u", "-b", below, "-F", "qcow2", path)
        below = path
    return below


def _qcow2_one(plan):
    path = plan.scratch.path("d.qcow2")
    call("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=1M", path, plan.size)
    # A command of qemu-io takes less than 2 GiB.
    writes = [f"write -q -P 165 {at} {min(GIB, plan.size - at)}" for at in range(0, plan.size, GIB)]
    call("qemu-io", "-f", "qcow2", *(word for write in writes for word in ("-c", write)), path)
    return path


def _run(plan, title, subjects):
    cell = Cell("depth", title, subjects)
    measure(cell, plan.rounds, plan.seconds)
    return report(cell)


def _qemu(image, work, rate):
    return counted(work.depth, lambda n: tools.qemu(image, "qcow2", work, n), rate)


def _mount(plan):
    """Seconds until a disk of 100 GiB, all of it mapped, is there."""
    images = _stack(plan, "d.mount", lambda path, only: files.mapped(path, MOUNT_SIZE, only))

    def once():
        device = plan.ploop.mount(*images)
        return device.stop

    try:
        return timed(plan, once)
    finally:
        for path in images:
            path.unlink()


def _host(plan):
    """What the host itself makes of as many files, whoever reads them: no target."""
    one = files.raw(plan.scratch.path("d.raw"), plan.size)
    each = plan.size // plan.levels // MIB * MIB
    many = [files.raw(plan.scratch.path(f"d.raw.{level}"), each) for level in range(plan.levels)]
    work = Work(False, 32)
    yield _run(plan, "the host alone, 4 KiB random read, depth 32", [
        Subject(f"fio, {plan.levels} raw files", lambda s: tools.fio_many(many, work, each * plan.levels, s)),
        Subject("fio, one raw file", lambda s: tools.fio(one, work, plan.size, s))])
    for path in (one, *many):
        path.unlink()


def depth(plan):
    """g. One image against many."""
    yield from _host(plan)
    one = [files.written(plan.scratch.path("d.one"), plan.size)]
    stack = _stack(plan, "d", lambda path, only: files.written(path, plan.size, only=only))
    for queue in (32, 1):
        work = Work(False, queue)
        target = 0.95 if queue == 32 else None
        run = counted(queue, lambda n, w=work: tools.ploop(plan.ploop.program, stack, w, n))
        same = counted(queue, lambda n, w=work: tools.ploop(plan.ploop.program, one, w, n))
        yield _run(plan, f"in process, 4 KiB random read, depth {queue}",
                   [Subject(f"ploop bench, {plan.levels} deltas", run), Subject("ploop bench, one delta", same, target)])
    deep, flat = plan.ploop.mount(*stack), plan.ploop.mount(*one)
    for queue in (32, 1):
        work = Work(False, queue)
        yield _run(plan, f"on the device, 4 KiB random read, depth {queue}", [
            Subject(f"ploop device, {plan.levels} deltas", lambda s, w=work: tools.fio_device(deep, w, plan.size, s)),
            Subject("ploop device, one delta", lambda s, w=work: tools.fio_device(flat, w, plan.size, s), 0.95)])
    deep.stop()
    flat.stop()
    for path in (*one, *stack):
        path.unlink()
    work = dataclasses.replace(Work(False, 32), step=STRIDE)
    chain, alone = _qcow2_chain(plan), _qcow2_one(plan)
    yield _run(plan, "qcow2, 4 KiB strided read, depth 32", [
        Subject(f"qemu-img bench, chain of {plan.levels}", _qemu(chain, work, 100)),
        Subject("qemu-img bench, one image", _qemu(alone, work, 3e4))])
    yield checked("depth", f"mount of a 100 GiB disk of {plan.levels} deltas, all mapped", MOUNT_SECONDS, "s",
                  lambda: _mount(plan))


SECTIONS = {"depth": depth}
