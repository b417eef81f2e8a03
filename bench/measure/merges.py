# SPDX-License-Identifier: LGPL-2.1-or-later
"""Merges: the data of an upper image comes into a full base. The rates are MiB a second."""
import os
import time

from measure import devices, files
from measure.cells import Cell, Subject, check, measure, report
from measure.files import MIB
from measure.scratch import Problem, call
from measure.tools import Sample

XFS_SECONDS, XFS_MIB = 0.3, 16


class Stacks:
    """A full base and a full image over it, for each of the two, and what a merge has to find each time."""

    def __init__(self, plan):
        self.plan = plan
        self.size = plan.merge
        raw = files.raw(plan.scratch.path("m.raw"), self.size)
        self.base = files.parallels_of(raw, plan.scratch.path("m.base"))
        self.top = files.parallels_of(raw, plan.scratch.path("m.top"))
        self.qcow2 = plan.scratch.path("m.base.qcow2"), plan.scratch.path("m.top.qcow2")
        for path in self.qcow2:
            call("qemu-img", "convert", "-S", "0", "-t", "none", "-f", "raw", "-O", "qcow2", raw, path)
        call("qemu-img", "rebase", "-u", "-b", self.qcow2[0], "-F", "qcow2", self.qcow2[1])
        raw.unlink()

    def close(self):
        for path in (self.base, self.top, *self.qcow2):
            path.unlink(missing_ok=True)

    def timed(self, function, cached=()):
        """Runs it, with nothing of the files in the host's cache but `cached`. -> Sample"""
        for path in (self.base, self.top, *self.qcow2):
            files.forget(path)
        for path in cached:
            files.remember(path)
        start = time.monotonic()
        function()
        return Sample(self.size / MIB / (time.monotonic() - start), 0)

    def offline(self, cached=()):
        return self.timed(lambda: self.plan.ploop.call("merge", self.top, self.base), cached)

    def commit(self, *options, cached=()):
        return self.timed(lambda: call("qemu-img", "commit", "-q", "-d", *options, self.qcow2[1]), cached)

    def online(self, *above):
        """As a device: the upper image as the top, or with another above it."""
        # What is merged online is empty afterwards.
        top = files.copy(self.top, self.plan.scratch.path("m.online"))
        files.forget(top)
        device = self.plan.ploop.mount(self.base, top, *above)
        try:
            return self.timed(lambda: self.plan.ploop.call("merge", "-d", device.part.device, "-l", "0..1"))
        finally:
            device.stop()
            top.unlink()


def _run(plan, title, subjects):
    cell = Cell("merges", title, subjects)
    measure(cell, plan.rounds, 0)
    return report(cell)


def _on_xfs(plan, order):
    """Seconds, and MiB written to the file system's device."""
    with_xfs = devices.Xfs(plan.scratch, 3 * plan.merge + 512 * MIB)
    try:
        base = files.written(with_xfs.mount / "base", plan.merge, None)
        top = files.written(with_xfs.mount / "top", plan.merge, order)
        os.sync()
        before = with_xfs.written_mib()
        start = time.monotonic()
        plan.ploop.call("merge", top, base)
        seconds = time.monotonic() - start
        os.sync()
        return seconds, with_xfs.written_mib() - before
    finally:
        with_xfs.stop()


def _checked(title, plan, order):
    seconds = written = problem = None
    try:
        seconds, written = _on_xfs(plan, order)
    except Problem as reason:
        problem = str(reason)
    yield check("merges", f"on XFS, {title}", seconds, XFS_SECONDS, "s", problem)
    yield check("merges", f"on XFS, {title}: written", written, XFS_MIB, "MiB", problem)


def merges(plan):
    """f. Merge of a full image into a full base."""
    stacks = Stacks(plan)
    size = f"{plan.merge // MIB} MiB"
    warm = stacks.top, stacks.qcow2[1]
    empty = files.empty(plan.scratch.path("m.empty"), "parallels", plan.merge)
    yield _run(plan, f"{size}, nothing in the host's cache, MiB/s", [
        Subject("ploop merge", lambda _: stacks.offline()),
        Subject("qemu-img commit", lambda _: stacks.commit(), 1.5),
        Subject("qemu-img commit -t none", lambda _: stacks.commit("-t", "none"), 1.5),
    ])
    yield _run(plan, f"{size}, what is merged in the host's cache, MiB/s", [
        Subject("ploop merge", lambda _: stacks.offline(warm)),
        Subject("qemu-img commit", lambda _: stacks.commit(cached=warm), 1.0),
    ])
    for title, above in (("the top", ()), ("a level below the top", (empty,))):
        yield _run(plan, f"{size}, on a device, {title}, MiB/s", [
            Subject("ploop merge -d", lambda _, above=above: stacks.online(*above)),
            Subject("ploop merge", lambda _: stacks.offline(), 1 / 1.3),
        ])
    stacks.close()
    empty.unlink()
    yield from _checked("in order", plan, None)
    yield from _checked("in random order", plan, 1)


SECTIONS = {"merge": merges}
