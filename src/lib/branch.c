/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * branch.c - see branch.h.
 *
 * A child is not written to: it is merged, with what it lies on, into a new file, which then takes its place. So a crash needs no
 * thought but that of the journal, however many children there are, and where the file system clones ranges no data is moved:
 *  1. The journal names the new file and the child's old one, durably.
 *  2. The new file is made and filled. It maps all that the child reads from the images that are about to go, zeros too.
 *  3. Under the lock of the disk again the descriptor names it, with its new parent, durably.
 *  4. The old file goes, then the journal.
 * Each child is a change of its own: cut off between two, the disk is right, and the same verb once more does the rest.
 *
 * A disk has one base. When it is the base that goes, its children cannot all become bases; so one of them, the heir, does, and the
 * others are made on it: what the heir has and they must not see is covered by holes in step 2.
 */
#include "lib/branch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/stack.h"
#include "lib/disk.h"
#include "lib/merge-names.h"

void branch_clear(struct branch *branch)
{
	for (unsigned i = 0; i < branch->n; i++)
		free(branch->images[i]);
	for (unsigned i = 0; i < branch->nmasks; i++)
		free(branch->masks[i]);
	branch->n = branch->nmasks = 0;
}

static void cleanup_stack(struct stack **stack)
{
	stack_close(*stack);
}

/* ---- Finding ---- */

static bool take_path(const struct change *change, const struct snapshot *snapshot, char **paths, unsigned *n)
{
	paths[*n] = snapshot->file ? descriptor_file(change->descriptor, snapshot) : NULL;
	return paths[*n] && ++*n;
}

/* A child of chain[at] that is not the next of the chain. */
static const struct snapshot *other_child(const struct change *change, const struct snapshot *const *chain, unsigned at)
{
	const struct snapshot *child;

	tree_for_each_child (child, change->descriptor, chain[at])
		if (child != chain[at + 1])
			return child;
	return NULL;
}

static int check_free(const struct change *change, const struct snapshot *child, struct ploop_error *err)
{
	size_t from = 0;
	const struct ploop_device *device = change_user(change, child, &from);

	if (!device)
		return 0;
	return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "Snapshot %s is busy by device(s): %s", child->guid.text,
			 device->device);
}

static int fill(const struct change *change, const struct snapshot *const *chain, unsigned n, unsigned at,
		const struct snapshot *child, struct branch *ret)
{
	bool base = tree_is_base(chain[0]);
	bool good = true;

	*ret = (struct branch){ .child = child->guid, .parent = base ? chain[n - 1]->guid : chain[0]->parent };
	for (unsigned i = 0; i <= at && good; i++)
		good = take_path(change, chain[i], ret->images, &ret->n);
	good = good && take_path(change, child, ret->images, &ret->n);
	for (unsigned i = at + 1; i < n && base && good; i++)
		good = take_path(change, chain[i], ret->masks, &ret->nmasks);
	if (good)
		return 0;
	branch_clear(ret);
	return -ENOMEM;
}

int branch_find(const struct change *change, const struct snapshot *const *chain, unsigned n, struct branch *ret,
		struct ploop_error *err)
{
	const struct snapshot *child = NULL;
	unsigned at;
	int r;

	for (at = 0; at + 1 < n && !child; at++)
		child = other_child(change, chain, at);
	if (!child)
		return 0;
	at--;
	if (tree_is_base(chain[0]) && (chain[n - 1] == descriptor_top(change->descriptor) || descriptor_raw(chain[0])))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Can't merge to snapshot %s: it has %u children",
				 chain[at]->guid.text, chain[at]->children);
	r = check_free(change, child, err);
	if (r < 0)
		return r;
	r = fill(change, chain, n, at, child, ret);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", change->path) : 1;
}

/* ---- The heir ---- */

static uint64_t allocated(const struct change *change, const struct snapshot *snapshot)
{
	_free_ char *file = snapshot->file ? descriptor_file(change->descriptor, snapshot) : NULL;
	struct stat st;

	return file && stat(file, &st) == 0 ? (uint64_t)st.st_blocks : 0;
}

static bool in_use(const struct change *change, const struct snapshot *snapshot)
{
	return check_free(change, snapshot, NULL) < 0;
}

/*
 * Where the base goes the others are made on the heir, and nothing is made on what is larger than it is. `least` is the size of the
 * smallest disk among the children; 0: any will do.
 */
static int find_least(const struct change *change, const struct snapshot *snapshot, uint64_t *ret,
		      struct ploop_error *err)
{
	const struct snapshot *child;
	struct geometry geometry;
	int r = 0;

	*ret = UINT64_MAX;
	tree_for_each_child (child, change->descriptor, snapshot) {
		r = change_look(change, child, &geometry, NULL, err);
		if (r < 0)
			return r;
		if (geometry.size < *ret)
			*ret = geometry.size;
	}
	return 0;
}

static bool fits(const struct change *change, const struct snapshot *child, uint64_t least)
{
	struct geometry geometry;

	return !least || (change_look(change, child, &geometry, NULL, NULL) == 0 && geometry.size <= least);
}

/* The one in use, as only its device can merge it; else the largest file, as what it holds is not copied. */
const struct snapshot *branch_heir(const struct change *change, const struct snapshot *snapshot,
				   struct ploop_error *err)
{
	const struct snapshot *child, *heir = NULL, *top = descriptor_top(change->descriptor);
	bool base = tree_is_base(snapshot);
	uint64_t least = 0;
	unsigned used = 0;

	if (snapshot->children == 1)
		return &change->descriptor->snapshots[snapshot->first_child];
	if (base && descriptor_raw(snapshot)) {
		error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "the base is raw, and there is only one");
		return NULL;
	}
	if (base && find_least(change, snapshot, &least, err) < 0)
		return NULL;
	tree_for_each_child (child, change->descriptor, snapshot) {
		bool busy = in_use(change, child);

		used += busy;
		if (base && child == top && busy) {
			error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "the disk is in use, and is made on it");
			return NULL;
		}
		if ((base && child == top) || !fits(change, child, least))
			continue;
		if (!heir || busy || (!in_use(change, heir) && allocated(change, child) > allocated(change, heir)))
			heir = child;
	}
	if (used > 1) {
		error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "several of them are in use");
		return NULL;
	}
	if (!heir)
		error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
			  "the disk is smaller now than those made on it, which cannot become its base");
	return heir;
}

/* ---- Taking it off ---- */

/* The new image is made above the heir: what the heir maps and it does not is covered by a hole. */
static int mask(const struct branch *branch, const char *image, struct ploop_error *err)
{
	const char *paths[TREE_MAX_DEPTH + 1];
	const struct ploop_files files = { .paths = paths, .npaths = branch->nmasks + 1 };
	const struct disk_config config = { .files = &files, .write = true, .depth = 16 };
	struct ploop_extent extent;
	struct ploop_disk *disk;
	int r, closed;

	if (!branch->nmasks)
		return 0;
	memcpy(paths, branch->masks, branch->nmasks * sizeof(*paths));
	paths[branch->nmasks] = image;
	r = disk_open(&config, &disk, err);
	if (r < 0)
		return r;
	for (uint64_t at = 0; r == 0 && ploop_disk_extent(disk, at, &extent); at = extent.offset + extent.length)
		if (extent.mapped && extent.level < branch->nmasks)
			r = disk_erase(disk, extent.offset, extent.length, err);
	closed = disk_close(disk, r < 0 ? NULL : err);
	return r < 0 ? r : closed;
}

/* Step 2. */
static int copy(const struct ploop_snapshot_merge *what, const struct branch *branch, const char *image,
		struct ploop_error *err)
{
	const struct ploop_merge merge = {
		.images = (const char *const *)branch->images,
		.nimages = branch->n,
		.new_image = image,
		.bytes_a_second = what->bytes_a_second,
		.progress = what->progress,
		.progress_data = what->progress_data,
	};
	int r = merge_alone(&merge, err);

	return r < 0 ? r : mask(branch, image, err);
}

/* Step 3. */
static int edit(struct change *change, const struct branch *branch, const char *name, struct ploop_error *err)
{
	struct descriptor *d = change->descriptor;
	int r = descriptor_set_file(d, &branch->child, name);

	if (r == 0)
		r = descriptor_set_parent(d, &branch->child, &branch->parent);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s cannot be changed", change->path) : 0;
}

static int detach(struct change *change, const struct ploop_snapshot_merge *what, const struct branch *branch,
		  const char *name, struct ploop_error *err)
{
	const struct snapshot *child = descriptor_find(change->descriptor, &branch->child);
	_free_ char *old = child && child->file ? strdup(child->file) : NULL, *image = dir_path(change->dir, name);
	const char *files[] = { name, old };
	_cleanup_(cleanup_stack) struct stack *stack = NULL;
	struct geometry geometry;
	int r;

	if (!old || !image)
		return error_sys(err, child ? -ENOMEM : -ESTALE, PLOOP_EXIT_DISKDESCR, "%s", change->path);
	/* Open for reading until the descriptor is changed, so that nobody begins to write to it. */
	r = change_look(change, child, &geometry, &stack, err);
	if (r == 0)
		r = change_journal(change, "merge", files, 2, err);
	if (r < 0)
		return r;
	log_info("Snapshot %s gets what it needs of those below it", branch->child.text);
	change_pause(change);
	r = copy(what, branch, image, err);
	if (r == 0)
		r = change_resume(change, err);
	if (r == 0)
		r = edit(change, branch, name, err);
	if (r == 0)
		r = change_commit(change, err);
	if (r == 0 && strchr(old, '/'))
		log_warning("%s is not needed any more; it lies outside the folder of %s and stays", old, change->path);
	return r;
}

int branch_detach(const struct ploop_snapshot_merge *what, const char *disk, const struct branch *branch,
		  struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF };
	_free_ char *name = NULL;
	int r = change_begin(&change, disk, err);

	if (r < 0)
		return r;
	name = change_new_name(&change);
	return name ? detach(&change, what, branch, name, err) : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", disk);
}
