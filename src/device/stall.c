/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stall.c - the host's file system is full.
 *
 * With DEVICE_FULL_STOP nothing fails: what got ENOSPC or EDQUOT is put aside and tried again from time to time, or when
 * device_resume() says so. Locks stay held meanwhile, so that the order of changes is not disturbed. Reads go on.
 */
#include <errno.h>

#include "device/internal.h"

static bool stall_applies(const struct device *dev, int result)
{
	return (result == -ENOSPC || result == -EDQUOT) && dev->on_full == DEVICE_FULL_STOP && !dev->aborted;
}

static void stall_note(struct device *dev)
{
	dev->stats.bio_full++;
	if (!dev->retry_timer.armed)
		loop_timer_set(dev->loop, &dev->retry_timer, dev->retry_ns);
	if (dev->full)
		return;
	dev->full = true;
	device_event(dev, DEVICE_EVENT_FULL);
}

/* Something was written: there is space again. Not so while others wait. */
static void stall_over(struct device *dev, const struct io_op *op)
{
	if (!dev->full || op->kind == IO_READ || !list_empty(&dev->stalled_ops) || !list_empty(&dev->stalled_requests))
		return;
	dev->full = false;
	device_event(dev, DEVICE_EVENT_RESUMED);
}

bool stall_op(struct device *dev, struct io_op *op, int result)
{
	if (!result)
		stall_over(dev, op);
	if (!stall_applies(dev, result))
		return false;
	list_push_back(&dev->stalled_ops, &op->node);
	stall_note(dev);
	return true;
}

bool stall_request(struct device_request *request, int result)
{
	struct device *dev = request->device;

	if (!stall_applies(dev, result))
		return false;
	request->waiting = true;
	list_push_back(&dev->stalled_requests, &request->wait);
	stall_note(dev);
	return true;
}

void device_resume(struct device *dev)
{
	struct list ops, requests;
	struct list *node;

	loop_timer_cancel(dev->loop, &dev->retry_timer);
	list_init(&ops);
	list_init(&requests);
	list_move_all(&ops, &dev->stalled_ops);
	list_move_all(&requests, &dev->stalled_requests);
	while ((node = list_pop(&ops)) != NULL)
		device_io(dev, container_of(node, struct io_op, node));
	while ((node = list_pop(&requests)) != NULL) {
		struct device_request *request = container_of(node, struct device_request, wait);

		request->waiting = false;
		request_continue(request);
	}
}

void stall_retry(struct loop_timer *timer)
{
	device_resume(container_of(timer, struct device, retry_timer));
}
