# SPDX-License-Identifier: LGPL-2.1-or-later
"""A folder for one run, and everything that must be undone when it ends, however it ends."""
import contextlib
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time


class Problem(Exception):
    """Something that a person must know; the text is one line."""


class Hung(Problem):
    """A device did not answer any more."""


def wait_for(what, test, seconds=20):
    """Polls until test() is true."""
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise Problem(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def call(*argv, env=None):
    """Runs a command to its end; returns its standard output."""
    argv = [str(arg) for arg in argv]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Problem(f"{' '.join(argv)}: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout


class Part:
    """A folder and a list of what to undo."""

    def __init__(self, folder, name="ploop-bench-"):
        self.stack = contextlib.ExitStack()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix=name, dir=folder))
        self.stack.callback(shutil.rmtree, self.root, ignore_errors=True)

    def close(self):
        self.stack.close()

    def part(self):
        """A part of this that may be closed earlier."""
        part = Part(self.root, "part-")
        self.undo(part.close)
        return part

    def path(self, name):
        return self.root / name

    def folder(self, name):
        path = self.root / name
        path.mkdir()
        return path

    def undo(self, function, *arguments):
        """Calls function(arguments) at the end, the last one first. A failure does not stop the others."""

        def guarded():
            with contextlib.suppress(Problem, OSError, subprocess.SubprocessError):
                function(*arguments)

        self.stack.callback(guarded)

    def spawn(self, *argv):
        """Starts a server in a session of its own, so that ^C reaches only this program."""
        log = self.path("servers.log").open("a")
        process = subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True)
        log.close()
        self.undo(_end, process)
        return process


class Scratch(Part):
    """`with Scratch(dir) as scratch:` and then scratch.undo(function, arguments) for all that has to go."""

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupted)
        return self

    def __exit__(self, *_):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.close()

    @staticmethod
    def _interrupted(number, _):
        raise SystemExit(128 + number)


def _end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
