#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the corpus: run-images.py PLOOP. Speaks TAP.

Of every image: what check says of it; that looking at it writes nothing, and no repair below the level that is needed; that the
repair leaves it clean and the disk reading the same; that going back with the undo file gives the old metadata.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from cases import CASES
from image import view

LEVELS = ["none", "leaks", "safe", "all"]
HARMLESS = {"leak", "tail", "entries", "extension-kept"}  # what may be left when all is well


class Wrong(Exception):
    pass


def expect(what, got, wanted):
    if got != wanted:
        raise Wrong(f"{what}: {got!r}, not {wanted!r}")


def digest(path):
    """Contents and times of an image, by its data alone: some are very sparse."""
    status = os.stat(path)
    total = hashlib.sha256()
    with open(path, "rb") as f:
        end = 0
        while end < status.st_size:
            try:
                start = os.lseek(f.fileno(), end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(f.fileno(), start, os.SEEK_HOLE)
            f.seek(start)
            while start < end:
                piece = f.read(min(1 << 20, end - start))
                total.update(start.to_bytes(8, "little") + piece)
                start += len(piece)
    return total.hexdigest(), status.st_size, status.st_mtime_ns


class Corpus:
    def __init__(self, ploop, folder):
        self.ploop = ploop
        self.folder = pathlib.Path(folder)

    def run(self, *arguments):
        result = subprocess.run([self.ploop, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
        if result.returncode < 0 or "Sanitizer" in result.stderr or "runtime error" in result.stderr:
            raise Wrong(f"{' '.join(map(str, arguments))}: crash\n{result.stderr}")
        return result

    def check(self, path, *arguments):
        """Exit status and the report of the one image."""
        result = self.run("check", "--json", *arguments, path)
        if not result.stdout:
            raise Wrong(f"check {arguments}: {result.stderr}")
        report = json.loads(result.stdout)
        expect("status in the report", report["status"], result.returncode)
        return result.returncode, report["images"][0]

    def look(self, case, path):
        """Looking writes nothing, and no level below the right one does away with the damage."""
        before = digest(path)
        status, image = self.check(path)
        expect("found", set(image["found"]), case["found"])
        expect("status", status, case["status"])
        expect("changed", image["changed"], False)
        status, _ = self.check(path, "-r", "--repair=all")
        if status not in (case["status"], 7):
            raise Wrong(f"status of --repair=all -r: {status}")
        opens = self.run("map", path)
        expect("opens", opens.returncode == 0, case["opens"])
        if not case["opens"]:
            expect("one line of error", opens.stderr.count("\n"), 1)
        expect("digest after looking", digest(path), before)

    def cannot_repair(self, case, path):
        for level in LEVELS[1:]:
            status, image = self.check(path, f"--repair={level}")
            expect(f"status of --repair={level}", status, case["status"])

    def repair(self, case, path):
        old = view(path)
        undo = self.folder / "undo"
        needed = LEVELS.index(case["repair"])
        for level in LEVELS[1:needed]:
            status, _ = self.check(path, f"--repair={level}")
            expect(f"status of --repair={level}", status, case["status"])
        with open(path, "rb") as f:
            metadata = f.read(32768)
        status, _ = self.check(path, f"--repair={case['repair']}", f"--undo-file={undo}")
        expect("status of the repair", status, 0)
        expect("disk after the repair", view(path), old)
        self.run("check", "--undo", undo, path)
        with open(path, "rb") as f:
            if f.read(32768) != metadata:
                raise Wrong("header and index are not as they were after --undo")
        undo.unlink()
        self.check(path, f"--repair={case['repair']}")

    def finish(self, path):
        """Two runs do all that can be done; a third finds nothing to do."""
        old = view(path)
        self.check(path, "--repair=safe")
        self.check(path, "--repair=safe")
        before = digest(path)
        status, image = self.check(path, "--repair=safe")
        expect("status at the end", status, 0)
        expect("digest at the end", digest(path), before)
        if not set(image["found"]) <= HARMLESS:
            raise Wrong(f"left at the end: {image['found']}")
        if "extension-kept" not in image["found"] and {"leak", "tail"} & set(image["found"]):
            raise Wrong(f"space left at the end: {image['found']}")
        expect("disk at the end", view(path), old)

    def case(self, case):
        path = self.folder / "image"
        case["make"]().write(path)
        self.look(case, path)
        if case["repair"] is None:
            self.cannot_repair(case, path)
            return
        if case["repair"] != "none":
            self.repair(case, path)
        if "legacy" not in case["name"]:
            self.finish(path)


def run_case(ploop, case):
    """What is wrong, or None."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ploop-images-") as folder:
        try:
            Corpus(ploop, folder).case(case)
        except Wrong as wrong:
            return str(wrong)
    return None


def main():
    ploop = os.path.abspath(sys.argv[1])
    bad = 0
    print(f"1..{len(CASES)}")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda case: run_case(ploop, case), CASES)
        for number, (case, wrong) in enumerate(zip(CASES, results), 1):
            bad += wrong is not None
            print(f"{'not ' if wrong else ''}ok {number} - {case['name']}", flush=True)
            for line in (wrong or "").splitlines():
                print(f"# {line}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
