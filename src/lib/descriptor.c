/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* descriptor.c - makes the descriptor of a disk anew, from its base. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/ploop1.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/lock.h"
#include "image/stack.h"

static void cleanup_stack(struct stack **stack)
{
	stack_close(*stack);
}

/* The largest cluster that divides the size of a raw image. */
static int guess_cluster(const char *image, uint32_t *ret, struct ploop_error *err)
{
	struct stat st;

	if (stat(image, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", image);
	for (uint32_t cluster = 1 << 20; cluster >= PLOOP1_CLUSTER_MIN; cluster /= 2) {
		if (st.st_size > 0 && st.st_size % cluster == 0) {
			*ret = cluster;
			return 0;
		}
	}
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Image size must be aligned to 32K: %s has %lld bytes", image,
			 (long long)st.st_size);
}

/* What the image itself says. It may be in use: only its header is read. */
static int read_base(const struct ploop_restore *what, struct image_params *ret, struct ploop_error *err)
{
	_cleanup_(cleanup_stack)
	struct stack *stack = NULL;
	struct stack_request request = {
		.operands = &what->image,
		.noperands = 1,
		.base_format = what->format,
		.cluster = what->cluster,
		.read_only = true,
		.unlocked = true,
	};
	bool raw = what->format && !strcmp(what->format, "raw");
	const struct geometry *g;
	int r = raw && !what->cluster ? guess_cluster(what->image, &request.cluster, err) : 0;

	if (!r)
		r = stack_open(NULL, &request, &stack, err);
	if (r < 0)
		return r;
	if (stack->descriptor)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is a descriptor; name the base image",
				 what->image);
	g = &stack->levels[0].geometry;
	*ret = (struct image_params){
		.mode = raw ? IMAGE_RAW : IMAGE_EXPANDED,
		.version = g->version,
		.size = g->size,
		.cluster = g->cluster,
	};
	return 0;
}

/* A descriptor that knows of snapshots is worth more than one made from the base alone. */
static int refuse_loss(struct dir *dir, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *old = NULL;

	if (descriptor_read(dir, DESCRIPTOR_NAME, &old, NULL) < 0 || old->nsnapshots == 1)
		return 0;
	return error_set(err, -EEXIST, PLOOP_EXIT_PARAM,
			 "%s names %u images, and a new one would name only the base; move it away if that is wanted",
			 old->path, old->nsnapshots);
}

struct deltas {
	const char *base;
	unsigned n;
};

static int count_delta(void *data, const char *name)
{
	struct deltas *deltas = data;
	size_t len = strlen(deltas->base);

	if (!strncmp(name, deltas->base, len) && name[len] == '.' && name[len + 1] == '{')
		deltas->n++;
	return 0;
}

/* Files beside the base that are called as its deltas are. */
static void warn_of_deltas(const char *image)
{
	_dir_close_ struct dir *dir = NULL;
	struct deltas deltas = { 0 };

	if (dir_open_parent(NULL, image, &dir, &deltas.base, NULL) < 0 || dir_list(dir, count_delta, &deltas) < 0)
		return;
	if (deltas.n)
		log_warning("%u delta%s %s.{..} beside it: the descriptor does not name %s, and writing to the disk "
			    "makes %s "
			    "useless",
			    deltas.n, deltas.n > 1 ? "s" : "", image, deltas.n > 1 ? "them" : "it",
			    deltas.n > 1 ? "them" : "it");
}

/* Relative to the folder when the image lies in it. */
static const char *name_in(const struct dir *dir, const char *image)
{
	size_t len = strlen(dir->path);

	return !strncmp(image, dir->path, len) && image[len] == '/' ? image + len + 1 : image;
}

static int write_descriptor(struct dir *dir, const char *image, const struct image_params *params,
			    struct ploop_error *err)
{
	_free_
	char *path = dir_path(dir, DESCRIPTOR_NAME);
	_descriptor_free_ struct descriptor *d = NULL;
	_close_
	int lock = -EBADF;
	int r;

	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", dir->path);
	r = lock_disk(path, LOCK_WAIT_MS, &lock, err);
	if (!r)
		r = refuse_loss(dir, err);
	if (!r)
		r = descriptor_new(path, name_in(dir, image), params, &d, err);
	if (!r)
		r = descriptor_store(d, dir, DESCRIPTOR_NAME, err);
	return r;
}

int ploop_restore_descriptor(const struct ploop_restore *what, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	_free_
	char *image = NULL;
	struct image_params params;
	int r = read_base(what, &params, err);

	if (r < 0)
		return r;
	r = dir_open(NULL, what->folder, &dir, err);
	if (r < 0)
		return r;
	image = realpath(what->image, NULL);
	if (!image)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", what->image);
	r = write_descriptor(dir, image, &params, err);
	if (!r)
		warn_of_deltas(image);
	return r;
}
