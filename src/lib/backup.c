/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* backup.c - see backup.h: what backups of running disks and of others have in common. */
#include "lib/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "lib/bitmap-id.h"
#include "lib/bitmaps.h"
#include "lib/copy-to-stream.h"

static int open_file(struct backup *backup, struct ploop_error *err)
{
	int r = copy_part_open(&backup->part, backup->config->output, false, err);

	if (r < 0)
		return r;
	backup->fd = open(backup->part.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (backup->fd < 0) {
		r = error_sys(err, -errno, PLOOP_EXIT_CREAT, "Can't create %s", backup->part.path);
		copy_part_close(&backup->part);
		return r;
	}
	backup->opened = true;
	return copy_part_lock(&backup->part, err);
}

int backup_begin(struct backup *backup, uint64_t size, uint32_t cluster, uint32_t version, struct ploop_error *err)
{
	const struct stream_image image = { .version = version, .cluster = cluster, .flags = STREAM_BASE };
	struct copy_to_stream stream = {
		.feedback = -1,
		.compress = backup->config->compress,
		.hello = { .flags = STREAM_IS_BACKUP, .expected = backup->expected },
		.backup = &backup->record,
	};
	int r = backup->config->output ? open_file(backup, err) : 0;

	stream.fd = backup->config->output ? backup->fd : backup->config->stream;
	if (r == 0)
		r = copy_to_stream(&stream, &backup->sink, err);
	return r == 0 ? backup->sink->ops->image(backup->sink, &image, size, err) : r;
}

int backup_finish(struct backup *backup, struct ploop_error *err)
{
	int r = backup->sink->ops->image_end(backup->sink, err);

	if (r == 0)
		r = backup->sink->ops->finish(backup->sink, err);
	if (r < 0 || !backup->opened)
		return r;
	if (fdatasync(backup->fd) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSYNC, "%s", backup->part.path);
	r = copy_part_publish(&backup->part, err);
	backup->finished = r == 0;
	return r;
}

int backup_tell(const struct backup *backup, const char *stage, const struct copy_reader *reader, struct ploop_error *err)
{
	const struct ploop_backup *config = backup->config;
	uint64_t done = copy_reader_bytes(reader);

	if (config->progress && config->progress(config->progress_data, stage, done, max_u64(done, backup->expected)))
		return error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "stopped; the disk and its bitmaps are as they were");
	return 0;
}

void backup_warn_raw(const char *image)
{
	log_warning("%s is raw and has no place for a dirty bitmap: the next backup is a full one again", image);
}

/* A backup file may stand for its UUID. */
static int take_since(struct backup *backup, const char *since, struct ploop_error *err)
{
	struct backup_head head;
	struct stat st;
	int r;

	if (stat(since, &st) < 0 || !S_ISREG(st.st_mode))
		return bitmap_id_parse(since, backup->since.id, err);
	r = backup_look(since, &head, err);
	if (r == 0)
		memcpy(backup->since.id, head.backup.id, CBT_ID);
	return r;
}

static int prepare(struct backup *backup, struct ploop_error *err)
{
	const struct ploop_backup *config = backup->config;
	int r = 0;

	if (!config->disk)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "which disk?");
	if (config->since) {
		r = take_since(backup, config->since, err);
		if (r == 0 && bitmap_id_none(backup->since.id))
			r = error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect UUID %s", config->since);
	}
	if (r < 0)
		return r;
	backup->since.only = config->since;
	bitmap_id_new(backup->record.id);
	if (config->since)
		memcpy(backup->record.parent, backup->since.id, CBT_ID);
	bitmap_id_print(backup->record.id, backup->report.uuid);
	if (config->since)
		bitmap_id_print(backup->record.parent, backup->report.since);
	return 0;
}

static int run(struct backup *backup, struct ploop_error *err)
{
	struct ploop_device device;
	int r = prepare(backup, err);

	if (r == 0)
		r = bitmaps_find_device(backup->config->disk, &device, err);
	if (r <= 0)
		return r < 0 ? r : backup_offline(backup, err);
	r = backup_online(backup, device.device, err);
	ploop_device_clear(&device);
	return r;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int ploop_backup(const struct ploop_backup *config, struct ploop_backup_report *ret, struct ploop_error *err)
{
	struct backup backup = { .config = config, .fd = -EBADF };
	uint64_t started = now_ns();
	int r = run(&backup, err);

	if (backup.sink)
		backup.sink->ops->free(backup.sink);
	cleanup_close(&backup.fd);
	if (backup.opened) {
		if (!backup.finished)
			copy_part_remove(&backup.part);
		copy_part_close(&backup.part);
	}
	backup.report.elapsed_ns = now_ns() - started;
	if (r == 0 && ret)
		*ret = backup.report;
	return r;
}
