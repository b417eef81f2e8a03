#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Against qemu-img, which reads and writes the same format as "parallels": run-interop.py PLOOP. Speaks TAP.

Both must agree on what an image holds and that it is right: our good images, the broken ones after our repair, and qemu's.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "images"))
# pylint: disable=wrong-import-position
from cases import CASES  # noqa: E402
from image import IN_USE, view  # noqa: E402

# Takes qemu too long: it reads whole clusters.
NOT_FOR_QEMU = ("clusters of 128 MiB",)


class Wrong(Exception):
    pass


def run(*arguments):
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=120, check=False)


def must(*arguments):
    result = run(*arguments)
    if result.returncode:
        raise Wrong(f"{' '.join(map(str, arguments))}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def qemu_check(path, leaks=False):
    """It calls an extension, and an empty image whose index is longer than a cluster, leaks."""
    result = run("qemu-img", "check", "-f", "parallels", path)
    if result.returncode and not (result.returncode == 3 and (leaks or not any(view(path)))):
        raise Wrong(f"qemu-img check: {result.returncode}\n{result.stdout}{result.stderr}")


def same_content(path, raw, cluster):
    """qemu's reading of the image against the simple one of image.py, at the start of each cluster."""
    must("qemu-img", "convert", "-f", "parallels", "-O", "raw", path, raw)
    with open(raw, "rb") as f:
        for v, byte in enumerate(view(path)):
            f.seek(v * cluster)
            if (f.read(1) or b"\0") != bytes([byte]):
                raise Wrong(f"cluster {v} is not {byte} for qemu-img")


def good_case(ploop, case, folder):
    """A good image of ours."""
    path = folder / "image"
    image = case["make"]()
    image.write(path)
    qemu_check(path, leaks=image.header["extension"])
    same_content(path, folder / "raw", image.cluster * 512)
    must(ploop, "check", path)


def repaired_case(ploop, case, folder):
    """A broken image that we repaired."""
    path = folder / "image"
    image = case["make"]()
    image.write(path)
    old = view(path)
    must(ploop, "check", f"--repair={case['repair']}", path)
    qemu_check(path)
    if view(path) != old:
        raise Wrong("reads another way than before")
    same_content(path, folder / "raw", image.cluster * 512)


def qemu_image(ploop, cluster, size, folder):
    """An image of qemu's: clean for us; marked as in use; with entries that it calls broken."""
    path = folder / "image"
    must("qemu-img", "create", "-f", "parallels", "-o", f"cluster_size={cluster}", path, size)
    must("qemu-io", "-f", "parallels", "-c", "write -P 1 0 1M", "-c", "write -P 2 33M 100k", "-c", "write -P 3 63M 1M", path)
    must(ploop, "check", path)
    same_content(path, folder / "raw", cluster)
    with open(path, "r+b") as f:
        f.seek(44)
        f.write(IN_USE.to_bytes(4, "little"))
    result = run(ploop, "check", path)
    if result.returncode != 37:
        raise Wrong(f"in use: {result.returncode} {result.stderr}")
    must(ploop, "check", "-d", path)
    qemu_check(path)


def converted(ploop, folder):
    """A raw file through qemu-img convert."""
    raw, path, back = folder / "raw", folder / "image", folder / "back"
    with open(raw, "wb") as f:
        for at in (0, 5 << 20, (40 << 20) + 4096):
            f.seek(at)
            f.write(os.urandom(200000))
        f.truncate(50 << 20)
    must("qemu-img", "convert", "-f", "raw", "-O", "parallels", raw, path)
    must(ploop, "check", path)
    must(ploop, "check", "--repair=safe", path)
    must("qemu-img", "convert", "-f", "parallels", "-O", "raw", path, back)
    must("cmp", raw, back)


def plan(ploop):
    for case in CASES:
        if case["status"] == 0 and not case["found"] and not any(name in case["name"] for name in NOT_FOR_QEMU):
            yield f"good: {case['name']}", lambda folder, case=case: good_case(ploop, case, folder)
    for case in CASES:
        if case["repair"] in LEVELS and "extension" not in case["name"] and "signature" not in case["name"]:
            yield f"repaired: {case['name']}", lambda folder, case=case: repaired_case(ploop, case, folder)
    for cluster in (64 << 10, 1 << 20, 4 << 20):
        yield f"by qemu, {cluster}", lambda folder, cluster=cluster: qemu_image(ploop, cluster, "64M", folder)
    yield "by qemu-img convert", lambda folder: converted(ploop, folder)


LEVELS = ("leaks", "safe", "all")


def main():
    ploop = os.path.abspath(sys.argv[1])
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        print("1..0 # SKIP no qemu-img or qemu-io")
        return 0
    tests = list(plan(ploop))
    bad = 0
    print(f"1..{len(tests)}")
    for number, (name, test) in enumerate(tests, 1):
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ploop-interop-") as folder:
            try:
                test(pathlib.Path(folder))
                print(f"ok {number} - {name}", flush=True)
            except Wrong as wrong:
                bad += 1
                print(f"not ok {number} - {name}")
                print("\n".join(f"# {line}" for line in str(wrong).splitlines()), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
