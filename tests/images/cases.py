# SPDX-License-Identifier: LGPL-2.1-or-later
"""The corpus: good, foreign, odd and broken images, and what is to be said of each.

A case: its name, a function that makes the image, and what is expected:
    found    kinds of findings of `ploop check --json`
    status   of the check that writes nothing
    repair   the lowest level that makes it 0 (None: none does)
    opens    whether a disk of it can be read
"""
from image import BITMAP, CLOSED, CLOSED_V21, CONVERTING, EMPTY, IN_USE, NECESSARY, SECTOR, SIGNATURES, TRANSIT, Image

MAX32, MAX64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
CASES = []


def case(name, found=(), status=None, repair="none", opens=None):
    """status 0 where nothing is found; what has damage does not open unless said otherwise."""
    status = (11 if found else 0) if status is None else status
    opens = status != 11 if opens is None else opens

    def add(make):
        CASES.append({"name": name, "make": make, "found": set(found), "status": status, "repair": repair, "opens": opens})
        return make
    return add


def field(name, value, found, version=2, **expect):
    """A good image with one field of the header changed."""
    @case(f"v{version} {name} {value:#x}", found, **expect)
    def make():
        image = Image(version)
        image.header[name] = value
        return image


# Good images

for each in (1, 2):
    for size in (64, 128, 2048, 131072):
        case(f"good v{each}, clusters of {size} sectors")(lambda v=each, s=size: Image(v, s, 60, (0, 7, 59)))
    case(f"good v{each}, empty")(lambda v=each: Image(v, mapped=()))
    case(f"good v{each}, full")(lambda v=each: Image(v, mapped=range(100)))
    case(f"good v{each}, index of three clusters")(lambda v=each: Image(v, 64, 20000, (0, 8175, 8176, 16367, 16368, 19999)))


@case("good v2, CIF_Empty on an empty image")
def empty_flag():
    image = Image(mapped=())
    image.header["flags"] = EMPTY
    return image


@case("good v2, room for the index to grow")
def room():
    image = Image(2, 64, 60000, (0, 1))
    image.header["entries"], image.header["size"] = 100, 6400
    image.map = {0: 9, 99: 8}
    return image


@case("good v1, preallocated in order")
def preallocated():
    image = Image(1, mapped=())
    image.map = {v: v + 1 for v in range(100)}
    image.clusters = {k: b"\0" for k in image.map.values()}
    return image


@case("heads and cylinders are only hints")
def hints():
    image = Image()
    image.header["heads"], image.header["cylinders"] = MAX32, 0
    return image


# Foreign and odd images

@case("closed by software with extensions, without one")
def v21():
    image = Image()
    image.header["in_use"] = CLOSED_V21
    return image


@case("a tail of zeros, as qemu leaves it", ["tail"], status=0)
def qemu_tail():
    image = Image()
    image.length = image.end() + 128 * 1024 * 1024
    return image


@case("the disk ends inside its last cluster")
def half_cluster():
    image = Image()
    image.header["size"] -= 63
    return image


@case("the file ends inside its last cluster", ["length"], repair="safe", opens=True)
def half_file():
    image = Image()
    image.length = image.end() - 10000
    return image


@case("holes in the file")
def holes():
    image = Image()
    image.clusters = {k: b"\0" for k in image.clusters}
    image.length = image.end()
    image.clusters = {}
    return image


@case("more entries than the disk needs", ["entries"], status=0)
def more_entries():
    image = Image()
    image.header["size"] = 50 * 64
    del image.clusters[image.map.pop(99)]
    return image


@case("leaked clusters inside", ["leak"], status=0)
def leaked():
    image = Image(mapped=range(10))
    del image.map[3], image.map[4], image.map[7]  # their clusters stay
    return image


@case("legacy: clusters of 63 sectors, data after the index")
def legacy_63():
    image = Image(1, 63, 1000, (0, 500, 999))
    image.header["first"] = 0
    image.base = 8 - 63  # 64 + 4000 bytes of index are 8 sectors; the first file cluster is number 1
    return image


@case("legacy: clusters of 504 sectors, sector-aligned data")
def legacy_504():
    image = Image(1, 504, 100, (0, 50, 99))
    image.header["first"] = 100
    image.base = 100 - 504
    return image


@case("legacy: clusters of one sector")
def legacy_1():
    return Image(2, 1, 1000, (0, 500, 999))


@case("legacy: clusters of 128 MiB")
def legacy_big():
    image = Image(2, 262144, 4, ())
    image.map = {0: 1}
    image.length = 2 * 262144 * SECTOR
    return image


@case("legacy v1: the data shares a page with the index")
def legacy_shared_page():
    image = Image(1)
    image.header["first"] = 0
    image.base = 1 - 64
    return image


# Not closed

@case("in use", ["in-use"], status=37, repair="leaks")
def in_use():
    image = Image()
    image.header["in_use"] = IN_USE
    return image


for value in (1, 0x59, MAX32, IN_USE ^ 1):
    field("in_use", value, ["in-use"], status=37, repair="leaks")


@case("in use, CIF_Empty as a crash leaves it", ["in-use", "flags"], status=37, repair="leaks")
def crashed():
    image = Image()
    image.header["in_use"], image.header["flags"] = IN_USE, EMPTY
    return image


@case("in the middle of a change of the version", ["converting"], status=17, repair=None, opens=False)
def converting():
    image = Image()
    image.header["in_use"], image.header["flags"] = IN_USE, CONVERTING
    return image


# Every field of the header

for each in (1, 2):
    for value in (0, 1, 3, MAX32):
        field("type", value, ["header"], each, repair=None)
    for value in (0, 1, MAX32, 0x7FFFFFFF // 513 + 1):
        field("sectors", value, ["header"], each, repair=None)
    for value in (0, 99):
        field("entries", value, ["header"], each, repair=None)
    field("size", 0, ["header"], each, repair=None)
    field("size", 6401, ["header"], each, repair=None)
    field("first", 64 * 1000, ["data-offset"], each, repair="safe")
    field("flags", CONVERTING, ["flags"], each, status=0)
    field("flags", 0x80000000, ["flags"], each, status=0)
    field("flags", MAX32, ["flags"], each, status=0)
    field("flags", EMPTY, ["flags"], each, status=0)
    field("extension", MAX64, ["extension-stale"], each, status=0)
field("size", MAX64, ["header"], repair=None)
field("size", 1 << 55, ["header"], repair=None)
field("size", (1 << 32) + 6400, ["header"], repair=None)
field("size", (1 << 32) + 6400, ["size-field"], 1, status=0)
field("size", 1 << 32, ["header"], 1, repair=None)
field("entries", 0x40000000, ["header"], repair=None)
field("entries", 10000, ["header"], repair=None)
field("first", 0, ["data-offset"], repair="safe")
field("first", 1, ["data-offset"], repair="safe")
field("first", 65, ["data-offset"], repair="safe")
field("first", MAX32, ["data-offset"], repair="safe")


@case("no signature", ["header"], repair=None)
def no_signature():
    image = Image()
    image.header["signature"] = b"WithouFreSpacExT"
    return image


@case("signature of another version: entries between clusters", ["unaligned", "before-data", "tail"], repair="all")
def wrong_version():
    image = Image(2, mapped=(0, 1, 2, 5, 99) + tuple(range(10, 90)))
    image.header["signature"] = SIGNATURES[1]
    return image


@case("an empty file", ["header"], repair=None)
def empty_file():
    image = Image()
    image.length = 0
    return image


@case("a file of 63 bytes", ["header"], repair=None)
def cut_header():
    image = Image()
    image.length = 63
    return image


@case("the index is cut", ["short", "beyond-file"], repair="all")
def cut_index():
    image = Image(2, 64, 20000, (0, 1, 19999))
    image.length = 4096
    return image


@case("creation was cut", ["short"], repair="all")
def cut_creation():
    image = Image(2, 64, 20000, ())
    image.length = 4096
    return image


# The index

@case("garbage behind the index", ["padding"], repair="safe", opens=True)
def padding():
    image = Image()
    image.entries[100], image.entries[8175] = 3, MAX32
    return image


@case("v1 entry between clusters", ["unaligned"], repair="all")
def unaligned():
    image = Image(1)
    image.entries[7] = 64 * 3 + 1
    return image


for each in (1, 2):
    def index_case(name, found, entry, v=each, at=50, **expect):
        @case(f"v{v} {name}", found, **expect)
        def make():
            image = Image(v)
            image.entries[at] = entry if v == 2 else entry * 64 & MAX32
            return image

    index_case("entry behind the end of the file", ["beyond-file"], 6, repair="all")
    index_case("entry far behind the end of the file", ["beyond-file"], 0x3FFFFFF, repair="all")
    index_case("two entries for one cluster", ["duplicate"], 3, repair="safe", opens=True)


@case("v2 entry 0xffffffff", ["beyond-file"], repair="all")
def none_v2():
    image = Image()
    image.entries[50] = MAX32
    return image


@case("v1 entry 0xffffffff", ["beyond-file"], repair="all")
def none_v1():
    image = Image(1)
    image.entries[50] = MAX32
    return image


@case("v2 entry in the index", ["before-data"], repair="all")
def in_index_v2():
    image = Image(2, 64, 20000, (0, 1))
    image.entries[50] = 2
    return image


@case("v1 entry in the index", ["before-data"], repair="all")
def in_index_v1():
    image = Image(1)
    image.entries[50] = 2
    return image


@case("entry for a cluster that the disk does not have", ["entries", "beyond-disk", "leak"], repair="safe", opens=True)
def beyond_disk():
    image = Image()
    image.header["size"] = 50 * 64
    return image


@case("a hundred entries for one cluster", ["duplicate", "leak", "tail"], repair="safe", opens=True)
def many_duplicates():
    image = Image()
    image.entries = {v: 3 for v in range(100)}
    return image


@case("everything at once", ["in-use", "flags", "data-offset", "length", "padding", "beyond-file", "duplicate"], repair="all")
def wreck():
    image = Image()
    image.header |= {"in_use": IN_USE, "flags": EMPTY, "first": 1}
    image.entries = {60: 3, 61: 3, 62: 6, 63: 7, 105: 1}
    image.length = image.end() - 512
    return image


# Extensions

def extended(name, found=(), state=CLOSED_V21, **expect):
    def add(change):
        @case(f"extension: {name}", found, **expect)
        def make():
            image = Image()
            bits = max(image.clusters) + 1
            image.clusters[bits] = b"\x55"
            feature = [BITMAP, 0, image.bitmap(bits * 64)]
            change(image, feature)
            image.add_extension(feature, state=state)
            image.after()
            return image
        return change
    return add


@extended("a good bitmap")
def good_bitmap(image, feature):
    pass


@extended("a bitmap that must not be lost", ["extension-kept"], status=0)
def necessary(image, feature):
    feature[1] = NECESSARY


@extended("an unknown feature that is to be kept", ["extension-kept", "leak"], status=0)
def transit(image, feature):
    feature[:2] = 0x1234, TRANSIT


@extended("an unknown feature that may go", ["leak"], status=0)
def unknown(image, feature):
    feature[0] = 0x1234


@extended("closed by software without extensions", ["extension-stale", "tail"], state=CLOSED, status=0)
def stale(image, feature):
    pass


@extended("in use", ["in-use", "extension-stale"], state=IN_USE, status=37, repair="leaks")
def in_use_bitmap(image, feature):
    pass


@extended("bits where data is", ["bitmap", "leak"], repair="safe", opens=True)
def overlap(image, feature):
    feature[2] = image.bitmap(3 * 64)


@extended("bits behind the end of the file", ["bitmap", "leak"], repair="safe", opens=True)
def bits_beyond(image, feature):
    feature[2] = image.bitmap(300 * 64)


@extended("bits in the index", ["bitmap", "leak"], repair="safe", opens=True)
def bits_before(image, feature):
    feature[2] = image.bitmap(2)


@extended("bits at 2^63", ["bitmap", "leak"], repair="safe", opens=True)
def bits_overflow(image, feature):
    feature[2] = image.bitmap(1 << 63)


@extended("a bitmap of another size", ["bitmap", "leak"], repair="safe", opens=True)
def other_size(image, feature):
    feature[2] = image.bitmap(6 * 64, size=640)


@extended("granularity 0", ["bitmap", "leak"], repair="safe", opens=True)
def granularity(image, feature):
    feature[2] = image.bitmap(6 * 64, granularity=0)


@extended("a table that is too long", ["bitmap", "leak"], repair="safe", opens=True)
def long_table(image, feature):
    feature[2] = image.bitmap(6 * 64, 0, 0)


@extended("a wrong checksum", ["extension", "leak"], repair="all", opens=True)
def checksum(image, feature):
    image.after = lambda: image.pokes.update({7 * 64 * SECTOR + 100: b"x"})


@extended("a wrong magic number", ["extension", "leak"], repair="all", opens=True)
def magic(image, feature):
    image.after = lambda: image.pokes.update({7 * 64 * SECTOR: b"x"})


@extended("not at a cluster", ["extension", "tail"], repair="all", opens=True)
def misplaced(image, feature):
    image.after = lambda: image.header.update(extension=7 * 64 + 1)


@extended("at 2^64 - 1", ["extension", "tail"], repair="all", opens=True)
def far(image, feature):
    image.after = lambda: image.header.update(extension=MAX64)
