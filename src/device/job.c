/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* job.c - long work on a device: one at a time, so that none has to know of the others. */
#include <assert.h>
#include <errno.h>

#include "base/error.h"
#include "device/internal.h"

int job_check(const struct device *dev, const char *what, struct ploop_error *err)
{
	if (dev->read_only || dev->aborted)
		return error_set(err, -EROFS, PLOOP_EXIT_BUSY, "the device takes no writes, so %s", what);
	if (dev->closing)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "the device is being closed");
	if (dev->job)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is under way on the device", dev->job->name);
	return 0;
}

static void job_settled(struct device_settle *settle, int result)
{
	struct device_job *job = container_of(settle, struct device_job, settle);

	job->begin(job, result);
}

void job_begin(struct device *dev, struct device_job *job)
{
	assert(!dev->job);
	dev->job = job;
	dev->job_holds = job->begin;
	if (!job->begin)
		return;
	job->settle.done = job_settled;
	device_settle(dev, &job->settle);
}

void job_end(struct device *dev, void (*done)(void *data, int result), void *data, int result)
{
	dev->job = NULL;
	if (dev->job_holds)
		device_unsettle(dev);
	/* The extension may have had to go; and what was asked for meanwhile has waited. */
	if (dev->cbt.n && !dev->closing && !dev->top->geometry.extension)
		dev->partials->replant = true;
	if (dev->partials->replant)
		partials_poke(dev->partials);
	done(data, result);
	device_check_close(dev);
}

void job_poke(struct device *dev)
{
	if (dev->job)
		dev->job->poke(dev->job);
}
