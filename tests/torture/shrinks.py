# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills of ploopd while it makes an image shorter: the content stays, and the verb once more ends what was begun."""
import shutil
import subprocess

import disks
from disks import TOP, ploop, read_disk
from kills import Online, check_leftovers, device_of, end, let_go, pid_of, put, reached, sound


def shrinking_daemon(torture, case):
    """ploopd dies while it makes an image shorter: the content is the same, and the verb once more ends it."""
    life = Online(torture, case)
    short = (life.mount("peace") / life.old[TOP].file)
    ploop("-v-1", *life.words(short.parent))
    end(life.device, False)
    want = short.stat().st_size
    assert want < (life.origin / life.old[TOP].file).stat().st_size, f"{case.name}: it is as long as before"
    total = shrunk_once(life, 0, want)
    for n in torture.points(total):
        if shrunk_once(life, n, want) is not None:
            break
        torture.kills += 1
    return f"{torture.kills} kills, of {total} calls"


def shrunk_once(life, n, want):
    """Returns the number of calls of ploopd when it was not killed."""
    folder = life.mount(f"{life.case.name}-{n}")
    put(life.device, "before", 0)
    with subprocess.Popen([life.torture.killat, str(n), "-p", str(pid_of(life.device))], stderr=subprocess.PIPE,
                          text=True) as killer:
        assert killer.stderr.readline() == "ready\n"
        answer = ploop("-v-1", *life.words(folder), check=False)
        said = let_go(killer)
    where = f"{life.case.name}, {n}: {said}"
    assert said.startswith("killed") or answer.returncode == 0, f"{where}: exit status {answer.returncode}: {answer.stderr}"
    if ploop("umount", "-d", life.device, check=False).returncode:
        ploop("umount", "-d", life.device)
    check_leftovers(folder, read_disk(folder), where)
    life.check(folder, ("before",), where)
    life.device = device_of(life.torture, folder)
    put(life.device, "again", 1)
    ploop("-v-1", *life.words(folder))
    end(life.device, False)
    life.check(folder, ("before", "again"), where)
    sound(folder, where)
    # Both texts are in a cluster that the image in peace did not have.
    length = (folder / life.old[TOP].file).stat().st_size
    assert length <= want + disks.CLUSTER, f"{where}: {length} bytes long, in peace {want}"
    shutil.rmtree(folder)
    return None if said.startswith("killed") else reached(said)
