/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot-merge.c - merging by snapshots: which images they are and who has them, then the merge itself (merge.c,
 * merge-levels.c), at the end of which the files go that the descriptor does not name any more.
 *
 * The lock of the disk is given back between these, and what was found is looked at again by the merge: it goes by files.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/tree.h"
#include "lib/branch.h"
#include "lib/merge-names.h"

/* Snapshots of one branch, the lowest first, that become one. */
struct piece {
	char *descriptor;
	unsigned n;
	bool raw;
	struct guid low_guid, high_guid;
	char *paths[TREE_MAX_DEPTH]; /* absolute */
	char device[64];             /* that has them all; "" when they are not in use */
	uint32_t low, high;          /* levels there */
};

static void cleanup_piece(struct piece *piece)
{
	for (unsigned i = 0; i < piece->n; i++)
		free(piece->paths[i]);
	free(piece->descriptor);
}

/* Where in its branch the lowest is: chain[n - 1] is the uppermost. */
static int find_low(const struct change *change, const struct ploop_snapshot_merge *what, const struct snapshot **chain,
		    int n, int *ret, struct ploop_error *err)
{
	const struct snapshot *low;
	int r;

	if (n < 2)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Can't find parent of uuid %s (is that a base image?)",
				 chain[n - 1]->guid.text);
	*ret = what->all ? 0 : n - 2;
	if (!what->ancestor)
		return 0;
	r = change_find(change, what->ancestor, &low, err);
	if (r < 0)
		return r;
	for (int i = 0; i < n - 1; i++) {
		if (chain[i] == low) {
			*ret = i;
			return 0;
		}
	}
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is not below %s", low->guid.text, chain[n - 1]->guid.text);
}

static int take_files(struct piece *piece, const struct change *change, const struct snapshot **chain, unsigned n,
		      struct ploop_error *err)
{
	piece->raw = descriptor_raw(chain[0]);
	piece->low_guid = chain[0]->guid;
	piece->high_guid = chain[n - 1]->guid;
	piece->descriptor = strdup(change->path);
	for (; piece->n < n; piece->n++) {
		const struct snapshot *s = chain[piece->n];

		piece->paths[piece->n] = descriptor_file(change->descriptor, s);
		if (!piece->paths[piece->n] || !piece->descriptor) {
			piece->n++;
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
		}
	}
	return 0;
}

static bool level_of(const struct ploop_device *device, const char *path, uint32_t *ret)
{
	for (size_t i = 0; i < device->nimages; i++) {
		if (change_same_file(device->images[i], path)) {
			*ret = (uint32_t)i;
			return true;
		}
	}
	return false;
}

/* In the words of the original. */
static void tell(const struct piece *piece)
{
	log_info("%sline snapshot merge %s -> %s", *piece->device ? "On" : "Off", piece->high_guid.text,
		 piece->low_guid.text);
}

/* Nobody but `device` may have them open: they are written to, or go. */
static int check_others(const struct change *change, const struct snapshot *const *chain, unsigned n,
			const struct ploop_device *device, struct ploop_error *err)
{
	for (unsigned i = 0; i < n; i++) {
		const struct ploop_device *other;
		size_t from = 0;

		while ((other = change_user(change, chain[i], &from)))
			if (other != device)
				return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "Snapshot %s is busy by device(s): %s",
						 chain[i]->guid.text, other->device);
	}
	return 0;
}

/* The device that merges them: it has the uppermost, and writes to the disk if one does. */
static const struct ploop_device *find_merger(const struct change *change, const struct snapshot *high)
{
	const struct ploop_device *device, *merger = NULL;
	size_t from = 0;

	while ((device = change_user(change, high, &from)))
		if (!merger || device == change->writer)
			merger = device;
	return merger;
}

/* The device that has the uppermost, if there is one. */
static int find_device(struct piece *piece, const struct change *change, const struct snapshot **chain,
		       struct ploop_error *err)
{
	const struct ploop_device *device = find_merger(change, chain[piece->n - 1]);
	int r = 0;

	for (unsigned i = 0; i + 1 < piece->n && !device; i++) {
		size_t from = 0;

		if (change_user(change, chain[i], &from))
			return error_set(err, -EBUSY, PLOOP_EXIT_PARAM,
					 "Can't do mixed merge (some deltas are online, some are offline)");
	}
	if (!device)
		return 0;
	r = check_others(change, chain, piece->n, device, err);
	if (r < 0)
		return r;
	if (!level_of(device, piece->paths[0], &piece->low) ||
	    !level_of(device, piece->paths[piece->n - 1], &piece->high) || piece->high - piece->low != piece->n - 1)
		return error_set(err, -EUCLEAN, PLOOP_EXIT_DISKDESCR,
				 "%s and %s, which runs on it, do not agree on the images; unmount it first",
				 change->path, device->device);
	memcpy(piece->device, device->device, strnlen(device->device, sizeof(piece->device) - 1));
	return 0;
}

/* chain[0 .. n-1] become one. Returns 1 and no piece when a branch must be taken off first. */
static int look_at(const struct change *change, const struct snapshot **chain, unsigned n, struct piece *piece,
		   struct branch *branch, struct ploop_error *err)
{
	int r = branch_find(change, chain, n, branch, err);

	if (r == 0)
		r = take_files(piece, change, chain, n, err);
	return r ? r : find_device(piece, change, chain, err);
}

static int look(const struct ploop_snapshot_merge *what, struct piece *piece, struct branch *branch,
		struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF };
	const struct snapshot *chain[TREE_MAX_DEPTH], *high;
	int n, low = 0, r = change_begin(&change, what->disk, err);

	if (r == 0)
		r = change_check_format(&change, err);
	if (r < 0)
		return r;
	high = descriptor_top(change.descriptor);
	if (what->uuid)
		r = change_find(&change, what->uuid, &high, err);
	if (r < 0)
		return r;
	n = tree_chain(change.descriptor, high, chain, err);
	if (n < 0)
		return n;
	r = find_low(&change, what, chain, n, &low, err);
	return r < 0 ? r : look_at(&change, chain + low, (unsigned)(n - low), piece, branch, err);
}

static int merge_online(const struct ploop_snapshot_merge *what, const struct piece *piece, struct ploop_error *err)
{
	const struct ploop_merge_levels merge = {
		.device = piece->device,
		.low = piece->low,
		.high = piece->high,
		.bytes_a_second = what->bytes_a_second,
		.progress = what->progress,
		.progress_data = what->progress_data,
	};

	if (what->new_image)
		return error_set(err, -EBUSY, PLOOP_EXIT_PARAM,
				 "%s uses the images: merge them into a new one (-n) while the disk is not mounted",
				 piece->device);
	return merge_levels(&merge, piece->descriptor, err);
}

static int merge_offline(const struct ploop_snapshot_merge *what, const struct piece *piece, struct ploop_error *err)
{
	const struct ploop_merge merge = {
		.images = (const char *const *)piece->paths,
		.nimages = piece->n,
		.base_format = piece->raw ? "raw" : NULL,
		.new_image = what->new_image,
		.bytes_a_second = what->bytes_a_second,
		.progress = what->progress,
		.progress_data = what->progress_data,
	};

	return merge_images(&merge, piece->descriptor, err);
}

int ploop_snapshot_merge(const struct ploop_snapshot_merge *what, struct ploop_error *err)
{
	_cleanup_(cleanup_piece) struct piece piece = { 0 };
	struct branch branch;
	int r;

	if (what->all && (what->uuid || what->ancestor))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Options -u and -A can't be used together");
	while ((r = look(what, &piece, &branch, err)) > 0) {
		r = branch_detach(what, what->disk, &branch, err);
		branch_clear(&branch);
		if (r < 0)
			break;
	}
	if (r == 0)
		tell(&piece);
	if (r == 0)
		r = *piece.device ? merge_online(what, &piece, err) : merge_offline(what, &piece, err);
	if (r < 0)
		return r;
	log_write(LOG_LEVEL_RESULT, "ploop snapshot has been successfully merged");
	return 0;
}
