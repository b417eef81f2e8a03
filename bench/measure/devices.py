# SPDX-License-Identifier: LGPL-2.1-or-later
"""Block devices: ours, and those of the peers. All of them are up at the same time and measured in turn."""
import os
import pathlib
import re
import signal
import subprocess

from measure.scratch import Problem, call, wait_for


class Device:
    """
    A block device that `build(part)` sets up, with whatever it needs in that part of the scratch folder.
    build returns the node and the processes behind it.
    """

    def __init__(self, scratch, build):
        self.scratch = scratch
        self.build = build
        self._start()

    def _start(self):
        self.part = self.scratch.part()
        self.node, self.servers = self.build(self.part)

    def kill(self):
        """All that is in flight fails."""
        for pid in self.servers:
            os.kill(pid, signal.SIGKILL)

    def stop(self):
        self.part.close()

    def renew(self):
        """Sets it up again after kill()."""
        self.stop()
        self._start()


def _loop_gone(node):
    return not pathlib.Path("/sys/block", pathlib.Path(node).name, "loop/backing_file").exists()


def _loop_detach(node):
    call("losetup", "--detach", node)
    wait_for(f"{node} is detached", lambda: _loop_gone(node))


def _unmount(path):
    wait_for(f"{path} is unmounted", lambda: not subprocess.run(["umount", path], capture_output=True).returncode)


def _loop(part, path):
    node = call("losetup", "--find", "--show", "--direct-io=on", path).strip()
    part.undo(_loop_detach, node)
    if pathlib.Path("/sys/block", pathlib.Path(node).name, "loop/dio").read_text().strip() != "1":
        raise Problem(f"{node} does not use direct I/O on {path}")
    return node


def loop(scratch, path):
    """The kernel's loop device on a file, with direct I/O."""
    return Device(scratch, lambda part: (_loop(part, path), []))


def _ready(part, server, test):
    """Waits until a server does its work."""
    name = pathlib.Path(server.args[0]).name
    wait_for(name, lambda: test() or server.poll() is not None)
    if server.poll() is not None:
        said = part.path("servers.log").read_text().strip().splitlines()
        raise Problem(f"{name} did not start: {said[-1] if said else server.returncode}")


def qemu_fuse(scratch, image):
    """qemu-storage-daemon's FUSE export of a parallels image. It mounts over an existing file."""

    def build(part):
        point = part.path("disk")
        point.touch()
        server = part.spawn("qemu-storage-daemon",
                            "--blockdev", f"driver=file,node-name=file,filename={image},aio=io_uring,cache.direct=on",
                            "--blockdev", "driver=parallels,node-name=disk,file=file",
                            "--export", f"type=fuse,id=fuse,node-name=disk,mountpoint={point},writable=on")
        _ready(part, server, lambda: os.path.ismount(point))
        part.undo(_unmount, point)
        return _loop(part, point), [server.pid]

    return Device(scratch, build)


def nbdkit(scratch, image):
    """nbdkit's file plugin, seen as a file through nbdfuse. It has no direct I/O; this is the nearest."""

    def build(part):
        folder, socket = part.folder("mnt"), part.path("socket")
        server = part.spawn("nbdkit", "--foreground", "--unix", socket, "file", image, "cache=none", "fadvise=random")
        _ready(part, server, socket.exists)
        client = part.spawn("nbdfuse", folder / "disk", f"nbd+unix:///?socket={socket}")
        _ready(part, client, lambda: os.path.ismount(folder))
        part.undo(_unmount, folder)
        return _loop(part, folder / "disk"), [server.pid, client.pid]

    return Device(scratch, build)


class Xfs:
    """A file system that clones, on a loop device, which tells how much is written."""

    def __init__(self, scratch, size):
        self.part = scratch.part()
        image, self.mount = self.part.path("xfs"), self.part.folder("mnt")
        with open(image, "xb") as file:
            file.truncate(size)
        call("mkfs.xfs", "-q", "-m", "reflink=1", image)
        node = _loop(self.part, image)
        call("mount", node, self.mount)
        self.part.undo(_unmount, self.mount)
        self.stat = pathlib.Path("/sys/block", pathlib.Path(node).name, "stat")

    def written_mib(self):
        return int(self.stat.read_text().split()[6]) / 2048

    def stop(self):
        self.part.close()


class Ploop:
    """The ploop program of a build folder, with a run directory of its own."""

    def __init__(self, scratch, build):
        self.scratch = scratch
        self.program = pathlib.Path(build).resolve() / "ploop"
        if not os.access(self.program, os.X_OK):
            raise Problem(f"{self.program} is not there: run scripts/build, or name the build folder by --build")
        self.run = scratch.folder("run")
        self.env = {**os.environ, "PLOOP_RUN_DIR": str(self.run), "PLOOP_DEV_DIR": str(scratch.folder("dev"))}

    def has(self, verb):
        """Whether this build knows a verb."""
        return subprocess.run([self.program, "help", verb], capture_output=True, check=False).returncode == 0

    def call(self, *argv):
        return call(self.program, *argv, env=self.env)

    def mount(self, *images):
        """Attaches images, the base first, as a device; its part.device is what ploop calls it."""

        def build(part):
            said = self.call("mount", *images)
            found = re.search(r"dev=(\S+)", said)
            if not found:
                raise Problem(f"ploop mount {' '.join(map(str, images))} does not name its device: {said.strip()}")
            node = part.device = found[1]
            part.undo(self.call, "umount", "-d", node)
            pid = (self.run / pathlib.Path(node).name / "pid").read_text().split()[0]
            return os.path.realpath(node), [int(pid)]

        return Device(self.scratch, build)
