/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* grow.c - a disk becomes larger: a device, a disk by its descriptor, or an image; and the descriptor that names them. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "image/stack.h"
#include "lib/beside.h"
#include "lib/change.h"
#include "lib/size.h"

#define RAW_CLUSTER 32768u /* of a raw image without a descriptor: what its size is rounded to */

/*
 * Begins a change of the disk whose top this image is. 1: it has; 0: no descriptor knows the image. Below the top of a disk an
 * image does not grow: nothing would be there to see it.
 */
static int begin_beside(struct change *change, const char *image, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	_free_ char *path = NULL;
	const struct snapshot *snapshot;
	int r = beside_find(image, &path, err);

	if (r < 0 || !path)
		return r;
	r = descriptor_open(path, &d, err);
	if (r < 0 || !beside_snapshot(d, image))
		return r;
	r = change_begin(change, path, err);
	if (r < 0)
		return r;
	snapshot = beside_snapshot(change->descriptor, image);
	if (!snapshot || snapshot != descriptor_top(change->descriptor))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is a snapshot in %s, and only the top can grow",
				 image, change->path);
	return 1;
}

static int grow_device(const struct ploop_grow *grow, uint64_t *ret, struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF };
	const struct ploop_which which = { .device = grow->device };
	struct ploop_device device;
	int r = ploop_find(&which, &device, err);

	if (r == 0 && !device.alive) {
		ploop_device_clear(&device);
		r = error_set(err, -ENODEV, PLOOP_EXIT_SYSFS, "%s is dead; clear it with `ploop umount -d %s`",
			      grow->device, grow->device);
	}
	if (r < 0)
		return r;
	/* One of another disk, or of a snapshot beside it, says nothing about the descriptor's size. */
	if (!device.snapshot)
		r = begin_beside(&change, device.images[device.nimages - 1], err);
	if (r >= 0)
		r = size_set_device(device.name, grow->size, ret, err);
	if (r == 0 && change.descriptor)
		r = size_set_descriptor(&change, *ret, err);
	ploop_device_clear(&device);
	return r;
}

static int grow_disk(const struct ploop_grow *grow, uint64_t *ret, struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF };
	int r = change_begin(&change, grow->disk, err);

	return r < 0 ? r : size_set_disk(&change, grow->size, grow->shrink, ret, err);
}

static int grow_image(const struct ploop_grow *grow, uint64_t *ret, struct ploop_error *err)
{
	struct stack_request files = { .operands = &grow->disk, .noperands = 1, .base_format = grow->format };
	_change_end_ struct change change = { .lock = -EBADF };
	int r = begin_beside(&change, grow->disk, err);

	if (r < 0)
		return r;
	if (r && !grow->format && descriptor_raw(descriptor_top(change.descriptor)))
		files.base_format = "raw";
	if (files.base_format && !strcmp(files.base_format, "raw"))
		files.cluster = r ? change.descriptor->cluster : RAW_CLUSTER;
	r = size_set_files(&files, grow->size, grow->shrink, ret, err);
	return r < 0 || !change.descriptor ? r : size_set_descriptor(&change, *ret, err);
}

int ploop_grow(const struct ploop_grow *grow, uint64_t *ret_size, struct ploop_error *err)
{
	_free_ char *descriptor = NULL;
	uint64_t size;
	int r;

	if (!grow->size)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect new size specified 0");
	r = grow->device ? 0 : descriptor_find_file(grow->disk, &descriptor, err);
	if (r < 0)
		return r;
	if (grow->device)
		r = grow_device(grow, &size, err);
	else if (descriptor)
		r = grow_disk(grow, &size, err);
	else
		r = grow_image(grow, &size, err);
	if (r == 0 && ret_size)
		*ret_size = size;
	return r;
}
