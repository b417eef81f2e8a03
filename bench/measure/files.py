# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files that are measured on."""
import array
import mmap
import os
import random
import shutil
import struct

from measure.scratch import call

MIB = 1 << 20


def raw(path, size):
    """A file all of whose blocks have been written, so that no write changes where they are."""
    chunk = mmap.mmap(-1, 4 * MIB)
    chunk.write(random.Random(1).randbytes(len(chunk)))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o600)
    try:
        for at in range(0, size, len(chunk)):
            os.pwrite(fd, chunk, at)
        os.fsync(fd)
    finally:
        os.close(fd)
    return path


def parallels_of(source, path):
    """The same as a ploop1 image with 1 MiB clusters, all allocated."""
    call("qemu-img", "convert", "-S", "0", "-t", "none", "-T", "none", "-f", "raw", "-O", "parallels", source, path)
    return path


def empty(path, form, size):
    """A new image by qemu-img, in place of what was there."""
    path.unlink(missing_ok=True)
    call("qemu-img", "create", "-q", "-f", form, path, size)
    return path


def _index(path, size, index, in_use):
    """A new version 2 image with this index and room for what it names, all of it a hole."""
    data = -(-(64 + 4 * len(index)) // MIB)
    head = struct.pack("<16sIIIIIQIII", b"WithouFreSpacExt", 2, 16, 1024, MIB // 512, len(index), size // 512,
                       0x746F6E59 if in_use else 0, data * MIB // 512, 0)
    with open(path, "xb") as file:
        file.write(head.ljust(64, b"\0"))
        array.array("I", [data + entry if entry is not None else 0 for entry in index]).tofile(file)
        file.truncate((data + sum(entry is not None for entry in index)) * MIB)
        os.fsync(file.fileno())
    return data


def dirty(path, size, clusters):
    """An image that was not closed: `clusters` of 1 MiB mapped in random order, all of them holes."""
    order = list(range(clusters))
    random.Random(1).shuffle(order)
    _index(path, size, order + [None] * (size // MIB - clusters), True)
    return path


def mapped(path, size, only):
    """An image with 1 MiB clusters, of which those that only(v) chooses are mapped, to holes."""
    entries = iter(range(size // MIB))
    _index(path, size, [next(entries) if only(v) else None for v in range(size // MIB)], False)
    return path


def written(path, size, seed=None, only=None):
    """
    An image with 1 MiB clusters, of which those that only(v) chooses (all) are mapped and written, in order or, with a
    seed, in random order.
    """
    chosen = [v for v in range(size // MIB) if not only or only(v)]
    places = list(range(len(chosen)))
    if seed is not None:
        random.Random(seed).shuffle(places)
    index = [None] * (size // MIB)
    for v, place in zip(chosen, places):
        index[v] = place
    data = _index(path, size, index, False)
    chunk = mmap.mmap(-1, MIB)
    chunk.write(random.Random(1).randbytes(MIB))
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        for place in range(len(chosen)):
            os.pwrite(fd, chunk, (data + place) * MIB)
        os.fsync(fd)
    finally:
        os.close(fd)
    return path


def forget(path):
    """Nothing of it is in the host's cache any more."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def remember(path):
    """All of it is."""
    with open(path, "rb", buffering=0) as file:
        while file.read(4 * MIB):
            pass


def copy(source, path):
    shutil.copyfile(source, path)
    return path
