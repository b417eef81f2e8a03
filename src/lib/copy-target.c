/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-target.c - see copy-target.h. Order of writes:
 *  1. Images are built under a temporary name (copy-part.h), each made durable when it is complete (image/builder.h).
 *  2. Of a stack, the descriptor is written when all images that it names are there; then the folder is made durable.
 *  3. The part is renamed, the folder above made durable. Before that nothing has the name that was asked for; after it, all is
 *     there.
 */
#include "lib/copy-target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/list.h"
#include "format/format.h"
#include "image/builder.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "lib/copy-part.h"
#include "lib/copy-stream.h"

struct copy_target {
	struct copy_sink sink;
	struct copy_part part;
	bool resume, made, finished;
	struct dir *folder;            /* of a stack: the part */
	struct descriptor *descriptor; /* of a stack */
	unsigned images;               /* complete */
	char *path;                    /* of the image that is built */
	uint64_t size;
	struct builder_file file;
	struct builder *builder;
};

static struct copy_target *target_of(struct copy_sink *sink)
{
	return container_of(sink, struct copy_target, sink);
}

static int failed(const struct copy_target *target, int r, struct ploop_error *err)
{
	return error_sys(err, r, PLOOP_EXIT_WRITE, "Can't write %s", target->path);
}

static int protocol(struct ploop_error *err, const char *why)
{
	return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: %s", why);
}

static int target_descriptor(struct copy_sink *sink, const char *text, size_t len, struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	int r;

	if (target->descriptor || target->made)
		return protocol(err, "a second descriptor");
	r = descriptor_parse(text, len, target->part.target, &target->descriptor, err);
	if (r == 0)
		r = copy_part_make_folder(&target->part, err);
	target->made = r == 0;
	if (r == 0)
		r = copy_part_lock(&target->part, err);
	if (r == 0)
		r = dir_open(NULL, target->part.path, &target->folder, err);
	return r;
}

/* Whether the descriptor names it, as a file of its own folder. */
static bool is_named(const struct copy_target *target, const char *name)
{
	for (uint32_t i = 0; i < target->descriptor->nsnapshots; i++) {
		const char *file = target->descriptor->snapshots[i].file;

		if (file && !strcmp(file, name))
			return true;
	}
	return false;
}

static int open_file(struct copy_target *target, const struct stream_image *image, struct ploop_error *err)
{
	bool lock = !target->folder;
	int r;

	target->path = target->folder ? dir_path(target->folder, image->name) : strdup(target->part.path);
	if (!target->path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", image->name);
	r = builder_file_open(&target->file, target->path, target->resume, err);
	if (r == 0)
		target->made = true;
	if (r == 0 && lock)
		r = copy_part_lock(&target->part, err);
	return r;
}

/* What is there of another image is of no use. */
static int resume(struct copy_target *target, struct ploop_error *err)
{
	int r = target->file.out.size ? builder_resume(target->builder) : 0;

	if (r == -EINVAL) {
		if (ftruncate(target->file.fd, 0) < 0)
			return failed(target, -errno, err);
		target->file.out.size = 0;
		r = builder_resume(target->builder);
	}
	/* Raw images have no index that tells what is there. */
	return r < 0 && r != -EINVAL ? failed(target, r, err) : 0;
}

static int target_image(struct copy_sink *sink, const struct stream_image *image, uint64_t size,
			struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	const struct builder_config config = {
		.raw = image->raw,
		.version = image->version,
		.cluster = image->cluster,
		.size = size,
		.base = image->flags & STREAM_BASE,
		.resumable = target->resume,
	};
	int r;

	if (target->folder ? !is_named(target, image->name) : target->images)
		return protocol(err, "an image that nothing names");
	if (!size || size % SECTOR)
		return protocol(err, "a disk that is not made of sectors");
	target->size = size;
	r = open_file(target, image, err);
	if (r == 0)
		r = builder_new(&config, &target->file.out, &target->builder, err);
	if (r == -EINVAL)
		r = protocol(err, "an image of impossible shape");
	if (r == 0 && target->resume)
		r = resume(target, err);
	return r;
}

/* No sum of a stranger's numbers is trusted. */
static int check_range(const struct copy_target *target, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	uint64_t end;

	if (!target->builder || !checked_add(offset, len, &end) || end > target->size)
		return protocol(err, "a range outside the disk");
	return 0;
}

static int target_data(struct copy_sink *sink, const void *data, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	int r = check_range(target, len, offset, err);

	if (r < 0)
		return r;
	r = builder_write(target->builder, data, len, offset);
	return r < 0 ? failed(target, r, err) : 0;
}

static int target_clone(struct copy_sink *sink, int fd, uint64_t from, uint64_t len, uint64_t offset,
			struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	int r = check_range(target, len, offset, err);

	if (r < 0)
		return r;
	r = builder_clone(target->builder, fd, from, len, offset);
	return r == -ENOSPC || r == -EDQUOT || r == -EFBIG || r == -EIO ? failed(target, r, err)
	       : r < 0                                                  ? -EOPNOTSUPP
									: 0;
}

static int target_zero(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	int r = check_range(target, len, offset, err);

	if (r < 0)
		return r;
	r = builder_zero(target->builder, offset, len);
	return r < 0 ? failed(target, r, err) : 0;
}

static int target_discard(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	int r = check_range(target, len, offset, err);

	if (r < 0)
		return r;
	r = builder_discard(target->builder, offset, len);
	if (r == -EINVAL)
		return protocol(err, "a part of a cluster is discarded");
	return r < 0 ? failed(target, r, err) : 0;
}

static void close_image(struct copy_target *target)
{
	builder_free(target->builder);
	target->builder = NULL;
	builder_file_close(&target->file);
	free(take_ptr(target->path));
}

static int target_image_end(struct copy_sink *sink, struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	int r;

	if (!target->builder)
		return protocol(err, "the end of no image");
	r = builder_finish(target->builder);
	if (r < 0)
		return failed(target, r, err);
	close_image(target);
	target->images++;
	return 0;
}

static int target_sync(struct copy_sink *sink, struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);

	if (target->builder && fdatasync(target->file.fd) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSYNC, "%s", target->path);
	return 0;
}

static int finish_stack(struct copy_target *target, struct ploop_error *err)
{
	_free_ char *text = NULL;
	size_t len;
	int r;

	for (uint32_t i = 0; i < target->descriptor->nsnapshots; i++) {
		const char *file = target->descriptor->snapshots[i].file;

		if (!file || !dir_exists(target->folder, file))
			return protocol(err, "not all images of the disk came");
	}
	if (target->images != target->descriptor->nsnapshots)
		return protocol(err, "not all images of the disk came");
	r = descriptor_to_text(target->descriptor, &text, &len);
	if (r == 0)
		r = dir_replace(target->folder, DESCRIPTOR_NAME, text, len);
	if (r == 0)
		r = dir_sync(target->folder);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s/%s", target->part.path, DESCRIPTOR_NAME) : 0;
}

static int target_finish(struct copy_sink *sink, struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	int r = 0;

	if (target->builder || !target->images)
		return protocol(err, "the end before the end of an image");
	if (target->folder)
		r = finish_stack(target, err);
	if (r == 0)
		r = copy_part_publish(&target->part, err);
	target->finished = r == 0;
	return r;
}

static int target_have(struct copy_sink *sink, int (*each)(void *data, const struct stream_have *have), void *data,
		       struct ploop_error *err)
{
	struct copy_target *target = target_of(sink);
	const struct geometry *g = builder_geometry(target->builder);
	_free_ char *buffer = malloc(g->cluster);
	int r = 0;

	if (!buffer)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", target->path);
	for (uint32_t v = builder_next(target->builder, 0); v != UINT32_MAX; v = builder_next(target->builder, v + 1)) {
		struct stream_have have = { .offset = (uint64_t)v * g->cluster };

		r = builder_read(target->builder, v, buffer);
		if (r < 0)
			return error_sys(err, r, PLOOP_EXIT_READ, "Can't read %s", target->path);
		stream_digest(buffer, min_u64(g->cluster, g->size - have.offset), have.digest);
		r = each(data, &have);
		if (r)
			break;
	}
	return r;
}

static void target_free(struct copy_sink *sink)
{
	struct copy_target *target = target_of(sink);

	close_image(target);
	if (!target->finished && target->made && !target->resume)
		copy_part_remove(&target->part);
	dir_close(target->folder);
	descriptor_free(target->descriptor);
	copy_part_close(&target->part);
	free(target);
}

static const struct copy_sink_ops target_ops = {
	.descriptor = target_descriptor,
	.image = target_image,
	.data = target_data,
	.clone = target_clone,
	.zero = target_zero,
	.discard = target_discard,
	.image_end = target_image_end,
	.sync = target_sync,
	.finish = target_finish,
	.have = target_have,
	.free = target_free,
};

int copy_target_new(const char *path, bool resume, struct copy_sink **ret, struct ploop_error *err)
{
	struct copy_target *target = calloc(1, sizeof(*target));
	int r;

	if (!target)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	target->sink.ops = &target_ops;
	target->resume = resume;
	target->file.fd = -EBADF;
	r = copy_part_open(&target->part, path, resume, err);
	if (r < 0) {
		free(target);
		return r;
	}
	*ret = &target->sink;
	return 0;
}
