/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * restore.c - backups become a new disk: a full one, and the increments that follow it, each written over what came before. The
 * folder of the disk has its name when all of them were read to their ends and found whole, and not before (copy-target.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/create.h"
#include "image/descriptor.h"
#include "lib/backup.h"
#include "lib/bitmap-id.h"
#include "lib/copy-stream.h"
#include "lib/copy-target.h"

#define IMAGE_NAME "root.hdd"

struct restoring {
	const struct ploop_backup_restore *config;
	struct backup_head *heads; /* of each backup */
	uint64_t size;             /* of the last: what the disk will have */
	uint64_t done, expected;
	struct copy_sink *sink;
};

static int name_file(const char *path, int r, const struct ploop_error *why, struct ploop_error *err)
{
	return error_set(err, r, why->status, "%s: %s", path, why->text);
}

/* Each begins where the one before ends. */
static int check_chain(const struct restoring *restoring, struct ploop_error *err)
{
	const char *const *files = restoring->config->backups;
	char parent[PLOOP_UUID], id[PLOOP_UUID];

	for (size_t i = 0; i < restoring->config->nbackups; i++) {
		const struct backup_head *head = &restoring->heads[i];

		bitmap_id_print(head->backup.parent, parent);
		if (i == 0 && !bitmap_id_none(head->backup.parent))
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "%s has only what changed since backup %s: give that first", files[0], parent);
		if (i == 0)
			continue;
		bitmap_id_print(head[-1].backup.id, id);
		if (bitmap_id_none(head->backup.parent))
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is a full backup: it comes first", files[i]);
		if (memcmp(head->backup.parent, head[-1].backup.id, CBT_ID))
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "%s has what changed since backup %s, but before it comes %s, which is %s: one is "
					 "missing, or the order is wrong",
					 files[i], parent, files[i - 1], id);
		if (head->image.cluster != head[-1].image.cluster)
			return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "%s is of a disk with other clusters than %s",
					 files[i], files[i - 1]);
	}
	return 0;
}

static int look_at_all(struct restoring *restoring, struct ploop_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < restoring->config->nbackups; i++) {
		r = backup_look(restoring->config->backups[i], &restoring->heads[i], err);
		if (checked_add(restoring->expected, restoring->heads[i].hello.expected, &restoring->expected))
			continue;
		restoring->expected = UINT64_MAX;
	}
	restoring->size = restoring->heads[restoring->config->nbackups - 1].size;
	return r == 0 ? check_chain(restoring, err) : r;
}

/* What is not there any more in the end is not restored. */
static bool clip(const struct restoring *restoring, struct stream_record *record)
{
	if (record->offset >= restoring->size)
		return false;
	record->length = min_u64(record->length, restoring->size - record->offset);
	return true;
}

static int take(struct restoring *restoring, const struct backup_head *head, struct stream_record *record,
		const uint8_t *payload, struct ploop_error *err)
{
	const struct copy_sink_ops *ops = restoring->sink->ops;

	if (record->type != STREAM_DATA && record->type != STREAM_ZERO && record->type != STREAM_DISCARD)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: a record where it makes no sense");
	if (record->offset + record->length > head->size)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: a range outside the disk");
	if (!clip(restoring, record))
		return 0;
	restoring->done += record->type == STREAM_DATA ? record->length : 0;
	if (record->type == STREAM_DATA)
		return ops->data(restoring->sink, payload, record->length, record->offset, err);
	if (record->type == STREAM_ZERO)
		return ops->zero(restoring->sink, record->length, record->offset, err);
	return ops->discard(restoring->sink, record->length, record->offset, err);
}

static int tell(const struct restoring *restoring, struct ploop_error *err)
{
	const struct ploop_backup_restore *config = restoring->config;

	if (config->progress && config->progress(config->progress_data, "restore", restoring->done,
						 max_u64(restoring->done, restoring->expected)))
		return error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "stopped; nothing is left");
	return 0;
}

/* From the IMAGE record to the end, whose digest is right. */
static int take_all(struct restoring *restoring, struct stream_in *in, const struct backup_head *head,
		    struct ploop_error *err)
{
	struct stream_record record;
	const uint8_t *payload;
	size_t len;
	int r = 0;

	while (r == 0) {
		r = stream_in_read(in, &record, &payload, &len, err);
		if (r == 0 && record.type == STREAM_IMAGE_END)
			break;
		if (r == 0)
			r = take(restoring, head, &record, payload, err);
		if (r == 0)
			r = tell(restoring, err);
	}
	if (r == 0)
		r = stream_in_read(in, &record, &payload, &len, err);
	if (r == 0 && record.type != STREAM_END)
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: a record where it makes no sense");
	return r;
}

static int take_file(struct restoring *restoring, const char *path, const struct backup_head *known,
		     struct ploop_error *err)
{
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct backup_head head;
	struct ploop_error why;
	struct stream_in *in;
	int r;

	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", path);
	log_info("Restoring %s", path);
	r = stream_in_new(stream_read_fd, &fd, &in, err);
	if (r < 0)
		return r;
	r = backup_read_head(in, &head, &why);
	if (r == 0 && (memcmp(&head.backup, &known->backup, sizeof(head.backup)) || head.size != known->size))
		r = error_set(&why, -ESTALE, PLOOP_EXIT_PROTOCOL, "it has become another file");
	if (r == 0)
		r = take_all(restoring, in, &head, &why);
	stream_in_free(in);
	return r < 0 ? name_file(path, r, &why, err) : 0;
}

/* The folder with a descriptor, and the image in it. */
static int begin(struct restoring *restoring, struct ploop_error *err)
{
	const struct backup_head *last = &restoring->heads[restoring->config->nbackups - 1];
	const struct image_params params = {
		.version = last->image.version, .size = last->size, .cluster = last->image.cluster
	};
	struct stream_image image = { .version = params.version, .cluster = params.cluster, .flags = STREAM_BASE };
	_descriptor_free_ struct descriptor *d = NULL;
	_free_ char *text = NULL;
	size_t len;
	int r;

	strcpy(image.name, IMAGE_NAME);
	r = descriptor_new(DESCRIPTOR_NAME, IMAGE_NAME, &params, &d, err);
	if (r == 0 && (r = descriptor_to_text(d, &text, &len)) < 0)
		r = error_sys(err, r, PLOOP_EXIT_MALLOC, "restore");
	if (r == 0)
		r = copy_target_new(restoring->config->target, false, &restoring->sink, err);
	if (r == 0)
		r = restoring->sink->ops->descriptor(restoring->sink, text, len, err);
	return r == 0 ? restoring->sink->ops->image(restoring->sink, &image, last->size, err) : r;
}

static int run(struct restoring *restoring, struct ploop_error *err)
{
	const struct ploop_backup_restore *config = restoring->config;
	int r = look_at_all(restoring, err);

	if (r == 0)
		r = begin(restoring, err);
	for (size_t i = 0; r == 0 && i < config->nbackups; i++)
		r = take_file(restoring, config->backups[i], &restoring->heads[i], err);
	if (r == 0)
		r = restoring->sink->ops->image_end(restoring->sink, err);
	return r == 0 ? restoring->sink->ops->finish(restoring->sink, err) : r;
}

int ploop_backup_restore(const struct ploop_backup_restore *config, struct ploop_error *err)
{
	struct restoring restoring = { .config = config };
	int r;

	if (!config->target || !config->nbackups)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "which backups, and where to?");
	restoring.heads = calloc(config->nbackups, sizeof(*restoring.heads));
	if (!restoring.heads)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "restore");
	r = run(&restoring, err);
	if (restoring.sink)
		restoring.sink->ops->free(restoring.sink);
	free(restoring.heads);
	return r;
}
