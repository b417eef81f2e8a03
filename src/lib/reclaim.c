/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reclaim.c - space goes back to the host, of a disk that a ploopd serves: the file system says what is free (trim.c), which
 * reaches the engine as discards; then each image becomes shorter. Every step is safe by itself, wherever it is cut off.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "control/client.h"
#include "lib/compact-run.h"
#include "lib/inside.h"
#include "lib/reclaim.h"
#include "lib/trim.h"

static int trim_step(void *data, uint64_t done, uint64_t total)
{
	struct reclaim_watch *watch = data;

	if (!reclaim_watch_look(watch, "trim", done, total))
		return 0;
	return watch->stopped ? -ECANCELED : 1;
}

static int trim(const struct inside *inside, struct reclaim_watch *watch, struct ploop_reclaimed *result,
		struct ploop_error *err)
{
	const struct trim trim = {
		.root = inside->root,
		.size = inside->end - inside->start,
		.min_block = watch->what->min_block,
		.step = trim_step,
		.data = watch,
	};
	int r;

	if (watch->what->no_trim)
		return 0;
	if (inside->root < 0) {
		log_warning("The file system on %s is not mounted, so it cannot say what is free; --automount mounts "
			    "it for "
			    "the time",
			    inside->entry.device.device);
		return 0;
	}
	r = trim_run(&trim, err);
	result->trimmed = r == 0;
	return r < 0 ? error_prefix(err, r, "%s", inside->entry.device.device) : 0;
}

/* One that cannot be made shorter, since it is raw or others use it too, is no failure of the whole. */
static bool can_be_left(int r)
{
	return r == -EOPNOTSUPP || r == -EINVAL || r == -EROFS || r == -EACCES;
}

static int shorten(const struct ploop_device *device, struct reclaim_watch *watch, struct ploop_reclaimed *result,
		   struct ploop_error *err)
{
	_client_ struct control_client *client = NULL;
	int r = control_connect(device->name, CONTROL_TIMEOUT_MS, &client, err);

	for (size_t i = device->nimages; r == 0 && i-- > 0 && !watch->enough;) {
		struct compact_run run = {
			.client = client,
			.image = device->images[i],
			.bytes_a_second = watch->what->bytes_a_second,
			.progress = reclaim_watch_look,
			.progress_data = watch,
		};

		r = compact_run(&run, err);
		result->moved += run.truncated;
		if (can_be_left(r)) {
			log_debug("reclaim", "%s: left as it is: %s", device->images[i], err ? err->text : "");
			r = 0;
		}
	}
	return reclaim_watch_result(watch, r);
}

static int reclaim_device(const struct ploop_reclaim *reclaim, const struct inside *inside, struct ploop_reclaimed *ret,
			  struct ploop_error *err)
{
	const struct ploop_device *device = &inside->entry.device;
	const char *const *images = (const char *const *)device->images;
	struct ploop_reclaimed result = { .cluster = device->cluster };
	struct reclaim_watch watch;
	int r = reclaim_watch_start(&watch, reclaim, images, device->nimages, err);

	if (r == 0)
		r = reclaim_measure(images, device->nimages, &result.length_before, &result.allocated_before, err);
	if (r == 0)
		r = trim(inside, &watch, &result, err);
	if (r == 0 && !watch.enough)
		r = shorten(device, &watch, &result, err);
	if (r == 0)
		r = reclaim_measure(images, device->nimages, &result.length, &result.allocated, err);
	result.enough = watch.enough;
	if (r == 0)
		*ret = result;
	return r;
}

int ploop_reclaim(const struct ploop_reclaim *reclaim, struct ploop_reclaimed *ret, struct ploop_error *err)
{
	struct inside inside = INSIDE_NONE;
	struct ploop_reclaimed result = { 0 };
	struct ploop_error other;
	int r, closed;

	r = inside_open(&reclaim->which,
			reclaim->automount      ? INSIDE_AUTOMOUNT
			: reclaim->mounted_only ? INSIDE_MOUNTED
						: INSIDE_MAYBE,
			&inside, err);
	if (r == -ENODEV && reclaim->which.image && !reclaim->mounted_only)
		return reclaim_files(reclaim, ret, err);
	if (r == 0)
		r = reclaim_device(reclaim, &inside, &result, err);
	closed = inside_close(&inside, r < 0 ? &other : err);
	if (r == 0)
		r = closed;
	if (r == 0 && ret)
		*ret = result;
	return r;
}
