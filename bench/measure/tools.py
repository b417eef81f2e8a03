# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs that make load. Each runs once and returns a Sample."""
import dataclasses
import json
import os
import re
import subprocess
import typing

from measure.cost import Meter
from measure.scratch import Hung, Problem, call

PATIENCE = 15  # seconds until something counts as hung


class Sample(typing.NamedTuple):
    rate: float  # I/Os a second
    cpu: float   # microseconds of CPU time an I/O, of everybody who takes part


@dataclasses.dataclass(frozen=True)
class Work:
    """What is asked of a disk. `step` is the distance from one request to the next; None is random."""

    write: bool
    depth: int
    size: int = 4096
    step: int | None = None


def _fio(path, work, span, seconds, stuck, *more):
    """Runs fio; returns what it says of its one job. stuck() is called when fio does not come back."""
    how = ("rand" if work.step is None else "") + ("write" if work.write else "read")
    # --thread: one process, so that killing it ends it all.
    argv = ["fio", "--thread", "--name=bench", *more, f"--filename={path}", f"--rw={how}", f"--bs={work.size}",
            f"--iodepth={work.depth}", f"--size={span}", "--direct=1", "--ioengine=io_uring", "--norandommap",
            "--time_based", f"--runtime={seconds * 1000:.0f}ms", "--allow_file_create=0", "--output-format=json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            out, _ = process.communicate(timeout=seconds + PATIENCE)
        except subprocess.TimeoutExpired:
            # Its I/O has to fail first, or it cannot even be killed.
            stuck()
            process.kill()
            raise Hung(f"{path} did not answer for {PATIENCE} s") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise Problem(f"fio on {path}: {out.strip().splitlines()[0]}")
    return json.loads(out[out.index("{"):])["jobs"][0]


def _fio_sample(job, work, behind):
    side = job["write" if work.write else "read"]
    own = (job["usr_cpu"] + job["sys_cpu"]) / 100 * side["runtime"] * 1000
    return Sample(side["iops"], (own + behind) / max(side["total_ios"], 1))


def fio(path, work, span, seconds):
    """fio by time on the first `span` bytes of a file."""
    return _fio_sample(_fio(path, work, span, seconds, lambda: None), work, 0)


def fio_many(paths, work, span, seconds):
    """The same on many files of one folder as if they were one: each request goes to any of them."""
    job = _fio(":".join(path.name for path in paths), work, span, seconds, lambda: None, f"--directory={paths[0].parent}",
               "--file_service_type=random:1")
    return _fio_sample(job, work, 0)


def fio_device(device, work, span, seconds):
    """The same on a device; counts the CPU time of its servers and of the kernel's workers too."""
    meter = Meter(device.servers)
    job = _fio(device.node, work, span, seconds, device.kill)
    return _fio_sample(job, work, meter.stop())


def _qemu(path, form, work, count):
    """Runs qemu-img bench; returns its seconds and its CPU time in microseconds."""
    argv = ["qemu-img", "bench", "-f", form, "-t", "none", "-i", "io_uring", "-c", str(count), "-d", str(work.depth),
            "-s", str(work.size), "-S", str(work.step)]
    if work.write:
        argv += ["-w", "--pattern=165"]
    with subprocess.Popen([*argv, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = process.stdout.read()
        except BaseException:
            process.kill()
            raise
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    found = re.search(r"Run completed in ([0-9.]+) seconds", said)
    if process.returncode or not found:
        raise Problem(f"{' '.join(argv)} {path}: {said.strip()}")
    return float(found[1]), (usage.ru_utime + usage.ru_stime) * 1e6


def qemu(path, form, work, count):
    """qemu-img bench. What it needs to start and to end is taken off its CPU time, as far as it can be told."""
    seconds, cpu = _qemu(path, form, work, count)
    idle = _qemu(path, form, dataclasses.replace(work, write=False), 1)[1]
    return Sample(count / seconds, max(cpu - idle, 0) / count)


def ploop(program, images, work, count, first=False):
    """ploop bench of an image, or of a list of them, the base first."""
    argv = [program, "bench", "--json", "-c", count, "-d", work.depth, "-s", work.size]
    if first:
        argv += ["--first-write"]
    elif work.step is None:
        argv += ["--random"]
    else:
        argv += ["-S", work.step]
    if work.write and not first:
        argv += ["-w"]
    result = json.loads(call(*argv, *(images if isinstance(images, list) else [images])))
    return Sample(result["requests"] * 1e9 / result["wall_ns"], result["cpu_ns"] / 1000 / result["requests"])
