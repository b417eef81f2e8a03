/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * balloon.c - the balloon of a running disk: its file inside, and the clusters of the image under it.
 *
 * Order of an inflation:
 *  1. The file is ours (flock), and so is the device's maintenance, until we are done or dead.
 *  2. The file gets its new size, durably (balloon-file.c).
 *  3. It is sealed: its blocks stay where they are.
 *  4. Where its blocks are is asked, and the device gives back the clusters that they fill. Nobody reads or writes these: the
 *     file system takes them for allocated and never written, and has written nothing to them that is still on its way, since
 *     what a block held before it was freed is forgotten when its freeing is committed.
 *  5. What else is free in the file system goes back, too, as far as it fills clusters.
 *  6. The image is made shorter.
 * Cut off after 2, a repair does 3 to 6 again.
 */
#include <errno.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/range.h"
#include "control/client.h"
#include "control/message.h"
#include "lib/balloon-file.h"
#include "lib/compact-run.h"
#include "lib/fiemap.h"
#include "lib/inside.h"
#include "lib/reclaim.h"
#include "lib/trim.h"

#define RELEASE_TIMEOUT_MS 600000u /* giving a great deal back takes a file system its time */
#define COMPLETE_POLL_MS 20

/* A balloon that somebody works on. */
struct work {
	const struct ploop_balloon *what;
	struct inside inside;
	struct balloon_file file;
	struct control_client *client;
	struct ploop_balloon_result result;
};

#define WORK(balloon)                                                               \
	{                                                                           \
		.what = (balloon), .inside = INSIDE_NONE, .file = BALLOON_FILE_NONE \
	}

static int work_end(struct work *work, int r, struct ploop_error *err)
{
	struct ploop_error other;
	int closed;

	control_close(work->client);
	balloon_file_close(&work->file);
	closed = inside_close(&work->inside, r < 0 ? &other : err);
	return r < 0 ? r : closed;
}

static int work_open(struct work *work, struct ploop_error *err)
{
	int r = inside_open(&work->what->which, work->what->automount ? INSIDE_AUTOMOUNT : INSIDE_MOUNTED,
			    &work->inside, err);

	if (r == 0)
		work->result.cluster = work->inside.entry.device.cluster;
	return r;
}

/* Nobody else changes it from here on. */
static int work_lock(struct work *work, struct ploop_error *err)
{
	int r = balloon_file_lock(&work->inside, &work->file, err);

	if (r == 0)
		r = control_connect(work->inside.entry.device.name, RELEASE_TIMEOUT_MS, &work->client, err);
	work->result.old_size = work->result.new_size = work->file.size;
	return r;
}

static int work_hold(struct work *work, bool deflate, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "balloon");
	message_add_bool(arguments, "deflate", deflate);
	return control_call(work->client, "balloon", arguments, NULL, err);
}

/* From places on the file system's block device to those on the disk, by whole clusters. */
static int to_disk(const struct work *work, struct ranges *ranges, struct ploop_error *err)
{
	const struct inside *inside = &work->inside;

	ranges_sort(ranges);
	for (size_t i = 0; i < ranges->n; i++) {
		struct range *range = &ranges->list[i];

		if (range->offset > inside->end - inside->start ||
		    range->length > inside->end - inside->start - range->offset)
			return error_set(err, -EUCLEAN, PLOOP_EXIT_FSCK,
					 "%s: its file system says that the balloon lies beyond its end; check it",
					 inside->path);
		range->offset += inside->start;
	}
	ranges_align(ranges, inside->entry.device.cluster);
	return 0;
}

static int find_clusters(const struct work *work, struct ranges *ranges, struct ploop_error *err)
{
	uint64_t skipped = 0;
	int r = fiemap_unwritten(work->file.fd, ranges, &skipped, err);

	if (r == 0 && skipped)
		log_warning("%llu bytes of the balloon hold data and are left alone", (unsigned long long)skipped);
	return r < 0 ? r : to_disk(work, ranges, err);
}

/* Asks the device about them, as many as a message takes at a time. */
static int ask(struct work *work, const char *verb, const struct ranges *ranges, struct ploop_error *err)
{
	for (size_t i = 0; i < ranges->n; i += MESSAGE_RANGES) {
		struct ranges some = { .list = ranges->list + i, .n = min_u64(ranges->n - i, MESSAGE_RANGES) };
		struct json_object *arguments = json_object_new_object();
		_message_ struct json_object *answer = NULL;
		uint64_t clusters;
		int r;

		if (!arguments)
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "balloon");
		message_add_ranges(arguments, "ranges", &some);
		r = control_call(work->client, verb, arguments, &answer, err);
		if (r == 0)
			r = message_number(answer, "clusters", UINT32_MAX, &clusters, err);
		if (r < 0)
			return r;
		work->result.clusters += clusters;
	}
	return 0;
}

/* Step 6, of the top: no other image has lost anything. */
static int shorten(struct work *work, struct ploop_error *err)
{
	const struct ploop_device *device = &work->inside.entry.device;
	struct compact_run run = {
		.client = work->client,
		.image = device->images[device->nimages - 1],
		.bytes_a_second = work->what->bytes_a_second,
		.progress = work->what->progress,
		.progress_data = work->what->progress_data,
	};
	int r = compact_run(&run, err);

	work->result.truncated = run.truncated;
	return r;
}

/* Step 5: the balloon may have taken blocks that nobody ever used, and left others free that somebody did. */
static int trim(const struct work *work, struct ploop_error *err)
{
	const struct trim trim = {
		.root = work->inside.root,
		.size = work->inside.end - work->inside.start,
		.min_block = work->inside.entry.device.cluster,
	};
	int r = trim_run(&trim, err);

	return r == -EOPNOTSUPP ? 0 : r;
}

/* Steps 3 to 6. */
static int release(struct work *work, struct ploop_error *err)
{
	struct ranges ranges = { 0 };
	int r = balloon_file_seal(&work->file, err);

	if (r == 0)
		r = find_clusters(work, &ranges, err);
	if (r == 0)
		r = ask(work, "balloon-release", &ranges, err);
	ranges_clear(&ranges);
	if (r == 0)
		r = trim(work, err);
	return r < 0 ? r : shorten(work, err);
}

static int change(struct work *work, uint64_t size, struct ploop_error *err)
{
	bool deflate;
	int r = work_lock(work, err);

	if (r < 0)
		return r;
	if (!checked_round_up(size, work->file.block, &size) || size > INT64_MAX)
		return error_set(err, -EFBIG, PLOOP_EXIT_PARAM, "a balloon of %llu bytes is too large",
				 (unsigned long long)size);
	deflate = size <= work->file.size;
	r = work_hold(work, deflate, err);
	if (r < 0)
		return r;
	log_info("Changing balloon size old_size=%llu new_size=%llu", (unsigned long long)work->file.size,
		 (unsigned long long)size);
	if (size != work->file.size || work->file.beyond)
		r = balloon_file_resize(&work->inside, &work->file, size, err);
	work->result.new_size = work->file.size;
	return r < 0 || deflate ? r : release(work, err);
}

int ploop_balloon_change(const struct ploop_balloon *balloon, uint64_t size, struct ploop_balloon_result *ret,
			 struct ploop_error *err)
{
	struct work work = WORK(balloon);
	int r = work_open(&work, err);

	if (r == 0)
		r = change(&work, size, err);
	r = work_end(&work, r, err);
	if (r == 0 && ret)
		*ret = work.result;
	return r;
}

int ploop_balloon_size(const struct ploop_balloon *balloon, uint64_t *ret, struct ploop_error *err)
{
	struct work work = WORK(balloon);
	int r = work_open(&work, err);

	if (r == 0)
		r = balloon_file_open(&work.inside, &work.file, err);
	if (r == 0)
		*ret = work.file.size;
	return work_end(&work, r, err);
}

static int fill_stat(const struct work *work, struct ploop_balloon_stat *ret, struct ploop_error *err)
{
	const struct ploop_device *device = &work->inside.entry.device;
	uint64_t length, used;
	struct statvfs fs;

	if (fstatvfs(work->inside.root, &fs) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", work->inside.path);
	used = (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize;
	ret->balloon = work->file.size;
	ret->data = used > ret->balloon ? used - ret->balloon : 0;
	ret->size = device->size;
	return reclaim_measure((const char *const *)device->images, device->nimages, &length, &ret->images, err);
}

int ploop_balloon_stat(const struct ploop_balloon *balloon, struct ploop_balloon_stat *ret, struct ploop_error *err)
{
	struct work work = WORK(balloon);
	struct ploop_balloon_stat stat;
	int r = work_open(&work, err);

	if (r == 0)
		r = balloon_file_open(&work.inside, &work.file, err);
	if (r == 0)
		r = fill_stat(&work, &stat, err);
	r = work_end(&work, r, err);
	if (r == 0)
		*ret = stat;
	return r;
}

static int look(struct work *work, bool repair, struct ploop_error *err)
{
	struct ranges ranges = { 0 };
	int r = work_lock(work, err);

	if (r == 0)
		r = work_hold(work, false, err);
	if (r == 0 && repair && work->file.beyond)
		r = balloon_file_resize(&work->inside, &work->file, work->file.size, err);
	if (r < 0)
		return r;
	if (repair)
		return release(work, err);
	r = find_clusters(work, &ranges, err);
	if (r == 0)
		r = ask(work, "balloon-count", &ranges, err);
	ranges_clear(&ranges);
	return r;
}

static int check_or_repair(const struct ploop_balloon *balloon, bool repair, struct ploop_balloon_result *ret,
			   struct ploop_error *err)
{
	struct work work = WORK(balloon);
	int r = work_open(&work, err);

	if (r == 0)
		r = look(&work, repair, err);
	r = work_end(&work, r, err);
	if (r == 0 && ret)
		*ret = work.result;
	return r;
}

int ploop_balloon_check(const struct ploop_balloon *balloon, struct ploop_balloon_result *ret, struct ploop_error *err)
{
	return check_or_repair(balloon, false, ret, err);
}

int ploop_balloon_repair(const struct ploop_balloon *balloon, struct ploop_balloon_result *ret, struct ploop_error *err)
{
	return check_or_repair(balloon, true, ret, err);
}

/* FBLOADED ends by itself, soon; RELOC by itself too. */
static int complete(struct work *work, enum ploop_maintenance *state, struct ploop_balloon_result *ret,
		    struct ploop_error *err)
{
	const struct timespec moment = { .tv_nsec = COMPLETE_POLL_MS * 1000000L };
	struct compact_run run = { .progress = work->what->progress, .progress_data = work->what->progress_data };
	int r = maintenance_ask(&work->inside, state, err);
	enum ploop_maintenance now = *state;

	while (r == 0 && now == PLOOP_MAINTENANCE_FBLOADED) {
		nanosleep(&moment, NULL);
		r = maintenance_ask(&work->inside, &now, err);
	}
	if (r < 0 || now != PLOOP_MAINTENANCE_RELOC)
		return r;
	r = control_connect(work->inside.entry.device.name, RELEASE_TIMEOUT_MS, &work->client, err);
	run.client = work->client;
	if (r == 0)
		r = compact_wait(&run, err);
	ret->truncated = run.truncated;
	return r;
}

int ploop_balloon_complete(const struct ploop_balloon *balloon, enum ploop_maintenance *ret_state,
			   struct ploop_balloon_result *ret, struct ploop_error *err)
{
	struct work work = WORK(balloon);
	int r = inside_find(&balloon->which, &work.inside, err);

	if (r == 0) {
		work.result.cluster = work.inside.entry.device.cluster;
		r = complete(&work, ret_state, &work.result, err);
	}
	r = work_end(&work, r, err);
	if (r == 0 && ret)
		*ret = work.result;
	return r;
}
