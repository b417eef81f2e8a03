/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy.c - the sending half of a copy.
 *
 *	track -> pass 1: all -> pass 2, 3 ...: what changed -> sync -> STOP COMMAND, freeze, hold -> last pass -> release, thaw -> end
 *
 * Why the copy is the disk of the moment in which it stood still, whatever is written meanwhile:
 *  1. A note is taken away before what it is about is read (device/tracker.h), so a write that comes while we read makes a new
 *     one. All notes that there are when the device stands still are taken in the last pass.
 *  2. No cluster moves and no level comes or goes while notes are taken: the device refuses such work.
 *  3. When the daemon says that the device went on too early, or is gone, the copy is refused, and nothing gets its name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/checked.h"
#include "base/child.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "lib/copy-have.h"
#include "lib/copy-output.h"
#include "lib/copy-source.h"
#include "lib/copy-stack.h"
#include "lib/freeze.h"

#define DOWNTIME_MS 200u
#define PASSES 20u
#define HOLD_SECONDS 600u
/* A pass after which more than this share of it is left did not help much. */
#define SHRINKS_TO 0.9

struct sending {
	const struct ploop_copy *copy;
	struct ploop_copy_report report;
	struct copy_source source;
	struct copy_output output;
	struct copy_sink *sink;
	struct copy_have have;
	struct copy_run *runs;
	uint64_t expected; /* bytes in all, as far as is known; for progress */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int tell(struct sending *sending, const char *stage, struct ploop_error *err)
{
	const struct ploop_copy *copy = sending->copy;
	uint64_t done = copy_reader_bytes(sending->source.reader);

	if (copy->progress && copy->progress(copy->progress_data, stage, done, max_u64(done, sending->expected)))
		return error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "stopped; the source is as it was");
	return 0;
}

/* One pass: what has notes now. */
static int pass(struct sending *sending, const char *stage, struct ploop_error *err)
{
	struct copy_source *source = &sending->source;
	uint64_t from = 0;
	size_t n;
	int r = 0;

	sending->report.passes++;
	while (r == 0 && from != UINT64_MAX) {
		r = copy_source_take(source, &from, sending->runs, &n, err);
		if (r == 0 && sending->report.passes == 1)
			r = copy_have_drop(&sending->have, source->reader, source->size, sending->runs, &n, err);
		if (r == 0)
			r = copy_reader_send(source->reader, sending->runs, n, sending->sink, err);
		if (r == 0)
			r = tell(sending, stage, err);
	}
	return r == 0 ? copy_source_ask(source, err) : r;
}

/* Until what is left takes no longer than it may, or does not get less. */
static int passes(struct sending *sending, struct ploop_error *err)
{
	const struct ploop_copy *copy = sending->copy;
	uint64_t downtime = (copy->max_downtime_ms ? copy->max_downtime_ms : DOWNTIME_MS) * UINT64_C(1000000);
	unsigned most = copy->max_passes ? copy->max_passes : PASSES, stuck = 0;

	for (;;) {
		uint64_t started = now_ns(), bytes = copy_reader_bytes(sending->source.reader), took;
		uint64_t before = sending->source.dirty;
		int r = pass(sending, "copy", err);

		if (r < 0)
			return r;
		bytes = copy_reader_bytes(sending->source.reader) - bytes;
		took = now_ns() - started;
		log_info("Pass %u: %llu bytes in %llu ms, %llu left", sending->report.passes, (unsigned long long)bytes,
			 (unsigned long long)(took / 1000000), (unsigned long long)sending->source.dirty);
		sending->report.converged =
			!sending->source.dirty ||
			(bytes && (double)sending->source.dirty * (double)took / (double)bytes <= (double)downtime);
		stuck = (double)sending->source.dirty > SHRINKS_TO * (double)before ? stuck + 1 : 0;
		if (sending->report.converged || stuck == 2 || sending->report.passes >= most)
			return 0;
		sending->expected = copy_reader_bytes(sending->source.reader) + sending->source.dirty;
	}
}

static int run_stop_command(const char *command, struct ploop_error *err)
{
	const char *const argv[] = { "/bin/sh", "-c", command, NULL };
	const struct child_request request = { .argv = argv, .fd = -1, .level = LOG_LEVEL_INFO };
	int status, r = child_run(&request, &status, NULL, 0);

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "Can't run %s", command);
	if (status > 128)
		return error_set(err, -ECHILD, PLOOP_EXIT_SYS, "Command %s killed by signal %d", command, status - 128);
	if (status)
		return error_set(err, -ECHILD, PLOOP_EXIT_SYS, "Command %s failed with code %d", command, status);
	return 0;
}

/* The device stands still while the rest is sent. */
static int last_pass(struct sending *sending, struct ploop_error *err)
{
	uint64_t bytes = copy_reader_bytes(sending->source.reader);
	int r = copy_source_hold(&sending->source, HOLD_SECONDS, err);

	copy_reader_limit(sending->source.reader, 0);
	if (r == 0)
		r = pass(sending, "last pass", err);
	if (r == 0)
		r = copy_source_release(&sending->source, err);
	sending->report.last_bytes = copy_reader_bytes(sending->source.reader) - bytes;
	return r;
}

static int stop_and_finish(struct sending *sending, struct ploop_error *err)
{
	const struct ploop_copy *copy = sending->copy;
	const struct ploop_device *device = &sending->source.device;
	_free_ char *folder = strndup(device->images[0], (size_t)(strrchr(device->images[0], '/') - device->images[0]) + 1);
	struct freeze *freeze = NULL;
	uint64_t started = now_ns();
	int r = copy->stop_command ? run_stop_command(copy->stop_command, err) : 0;

	sending->report.stop_ns = now_ns() - started;
	if (r == 0 && !folder)
		r = error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
	if (r == 0 && !copy->no_freeze)
		r = freeze_start(device, folder, &freeze, err);
	if (r == 0)
		r = last_pass(sending, err);
	/* Also after a failure: then the connection ends, and the device goes on. */
	if (r < 0)
		copy_source_close(&sending->source);
	if (freeze_end(freeze) == -ETIMEDOUT)
		log_warning("The file system went on before the last pass was over; what it wrote is not in the copy");
	sending->report.downtime_ns = now_ns() - started;
	return r;
}

static int send_top(struct sending *sending, struct ploop_error *err)
{
	const struct copy_source *source = &sending->source;
	struct stream_image image = {
		.raw = source->raw,
		.version = source->raw ? 0 : source->version,
		.cluster = source->cluster,
		.flags = source->flat || source->device.nimages == 1 ? STREAM_BASE : 0,
	};
	int r;

	if (sending->copy->all)
		copy_stack_name(source->device.images[source->device.nimages - 1], image.name);
	r = sending->sink->ops->image(sending->sink, &image, source->size, err);
	if (r == 0 && sending->copy->resume)
		r = copy_have_take(&sending->have, sending->sink, source->size, source->cluster, err);
	if (r == 0)
		r = copy_have_mark(&sending->have, &sending->source, err);
	if (r == 0)
		r = passes(sending, err);
	/* What is durable now need not be made so at the end. As that takes a while, one pass more. */
	if (r == 0)
		r = sending->sink->ops->sync(sending->sink, err);
	if (r == 0)
		r = pass(sending, "copy", err);
	if (r == 0)
		r = stop_and_finish(sending, err);
	return r == 0 ? sending->sink->ops->image_end(sending->sink, err) : r;
}

static int send_all(struct sending *sending, struct ploop_error *err)
{
	int r = 0;

	sending->expected = sending->source.dirty;
	copy_reader_limit(sending->source.reader, sending->copy->bytes_a_second);
	if (sending->copy->all)
		r = copy_stack_send(&sending->source.device, sending->copy, sending->sink, err);
	if (r == 0)
		r = send_top(sending, err);
	return r == 0 ? sending->sink->ops->finish(sending->sink, err) : r;
}

static int check(const struct ploop_copy *copy, struct ploop_error *err)
{
	if (!copy->source)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Either -s or -d is required");
	if (copy->all && copy->flat)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "a copy is of all images or flat, not both");
	if (copy->compat && (copy->all || copy->resume || copy->compress || copy->target))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "the original's stream carries one image and nothing else: no --all, --resume, --compress, -d");
	if (copy->resume && !copy->target && !copy->via && copy->feedback < 0)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "to resume, the receiver must answer: give -f or --via, or -d for a file on this host");
	return 0;
}

int ploop_copy_send(const struct ploop_copy *copy, struct ploop_copy_report *ret, struct ploop_error *err)
{
	struct sending *sending;
	uint64_t started = now_ns();
	int r = check(copy, err);

	if (r < 0)
		return r;
	sending = calloc(1, sizeof(*sending));
	if (sending)
		sending->runs = calloc(COPY_RUNS, sizeof(*sending->runs));
	if (!sending || !sending->runs) {
		free(sending);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	}
	sending->copy = copy;
	r = copy_source_open(&sending->source, copy->source, copy->flat, err);
	if (r == 0) {
		r = copy_output_open(&sending->output, copy, &sending->source, &sending->sink, err);
		if (r == 0)
			r = send_all(sending, err);
		if (sending->source.reader)
			sending->report.bytes = copy_reader_bytes(sending->source.reader);
		/* The way out ends before the way in: a receiver that waits for more must not be waited for. */
		r = copy_output_close(&sending->output, r, err);
		copy_source_close(&sending->source);
	}
	sending->report.elapsed_ns = now_ns() - started;
	if (r == 0 && ret)
		*ret = sending->report;
	copy_have_clear(&sending->have);
	free(sending->runs);
	free(sending);
	return r;
}
