/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * track.c - a copy of the device is made: what changes is noted, no other long work may move clusters, and in the end the device
 * stands still.
 *
 *	device_track() --> TRACKING --device_track_hold()--> DRAINING --(nothing is under way)--> done --> HELD
 *	device_track_release(): back to TRACKING, the gate opens. device_track_end() in any state.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "device/internal.h"
#include "device/tracker.h"

struct device_track {
	struct device_job job;
	struct device *device;
	struct tracker *tracker;
	bool settled; /* nothing is partial any more: the map says where everything is */
	bool held;
	void (*drained)(void *data);
	void (*stopped)(void *data);
	void *data;
};

static void track_poke(struct device_job *job)
{
	struct device_track *track = container_of(job, struct device_track, job);
	void (*drained)(void *data) = track->drained;

	if (!track->held || !track->settled || !drained || !list_empty(&track->device->active))
		return;
	track->drained = NULL;
	drained(track->data);
}

/* Until then what is partial has been copied from below, and is noted when it is whole. */
static void track_begin(struct device_job *job, int result)
{
	struct device_track *track = container_of(job, struct device_track, job);

	track->settled = !result;
	if (result)
		track->stopped(track->data);
	else
		track_poke(job);
}

static void track_stop(struct device_job *job)
{
	struct device_track *track = container_of(job, struct device_track, job);

	track->stopped(track->data);
}

int device_track(struct device *dev, struct tracker *tracker, void (*stopped)(void *data), void *data,
		 struct device_track **ret, struct ploop_error *err)
{
	struct device_track *track;
	int r = 0;

	/* One that takes no writes can be copied, too. */
	if (!dev->read_only || dev->job)
		r = job_check(dev, "it cannot be copied", err);
	if (r < 0)
		return r;
	if (dev->read_only && dev->partials->count[PARTIAL_LIVE])
		return error_set(err, -EUCLEAN, PLOOP_EXIT_FORMAT,
				 "%s: was not closed and holds clusters that are not whole; open it once for writing",
				 dev->top->file->path);
	track = calloc(1, sizeof(*track));
	if (!track)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	*track = (struct device_track){
		.job = { .name = "a copy", .begin = track_begin, .poke = track_poke, .stop = track_stop, .calm = true },
		.device = dev,
		.tracker = tracker,
		.stopped = stopped,
		.data = data,
	};
	list_push_back(&dev->trackers, &tracker->node);
	job_begin(dev, &track->job);
	*ret = track;
	return 0;
}

void device_track_hold(struct device_track *track, void (*drained)(void *data))
{
	if (!track->held)
		gate_close(track->device);
	track->held = true;
	track->drained = drained;
	track_poke(&track->job);
}

void device_track_release(struct device_track *track)
{
	if (!track->held)
		return;
	track->held = false;
	track->drained = NULL;
	gate_open(track->device);
}

static void nobody(void *data, int result)
{
	(void)data;
	(void)result;
}

void device_track_end(struct device_track *track)
{
	struct device *dev = track->device;

	list_remove(&track->tracker->node);
	list_remove(&track->job.settle.node); /* it may end before the device has settled */
	device_track_release(track);
	free(track);
	job_end(dev, nobody, NULL, 0);
}
