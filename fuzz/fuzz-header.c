/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Header, index and extension from a stranger: what is accepted is consistent; check repairs what it can and then finds nothing
 * more; an image that the engine opens for writing is right afterwards.
 *
 * The input: 4 bytes, the length of the file in sectors; 2 bytes, how many of the bytes that follow at 8 stand at the start of
 * the file; 1 byte, whether the rest is a format extension that gets a right checksum, and stands where the header says.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"
#include "device/device.h"
#include "format/extension.h"
#include "format/ploop1.h"
#include "fuzz.h"
#include "image/extension.h"
#include "io/sim.h"
#include "job/check.h"

#define HEAD 8u
#define SECTORS_LIMIT (1u << 21)         /* length of the file */
#define EXTENSION_LIMIT (1u << 20)       /* bytes of a cluster that is made an extension */
#define ENGINE_LIMIT (UINT64_C(1) << 40) /* bytes of a disk that is opened */

/* Says which promise was broken. */
#define must(promise) must_hold(promise, #promise, __LINE__)
static void must_hold(bool good, const char *promise, int line)
{
	if (good)
		return;
	fprintf(stderr, "fuzz-header.c:%d: %s\n", line, promise);
	abort();
}

/* Whatever an entry is taken for lies behind the index, and goes back to the same entry. */
static void try_codec(const uint8_t *head, size_t len, uint64_t file_size)
{
	struct geometry g, again;
	uint8_t built[PLOOP1_HEADER];
	uint32_t k;

	if (format_ploop1.parse(head, len, file_size, 0, &g, NULL))
		return;
	must(g.size && g.cluster && g.cluster % SECTOR == 0 && g.size <= (uint64_t)g.clusters * g.cluster);
	must(geometry_offset(&g, g.first) >= PLOOP1_HEADER + 4 * (uint64_t)g.clusters);
	must(geometry_offset(&g, g.first) <= file_size && g.first >= 1);
	must((int64_t)geometry_offset(&g, format_ploop1.last(&g)) >= 0);
	must(g.read_only == (g.reason != NULL));
	for (size_t at = PLOOP1_HEADER; at + 4 <= len; at += 4) {
		uint32_t entry = le32_get(head + at);

		if (format_ploop1.decode(&g, entry, &k))
			continue;
		must(!entry == !k && (!k || k >= g.first) && format_ploop1.encode(&g, k) == entry);
		must(!k || (int64_t)(geometry_offset(&g, k) + g.cluster) > 0);
	}
	if (g.extension == UINT64_MAX)
		return;
	format_ploop1.build(&g, built);
	must(format_ploop1.parse(built, sizeof(built), file_size, 0, &again, NULL) == 0);
	must(again.size == g.size && again.base == g.base && again.first == g.first && again.state == g.state);
}

static void put_extension(struct io_file *file, const uint8_t *head, const uint8_t *data, size_t len, uint64_t limit)
{
	struct ploop1_header h;
	uint64_t cluster;
	uint8_t *bytes;

	if (!ploop1_header_get(head, PLOOP1_HEADER, &h) || h.extension_sector > limit / SECTOR)
		return;
	cluster = (uint64_t)h.cluster_sectors * SECTOR;
	if (cluster < 64 || cluster > EXTENSION_LIMIT)
		return;
	bytes = calloc(1, cluster);
	must(bytes != NULL);
	memcpy(bytes + 24, data, min_u64(len, cluster - 24));
	extension_seal(bytes, cluster);
	must(io_pwrite(file, bytes, cluster, h.extension_sector * SECTOR) == 0);
	free(bytes);
}

static struct io_file *open_image(struct sim *sim, unsigned flags)
{
	struct io_file *file;

	must(io_open(sim_loop(sim), &io_sim, "image", flags, &file, NULL) == 0);
	return file;
}

static void make_image(struct sim *sim, const uint8_t *data, size_t size, size_t head, uint64_t length)
{
	struct io_file *file = open_image(sim, IO_RDWR | IO_CREATE);

	must(io_pwrite(file, data + HEAD, head, 0) == 0);
	if (data[6] & 1 && head >= PLOOP1_HEADER)
		put_extension(file, data + HEAD, data + HEAD + head, size - HEAD - head, length);
	must(io_truncate(file, length) == 0 && io_sync(file) == 0);
	io_close(file);
}

static struct ploop_check_image check(struct sim *sim, enum ploop_check_repair repair)
{
	const struct ploop_check_options options = { .repair = repair,
						     .drop_in_use = repair != PLOOP_CHECK_REPAIR_NONE };
	const struct check_request request = { .options = &options };
	struct io_file *file = open_image(sim, IO_RDWR);
	struct ploop_check_image image;

	must(check_image(file, &request, &image, NULL) == 0);
	io_close(file);
	return image;
}

/* The first repair does all that can be done but giving space back, the second that; the third finds nothing to do. */
static void try_check(struct sim *sim)
{
	uint64_t changes = sim_changes(sim, "image");
	struct ploop_check_image image = check(sim, PLOOP_CHECK_REPAIR_NONE);

	must(!image.changed && sim_changes(sim, "image") == changes);
	image = check(sim, PLOOP_CHECK_REPAIR_ALL);
	must(!image.errors || image.needed < 0);
	check(sim, PLOOP_CHECK_REPAIR_ALL);
	changes = sim_changes(sim, "image");
	image = check(sim, PLOOP_CHECK_REPAIR_ALL);
	must(!image.errors || image.needed < 0);
	must(!image.changed && sim_changes(sim, "image") == changes);
}

struct wait {
	struct device_request request;
	bool done;
};

static void request_done(struct device_request *request, int result)
{
	((struct wait *)request)->done = true;
	must(result == 0 || result == -EFBIG || result == -ENOSPC);
}

static void closed(void *data, int result)
{
	(void)result;
	*(bool *)data = true;
}

static void write_to(struct sim *sim, struct device *device, uint64_t offset)
{
	static uint8_t buffer[SECTOR] = "data";
	struct wait wait = {
		.request = {
			.kind = DEVICE_WRITE, .flags = DEVICE_FUA, .offset = offset, .length = SECTOR, .buffer = buffer,
			.done = request_done,
		},
	};

	device_submit(device, &wait.request);
	while (!wait.done)
		must(loop_turn(sim_loop(sim), UINT64_MAX) == 0 || wait.done);
}

static bool use_device(struct sim *sim, struct delta *delta)
{
	struct device_config config = {
		.loop = sim_loop(sim), .levels = delta, .nlevels = 1, .on_full = DEVICE_FULL_ERROR
	};
	struct device *device;
	bool over = false;

	if (delta->geometry.read_only || device_open(&config, &device, NULL))
		return false;
	write_to(sim, device, 0);
	write_to(sim, device, delta->geometry.size - SECTOR);
	device_close(device, closed, &over);
	while (!over)
		must(loop_turn(sim_loop(sim), UINT64_MAX) == 0 || over);
	return true;
}

/* What the engine takes for good stays good. */
static void try_device(struct sim *sim, const uint8_t *head, size_t len, uint64_t file_size)
{
	static const enum ploop_check_kind kinds[] = {
		PLOOP_CHECK_UNALIGNED, PLOOP_CHECK_BEFORE_DATA, PLOOP_CHECK_BEYOND_FILE,
		PLOOP_CHECK_DUPLICATE, PLOOP_CHECK_EXTENSION,   PLOOP_CHECK_BITMAP,
	};
	struct delta delta = { .format = &format_ploop1 };
	struct ploop_check_image image;
	bool used;

	if (format_ploop1.parse(head, len, file_size, 0, &delta.geometry, NULL) || delta.geometry.size > ENGINE_LIMIT)
		return;
	delta.file = open_image(sim, IO_RDWR);
	must(image_settle_extension(&delta, NULL) == 0);
	used = use_device(sim, &delta);
	io_close(delta.file);
	if (!used)
		return;
	image = check(sim, PLOOP_CHECK_REPAIR_NONE);
	must(!image.in_use);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		must(!image.found[kinds[i]]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t length;
	struct sim *sim;
	size_t head;

	if (size < HEAD)
		return 0;
	length = (uint64_t)(le32_get(data) % SECTORS_LIMIT) * SECTOR + data[7];
	head = min_u64(min_u64(size - HEAD, data[4] + 256u * data[5]), length);
	for (unsigned pass = 0; pass < 2; pass++) {
		sim = sim_new(1);
		make_image(sim, data, size, head, length);
		if (pass) {
			try_codec(data + HEAD, min_u64(head, FORMAT_HEAD), length);
			try_device(sim, data + HEAD, min_u64(head, FORMAT_HEAD), length);
		} else {
			try_check(sim);
		}
		sim_free(sim);
	}
	return 0;
}
