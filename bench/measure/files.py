# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files that are measured on."""
import array
import mmap
import os
import random
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


def dirty(path, size, clusters):
    """A version 2 image that was not closed: `clusters` of 1 MiB mapped in random order, all of them holes."""
    entries = size // MIB
    data = -(-(64 + 4 * entries) // MIB)
    order = list(range(data, data + clusters))
    random.Random(1).shuffle(order)
    index = array.array("I", order + [0] * (entries - clusters))
    head = struct.pack("<16sIIIIIQIII", b"WithouFreSpacExt", 2, 16, 1024, MIB // 512, entries, size // 512, 0x746F6E59,
                       data * MIB // 512, 0)
    with open(path, "xb") as file:
        file.write(head.ljust(64, b"\0"))
        index.tofile(file)
        file.truncate((data + clusters) * MIB)
        os.fsync(file.fileno())
    return path
