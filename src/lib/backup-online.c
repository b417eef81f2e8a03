/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * backup-online.c - a backup of a running device, as a copy is made (copy.c): passes over what changed, until little is left; then
 * the device stands still for the last of it, and for the beginning of the next bitmap. No snapshot is made: there is nothing to
 * be merged afterwards, and nothing is left when we die. See backup.h for why nothing is lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/client.h"
#include "lib/backup.h"
#include "lib/bitmap-id.h"
#include "lib/freeze.h"

#define DOWNTIME_NS UINT64_C(200000000)
#define PASSES 20u
#define HOLD_SECONDS 600u

struct online {
	struct backup *backup;
	struct copy_source source;
	struct copy_run *runs;
	struct freeze *freeze;
	bool held;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int pass(struct online *online, const char *stage, struct ploop_error *err)
{
	struct copy_source *source = &online->source;
	uint64_t from = 0;
	size_t n;
	int r = 0;

	online->backup->report.passes++;
	while (r == 0 && from != UINT64_MAX) {
		r = copy_source_take(source, &from, online->runs, &n, err);
		if (r == 0)
			r = copy_reader_send(source->reader, online->runs, n, online->backup->sink, err);
		if (r == 0)
			r = backup_tell(online->backup, stage, source->reader, err);
	}
	return r == 0 ? copy_source_ask(source, err) : r;
}

/* Until what is left is read in a moment, or does not get less. */
static int passes(struct online *online, struct ploop_error *err)
{
	struct copy_source *source = &online->source;
	unsigned stuck = 0;

	for (unsigned i = 0; i < PASSES && stuck < 2; i++) {
		uint64_t before = source->dirty, bytes = copy_reader_bytes(source->reader), started = now_ns();
		int r = pass(online, "backup", err);

		if (r < 0)
			return r;
		bytes = copy_reader_bytes(source->reader) - bytes;
		if (!source->dirty || (bytes && (double)source->dirty * (double)(now_ns() - started) / (double)bytes <=
							(double)DOWNTIME_NS))
			return 0;
		stuck = source->dirty > before / 10 * 9 ? stuck + 1 : 0;
		online->backup->expected = copy_reader_bytes(source->reader) + source->dirty;
	}
	return 0;
}

static int tell_daemon(struct online *online, const char *verb, const char *key, const uint8_t *id, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "backup");
	if (id)
		bitmap_id_add(arguments, key, id);
	return control_call(online->source.client, verb, arguments, NULL, err);
}

/* The moment of the backup. */
static int last_pass(struct online *online, struct ploop_error *err)
{
	int r = copy_source_hold(&online->source, HOLD_SECONDS, err);

	copy_reader_limit(online->source.reader, 0);
	if (r == 0)
		r = pass(online, "last pass", err);
	if (r == 0 && !online->source.raw)
		r = tell_daemon(online, "track-period", "uuid", online->backup->record.id, err);
	return r == 0 ? copy_source_release(&online->source, err) : r;
}

static int stop_and_read(struct online *online, struct ploop_error *err)
{
	const struct ploop_device *device = &online->source.device;
	_free_ char *folder = strndup(device->images[0], (size_t)(strrchr(device->images[0], '/') - device->images[0]) + 1);
	uint64_t started = now_ns();
	int r = 0;

	if (!folder)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
	if (!online->backup->config->no_freeze)
		r = freeze_start(device, folder, &online->freeze, err);
	if (r == 0)
		r = last_pass(online, err);
	/* Also after a failure: then the connection ends, and the device goes on. */
	if (r < 0)
		copy_source_close(&online->source);
	if (freeze_end(online->freeze) == -ETIMEDOUT)
		log_warning("The file system went on before the last pass was over; the backup is as after a crash");
	online->backup->report.downtime_ns = now_ns() - started;
	return r;
}

static int run(struct online *online, struct ploop_error *err)
{
	struct backup *backup = online->backup;
	struct copy_source *source = &online->source;
	int r;

	backup->expected = source->dirty;
	copy_reader_limit(source->reader, backup->config->bytes_a_second);
	r = backup_begin(backup, source->size, source->cluster, source->raw ? 2 : source->version, err);
	if (r == 0)
		r = passes(online, err);
	if (r == 0)
		r = stop_and_read(online, err);
	if (r == 0 && !source->raw)
		r = tell_daemon(online, "track-plant", NULL, NULL, err);
	if (r == 0)
		r = backup_finish(backup, err);
	if (r == 0 && !source->raw)
		r = tell_daemon(online, "track-commit", "since", backup->since.only ? backup->since.id : NULL, err);
	if (r < 0)
		return r;
	backup->report.bytes = copy_reader_bytes(source->reader);
	backup->report.tracked = !source->raw;
	if (source->raw)
		backup_warn_raw(source->device.images[source->device.nimages - 1]);
	return 0;
}

int backup_online(struct backup *backup, const char *device, struct ploop_error *err)
{
	struct online online = { .backup = backup };
	int r;

	online.runs = calloc(COPY_RUNS, sizeof(*online.runs));
	if (!online.runs)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "backup");
	r = copy_source_open_since(&online.source, device, &backup->since, err);
	if (r == 0)
		r = run(&online, err);
	copy_source_close(&online.source);
	free(online.runs);
	return r;
}
