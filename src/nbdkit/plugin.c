/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * plugin.c - a plugin of nbdkit: a disk or a snapshot for whoever speaks NBD, without root and without a device.
 *
 * One disk for all connections, open from before the first to after the last. The parallel thread model: each of nbdkit's threads
 * blocks for the request that it carries (lib/shared.h). Sectors are the smallest unit, which clients are told; a read of any
 * other range is served all the same, a write is refused.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "format/format.h"
#include "lib/shared.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define PREFERRED 4096u
#define MAXIMUM (32u * 1024 * 1024)
#define IMAGES_MAX 127

/* nbdkit has no place of its own for what a plugin has been told. */
static struct {
	char *disks[IMAGES_MAX];
	struct ploop_files files;
	char *snapshot, *format;
	int read_only; /* -1: not told */
	struct shared *shared;
} self = { .read_only = -1 };

/* nbdkit counts in errno; anything that NBD has no word for becomes EIO there. */
static int fail(int r)
{
	nbdkit_set_error(r == -EDQUOT ? ENOSPC : -r);
	return -1;
}

static void unload(void)
{
	for (unsigned i = 0; i < self.files.npaths; i++)
		free(self.disks[i]);
	free(self.snapshot);
	free(self.format);
}

static int config_disk(const char *value)
{
	if (self.files.npaths == IMAGES_MAX) {
		nbdkit_error("at most %d images", IMAGES_MAX);
		return -1;
	}
	self.disks[self.files.npaths] = nbdkit_realpath(value);
	if (!self.disks[self.files.npaths])
		return -1;
	self.files.npaths++;
	return 0;
}

static int config_text(char **text, const char *value)
{
	free(*text);
	*text = strdup(value);
	if (*text)
		return 0;
	nbdkit_error("no memory");
	return -1;
}

/* With or without braces. */
static int config_snapshot(const char *value)
{
	char text[64];

	snprintf(text, sizeof(text), *value == '{' ? "%s" : "{%s}", value);
	return config_text(&self.snapshot, text);
}

static int config_flag(bool *flag, const char *value)
{
	int r = nbdkit_parse_bool(value);

	*flag = r > 0;
	return r < 0 ? -1 : 0;
}

static int config(const char *key, const char *value)
{
	bool flag;
	uint32_t sectors;

	if (!strcmp(key, "disk"))
		return config_disk(value);
	if (!strcmp(key, "snapshot"))
		return config_snapshot(value);
	if (!strcmp(key, "format"))
		return config_text(&self.format, value);
	if (!strcmp(key, "outside"))
		return config_flag(&self.files.outside, value);
	if (!strcmp(key, "readonly")) {
		int r = config_flag(&flag, value);

		if (r == 0)
			self.read_only = flag;
		return r;
	}
	if (!strcmp(key, "blocksize")) {
		if (nbdkit_parse_uint32_t("blocksize", value, &sectors) < 0 || sectors > UINT32_MAX / SECTOR)
			return -1;
		self.files.cluster = sectors * SECTOR;
		return 0;
	}
	nbdkit_error("unknown parameter '%s'", key);
	return -1;
}

static int config_complete(void)
{
	if (self.files.npaths)
		return 0;
	nbdkit_error("which disk? Say disk=DiskDescriptor.xml, or disk=IMAGE for each image, base first");
	return -1;
}

/* Before nbdkit goes into the background, so that whoever started it sees what is wrong. */
static int get_ready(void)
{
	struct ploop_error err;

	self.files.paths = (const char *const *)self.disks;
	self.files.snapshot = self.snapshot;
	self.files.format = self.format;
	if (self.read_only < 0)
		self.read_only = self.snapshot != NULL;
	if (shared_open(&self.files, !self.read_only, &self.shared, &err) < 0) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	return 0;
}

static void cleanup(void)
{
	struct ploop_error err;

	if (self.shared && shared_close(self.shared, &err) < 0)
		nbdkit_error("%s", err.text);
	self.shared = NULL;
}

static void *plugin_open(int readonly)
{
	(void)readonly; /* nbdkit refuses writes then */
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t get_size(void *handle)
{
	(void)handle;
	return (int64_t)shared_size(self.shared);
}

static int can_write(void *handle)
{
	(void)handle;
	return !self.read_only;
}

static int yes(void *handle)
{
	(void)handle;
	return 1;
}

static int can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

/* nbdkit reads what is to be cached: the pages are the host's. */
static int can_cache(void *handle)
{
	(void)handle;
	return NBDKIT_CACHE_EMULATE;
}

static int can_fast_zero(void *handle)
{
	(void)handle;
	return shared_zeroes_fast(self.shared);
}

static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = SECTOR;
	*preferred = PREFERRED;
	*maximum = MAXIMUM;
	return 0;
}

static int change(enum device_kind kind, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
	int r;

	if ((count | offset) % SECTOR) {
		nbdkit_error("a change of %u bytes at byte %llu is not of whole sectors", count,
			     (unsigned long long)offset);
		return fail(-EINVAL);
	}
	if (!count)
		return 0;
	r = shared_request(self.shared, kind, flags & NBDKIT_FLAG_FUA ? DEVICE_FUA : 0, buffer, count, offset);
	return r < 0 ? fail(r) : 0;
}

/* Of any range, by way of the sectors around it. */
static int read_odd(void *buffer, uint32_t count, uint64_t offset)
{
	uint64_t start = round_down(offset, SECTOR), end = round_up(offset + count, SECTOR);
	_free_ char *around = malloc(end - start);
	int r = around ? shared_request(self.shared, DEVICE_READ, 0, around, end - start, start) : -ENOMEM;

	if (r < 0)
		return fail(r);
	memcpy(buffer, around + (offset - start), count);
	return 0;
}

static int plugin_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
	int r;

	(void)handle;
	(void)flags;
	if ((count | offset) % SECTOR)
		return read_odd(buffer, count, offset);
	r = shared_request(self.shared, DEVICE_READ, 0, buffer, count, offset);
	return r < 0 ? fail(r) : 0;
}

static int plugin_pwrite(void *handle, const void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	return change(DEVICE_WRITE, (void *)buffer, count, offset, flags);
}

static int plugin_flush(void *handle, uint32_t flags)
{
	int r = shared_request(self.shared, DEVICE_FLUSH, 0, NULL, 0, 0);

	(void)handle;
	(void)flags;
	return r < 0 ? fail(r) : 0;
}

/* Only a hint: what is not of whole sectors stays. */
static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	uint64_t start = round_up(offset, SECTOR), end = round_down(offset + count, SECTOR);

	(void)handle;
	if (start >= end)
		return flags & NBDKIT_FLAG_FUA ? plugin_flush(handle, 0) : 0;
	return change(DEVICE_DISCARD, NULL, (uint32_t)(end - start), start, flags);
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	/* Whoever wants the room to stay taken gets zeros written. */
	if (!(flags & NBDKIT_FLAG_MAY_TRIM) && !(flags & NBDKIT_FLAG_FAST_ZERO)) {
		nbdkit_set_error(EOPNOTSUPP);
		return -1;
	}
	return change(DEVICE_WRITE_ZEROES, NULL, count, offset, flags);
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
	uint64_t end = offset + count;

	(void)handle;
	while (offset < end) {
		uint64_t length;
		bool hole;
		int r = shared_extent(self.shared, offset, end - offset, &length, &hole);

		if (r < 0)
			return fail(r);
		if (nbdkit_add_extent(extents, offset, length, hole ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0) < 0)
			return -1;
		if (flags & NBDKIT_FLAG_REQ_ONE)
			return 0;
		offset += length;
	}
	return 0;
}

static void dump_plugin(void)
{
	printf("ploop_version=%s\n", ploop_version());
}

static struct nbdkit_plugin plugin = {
	.name = "ploop",
	.longname = "ploop disks",
	.version = PLOOP_VERSION,
	.description = "a disk of ploop, or one of its snapshots",
	.unload = unload,
	.config = config,
	.config_complete = config_complete,
	.config_help = "disk=PATH         (required) a DiskDescriptor.xml, or its folder, or an image;\n"
		       "                  once for each image, base first\n"
		       "snapshot=UUID     this snapshot instead of the disk as it is now\n"
		       "readonly=BOOL     write to no file (false; true for a snapshot)\n"
		       "format=raw|ploop1 of a base without descriptor\n"
		       "blocksize=SECTORS cluster size of a raw base without descriptor\n"
		       "outside=BOOL      follow the descriptor to files outside its folder",
	.magic_config_key = "disk",
	.dump_plugin = dump_plugin,
	.get_ready = get_ready,
	.cleanup = cleanup,
	.open = plugin_open,
	.get_size = get_size,
	.block_size = block_size,
	.can_write = can_write,
	.can_flush = yes,
	.can_trim = can_write,
	.can_zero = can_write,
	.can_fast_zero = can_fast_zero,
	.can_fua = can_fua,
	.can_multi_conn = yes,
	.can_extents = yes,
	.can_cache = can_cache,
	.pread = plugin_pread,
	.pwrite = plugin_pwrite,
	.flush = plugin_flush,
	.trim = plugin_trim,
	.zero = plugin_zero,
	.extents = plugin_extents,
};

/* The macro's function is called by nbdkit alone. */
struct nbdkit_plugin *plugin_init(void);

NBDKIT_REGISTER_PLUGIN(plugin)
