# SPDX-License-Identifier: LGPL-2.1-or-later
"""CPU time of what is behind a device: server processes, and the kernel's workers, on which loop devices run."""
import contextlib
import os

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")


def process_us(pid):
    """User and system time of all threads of a process, those that have ended included."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US


def workers_us():
    """{pid: time on a CPU} of the kernel's worker threads."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                if not file.read().startswith("kworker/"):
                    continue
            with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
                found[pid] = int(file.read().split()[0]) / 1000
    return found


class Meter:
    """What they use from now until stop(). Workers of the whole machine count: it should be idle otherwise."""

    def __init__(self, pids):
        self.pids = pids
        self.processes = sum(map(process_us, pids))
        self.workers = workers_us()

    def stop(self):
        workers = workers_us()
        ours = sum(map(process_us, self.pids)) - self.processes
        return ours + sum(used - self.workers.get(pid, 0) for pid, used in workers.items())
