/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-stack.c - see copy-stack.h. All images but the top are only read by anybody, so one pass over each is enough. One that is
 * removed meanwhile stays what it is until we close it: the copy is the disk as it was when it began.
 */
#include "lib/copy-stack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/descriptor.h"
#include "lib/copy-have.h"
#include "lib/copy-read.h"

void copy_stack_name(const char *path, char ret[STREAM_NAME_MAX + 1])
{
	const char *slash = strrchr(path, '/');

	snprintf(ret, STREAM_NAME_MAX + 1, "%s", slash ? slash + 1 : path);
}

/* In the copy all images lie beside the descriptor, as they must do here: two could have the same name else. */
static int check_folder(const struct descriptor *d, const char *path, struct ploop_error *err)
{
	size_t folder = (size_t)(strrchr(d->path, '/') - d->path) + 1;

	if (strncmp(path, d->path, folder) || strchr(path + folder, '/') || strlen(path + folder) > STREAM_NAME_MAX)
		return error_set(err, -EXDEV, PLOOP_EXIT_PARAM, "%s is not in the folder of %s: --all cannot take it along",
				 path, d->path);
	return 0;
}

static int check_images(struct descriptor *d, const struct ploop_device *device, struct ploop_error *err)
{
	const char *top = device->images[device->nimages - 1];

	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		_free_ char *path = d->snapshots[i].file ? descriptor_file(d, &d->snapshots[i]) : NULL;
		int r;

		if (!path)
			return error_set(err, -EINVAL, PLOOP_EXIT_DISKDESCR, "%s: a snapshot without an image", d->path);
		r = check_folder(d, path, err);
		if (r == 0)
			r = descriptor_set_file(d, &d->snapshots[i].guid, path);
		if (r < 0)
			return r;
		if (&d->snapshots[i] == descriptor_top(d) && strcmp(path, top))
			return error_set(err, -ESTALE, PLOOP_EXIT_PARAM,
					 "%s serves %s, which is not the top of %s: --all copies a disk as it is now",
					 device->device, top, d->path);
	}
	return 0;
}

static int send_descriptor(const struct descriptor *d, struct copy_sink *sink, struct ploop_error *err)
{
	_free_ char *text = NULL;
	size_t len;
	int r = descriptor_to_text(d, &text, &len);

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", d->path);
	return sink->ops->descriptor(sink, text, len, err);
}

struct runs {
	struct copy_run *run;
	size_t n;
};

/* What is mapped, and what is not but is there on the other side. */
static int list_runs(const struct ploop_disk *disk, const struct copy_have *have, struct runs *ret, struct ploop_error *err)
{
	uint64_t size = ploop_disk_size(disk), cluster = ploop_disk_cluster(disk);
	struct ploop_extent extent;
	size_t n = 0, room = have->n;

	for (uint64_t at = 0; ploop_disk_extent(disk, at, &extent); at = extent.offset + extent.length)
		room += div_round_up(extent.length, cluster) * extent.mapped;
	ret->run = calloc(room + 1, sizeof(*ret->run));
	if (!ret->run)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	for (uint64_t at = 0; ploop_disk_extent(disk, at, &extent); at = extent.offset + extent.length)
		for (uint64_t done = 0; extent.mapped && done < extent.length; done += cluster)
			ret->run[n++] = (struct copy_run){ .offset = extent.offset + done,
							   .length = min_u64(cluster, extent.length - done),
							   .file_offset = extent.file_offset + done };
	for (size_t i = 0; i < have->n; i++) {
		uint64_t at = have->entries[i].offset;

		if (ploop_disk_extent(disk, at, &extent) && !extent.mapped)
			ret->run[n++] = (struct copy_run){ .offset = at,
							   .length = min_u64(cluster, size - at),
							   .level = COPY_NOWHERE };
	}
	ret->n = n;
	return 0;
}

static int send_runs(struct copy_reader *reader, struct ploop_disk *disk, const struct ploop_copy *copy,
		     struct copy_sink *sink, struct ploop_error *err)
{
	_free_ struct copy_run *list = NULL;
	struct copy_have have = { 0 };
	struct runs runs = { 0 };
	uint64_t size = ploop_disk_size(disk);
	int r = 0;

	if (copy->resume)
		r = copy_have_take(&have, sink, size, ploop_disk_cluster(disk), err);
	if (r == 0)
		r = list_runs(disk, &have, &runs, err);
	list = runs.run;
	if (r == 0)
		r = copy_have_drop(&have, reader, size, runs.run, &runs.n, err);
	for (size_t done = 0; r == 0 && done < runs.n;) {
		size_t n = min_u64(COPY_RUNS, runs.n - done);

		r = copy_reader_send(reader, runs.run + done, n, sink, err);
		done += n;
		if (r == 0 && copy->progress &&
		    copy->progress(copy->progress_data, "snapshots", copy_reader_bytes(reader), 0))
			r = error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "stopped; the source is as it was");
	}
	copy_have_clear(&have);
	return r;
}

static int send_disk(struct ploop_disk *disk, char *path, bool base, const struct ploop_copy *copy,
		     struct copy_sink *sink, struct ploop_error *err)
{
	struct copy_reader *reader;
	struct ploop_level level;
	struct stream_image image = { .cluster = ploop_disk_cluster(disk), .flags = base ? STREAM_BASE : 0 };
	int r = ploop_disk_level(disk, 0, &level, err);

	if (r < 0)
		return r;
	image.raw = !strcmp(level.format, "raw");
	image.version = image.raw ? 0 : level.version;
	copy_stack_name(path, image.name);
	log_info("Sending %s", path);
	r = copy_reader_new(&path, 1, &reader, err);
	if (r < 0)
		return r;
	copy_reader_limit(reader, copy->bytes_a_second);
	copy_reader_share(reader, 1);
	r = sink->ops->image(sink, &image, ploop_disk_size(disk), err);
	if (r == 0)
		r = send_runs(reader, disk, copy, sink, err);
	if (r == 0)
		r = sink->ops->image_end(sink, err);
	copy_reader_free(reader);
	return r;
}

static int send_image(const struct descriptor *d, const struct snapshot *snapshot, const struct ploop_copy *copy,
		      struct copy_sink *sink, struct ploop_error *err)
{
	_free_ char *path = descriptor_file(d, snapshot);
	const char *const paths[] = { path };
	struct ploop_files files = { .paths = paths, .npaths = 1 };
	struct ploop_disk *disk;
	int r;

	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", d->path);
	if (descriptor_raw(snapshot)) {
		files.format = "raw";
		files.cluster = d->cluster;
	}
	r = ploop_disk_open(&files, &disk, err);
	if (r < 0)
		return r;
	r = send_disk(disk, path, snapshot->up == SNAPSHOT_NONE, copy, sink, err);
	ploop_disk_close(disk);
	return r;
}

int copy_stack_send(const struct ploop_device *device, const struct ploop_copy *copy, struct copy_sink *sink,
		    struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	int r;

	if (!device->descriptor)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "%s was mounted without a descriptor: --all does not know what belongs to it",
				 device->device);
	r = descriptor_open(device->descriptor, &d, err);
	if (r == 0)
		r = check_images(d, device, err);
	if (r == 0)
		r = send_descriptor(d, sink, err);
	for (uint32_t i = 0; r == 0 && i < d->nsnapshots; i++)
		if (&d->snapshots[i] != descriptor_top(d))
			r = send_image(d, &d->snapshots[i], copy, sink, err);
	return r;
}
