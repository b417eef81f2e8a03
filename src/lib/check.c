/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check.c - ploop_check(): finds and locks the images of a disk, and has each checked. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/journal.h"
#include "image/level.h"
#include "image/tree.h"
#include "io/io.h"
#include "io/loop.h"
#include "job/check-private.h"
#include "job/check.h"
#include "job/undo.h"
#include "lib/recover.h"

const char *ploop_check_kind_name(enum ploop_check_kind kind)
{
	return (unsigned)kind < PLOOP_CHECK_KINDS ? check_kinds[kind].name : "unknown";
}

/* One run of ploop_check(). */
struct run {
	const struct ploop_check_options *options;
	struct loop *loop;
	const struct io_ops *module;
	struct io_file *undo_file; /* NULL: none */
	uint32_t raw_cluster;      /* bytes, of a raw image */
	bool changed;
	enum ploop_exit status;
	struct ploop_check_image last; /* the image below the one that is checked */
	unsigned done;
};

static bool writes(const struct ploop_check_options *options)
{
	return !options->read_only && (options->repair != PLOOP_CHECK_REPAIR_NONE || options->drop_in_use);
}

static int open_undo(struct run *run, uint64_t image_size, struct undo **ret, struct ploop_error *err)
{
	const char *path = run->options->undo, *name;
	_dir_close_ struct dir *dir = NULL;
	int r;

	if (!path || !writes(run->options))
		return 0;
	r = dir_open_parent(NULL, path, &dir, &name, err);
	if (!r)
		r = io_open(run->loop, run->module, path, IO_RDWR | IO_CREATE, &run->undo_file, err);
	if (r)
		return r;
	r = undo_new(run->undo_file, image_size, ret);
	if (!r)
		r = dir_sync(dir);
	return r ? error_sys(err, r, PLOOP_EXIT_WRITE, "cannot write %s", path) : 0;
}

/* An undo file that would undo nothing is not left behind. */
static void close_undo(struct run *run)
{
	if (!run->undo_file)
		return;
	io_close(run->undo_file);
	if (!run->changed)
		unlink(run->options->undo);
}

/* Images of one disk have one cluster size, and none is smaller than the one below. */
static int fits(const struct run *run, const struct ploop_check_image *image, struct ploop_error *err)
{
	if (!run->done || !run->last.cluster || !image->cluster)
		return 0;
	if (image->cluster != run->last.cluster)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect blocksize %s bs=%u [current bs=%u]",
				 image->path, image->cluster / SECTOR, run->last.cluster / SECTOR);
	if (image->size < run->last.size)
		return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, "%s is smaller than the image below it", image->path);
	return 0;
}

static int check_file(struct run *run, struct io_file *file, bool raw, struct ploop_error *err)
{
	struct check_request request = { .options = run->options, .raw_cluster = run->raw_cluster };
	struct ploop_check_image image;
	uint64_t size;
	int r;

	r = io_size(file, &size);
	if (r)
		return error_sys(err, r, PLOOP_EXIT_FSTAT, "cannot read %s", file->path);
	r = raw ? 0 : open_undo(run, size, &request.undo, err);
	if (!r)
		r = raw ? check_raw(file, &request, &image, err) : check_image(file, &request, &image, err);
	undo_free(request.undo);
	if (r)
		return r;
	run->changed |= image.changed;
	if (run->options->image)
		run->options->image(run->options->data, &image);
	if (!run->status)
		run->status = image.status;
	r = fits(run, &image, err);
	run->last = image;
	run->done++;
	return r;
}

static int check_level_file(struct run *run, const struct level_request *level, bool raw, struct ploop_error *err)
{
	struct delta delta = { 0 };
	int lock = -1;
	int r = level_open(level, &delta, &lock, err);

	if (r == -EXDEV)
		return error_set(err, r, PLOOP_EXIT_PARAM,
				 "%s lies outside its disk's folder; if you trust it, say --outside", level->name);
	if (r)
		return err && err->status == PLOOP_EXIT_IN_USE ? error_prefix(err, r, "Can't check") : r;
	r = check_file(run, delta.file, raw, err);
	io_close(delta.file);
	if (lock >= 0)
		close(lock);
	return r;
}

static int check_one(struct run *run, const char *path, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	struct level_request level = { .loop = run->loop, .module = run->module, .write = writes(run->options) };
	int r = dir_open_parent(NULL, path, &dir, &level.name, err);

	if (r)
		return r;
	level.dir = dir;
	return check_level_file(run, &level, run->options->raw, err);
}

static int find_chain(const struct run *run, const struct descriptor *d, const struct snapshot *chain[TREE_MAX_DEPTH],
		      struct ploop_error *err)
{
	const struct snapshot *snapshot = descriptor_top(d);
	const char *wanted = run->options->snapshot;
	struct guid guid;

	if (wanted) {
		if (!guid_parse(wanted, &guid))
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect uuid specified: %s", wanted);
		snapshot = descriptor_find(d, &guid);
	}
	if (!snapshot)
		return error_set(err, -ENOENT, PLOOP_EXIT_NO_SNAPSHOT, "Uuid %s not found in %s", wanted, d->path);
	return tree_chain(d, snapshot, chain, err);
}

static int check_chain(struct run *run, const struct descriptor *d, struct dir *dir, struct ploop_error *err)
{
	const struct snapshot *chain[TREE_MAX_DEPTH];
	int r = 0, n = find_chain(run, d, chain, err);

	if (n < 0)
		return n;
	run->raw_cluster = d->cluster;
	if (run->options->undo && n > 1)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "An undo file is for one image, and %s has %d: name the image", d->path, n);
	for (int i = 0; i < n && !r; i++) {
		struct level_request level = {
			.loop = run->loop,
			.module = run->module,
			.dir = dir,
			.name = chain[i]->file,
			.beneath = !run->options->outside,
			.write = writes(run->options) && !descriptor_raw(chain[i]),
		};

		r = check_level_file(run, &level, descriptor_raw(chain[i]), err);
	}
	return r;
}

/* Clusters that are only partly there are data, and the rest of them lies below: only the disk as a whole can be made whole. What
 * stands in the way of that is found by the check. */
static void complete(const struct run *run, const char *path, const struct descriptor *d)
{
	const struct snapshot *chain[TREE_MAX_DEPTH];
	bool outside = run->options->outside;
	struct ploop_error why;
	int n;

	if (run->options->read_only || run->options->repair < PLOOP_CHECK_REPAIR_SAFE)
		return;
	n = find_chain(run, d, chain, NULL);
	if (n < 0 || !recover_is_needed(d, chain[n - 1], outside))
		return;
	log_info("%s was not closed: its images are completed first", path);
	if (recover_images(path, d, chain[n - 1], outside, &why) < 0)
		log_warning("%s", why.text);
}

static int check_disk(struct run *run, const char *path, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	_dir_close_ struct dir *dir = NULL;
	_close_
	int lock = -EBADF;
	const char *name;
	int r = 0;

	if (run->options->raw)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is a descriptor: it says itself what is raw",
				 path);
	if (writes(run->options))
		r = journal_lock_disk(path, LOCK_WAIT_MS, &lock, err);
	if (!r)
		r = dir_open_parent(NULL, path, &dir, &name, err);
	if (!r)
		r = descriptor_read(dir, name, &d, err);
	if (r)
		return r;
	complete(run, path, d);
	return check_chain(run, d, dir, err);
}

static int check_operand(struct run *run, const char *operand, struct ploop_error *err)
{
	_free_
	char *path = NULL;
	int r = descriptor_find_file(operand, &path, err);

	if (r < 0)
		return r;
	if (r)
		return check_disk(run, path, err);
	if (run->options->snapshot)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Option -u is only applicable to DiskDescriptor.xml syntax");
	if (run->options->raw && !run->options->cluster)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Cluster blocksize required for raw image (-b)");
	return check_one(run, operand, err);
}

int ploop_check(const char *operand, const struct ploop_check_options *options, enum ploop_exit *ret_status,
		struct ploop_error *err)
{
	const struct ploop_check_options nothing = { 0 };
	struct run run = { .options = options ? options : &nothing, .module = io_module_find("sync") };
	int r = loop_new(NULL, 8, &run.loop, err);

	if (r)
		return r;
	run.raw_cluster = run.options->cluster;
	r = check_operand(&run, operand, err);
	close_undo(&run);
	loop_free(run.loop);
	if (!r)
		*ret_status = run.status;
	return r;
}

static int undo_image(struct loop *loop, const char *path, struct io_file *log, bool force, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	struct level_request level = { .loop = loop, .module = io_module_find("sync"), .write = true };
	struct delta delta = { 0 };
	int lock = -1;
	int r = dir_open_parent(NULL, path, &dir, &level.name, err);

	if (r)
		return r;
	level.dir = dir;
	r = level_open(&level, &delta, &lock, err);
	if (r)
		return r;
	r = undo_apply(log, delta.file, force, err);
	io_close(delta.file);
	if (lock >= 0)
		close(lock);
	return r;
}

int ploop_check_undo(const char *image, const char *undo, bool force, struct ploop_error *err)
{
	struct io_file *log;
	struct loop *loop;
	int r = loop_new(NULL, 8, &loop, err);

	if (r)
		return r;
	r = io_open(loop, io_module_find("sync"), undo, IO_RDONLY, &log, err);
	if (!r) {
		r = undo_image(loop, image, log, force, err);
		io_close(log);
	}
	loop_free(loop);
	return r;
}
