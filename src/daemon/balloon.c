/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * balloon.c - see balloon.h.
 *
 * Releasing is discarding, with the rules of device/erase.c: the map forgets, the blocks go, and only after the index has durably
 * forgotten as well the clusters are used again. A flush at the end sees to that. Whole clusters only: what the balloon covers
 * of the others may belong to somebody else. Cut off anywhere, some are released and others not, which a repair finds.
 */
#include "daemon/balloon.h"

#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/list.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "image/stack.h"

#define RELEASE_RUN 1024 /* clusters of one discard: others have their turn in between */

enum ploop_maintenance balloon_state(const struct daemon *daemon)
{
	const struct balloon_job *job = &daemon->balloon;

	return job->asker    ? PLOOP_MAINTENANCE_FBLOADED
	       : job->holder ? PLOOP_MAINTENANCE_BALLOON
			     : PLOOP_MAINTENANCE_OFF;
}

static void holder_gone(void *data)
{
	struct daemon *daemon = data;

	daemon->balloon.holder = NULL;
}

/* The words that scripts of the original know. */
static int check_free(const struct daemon *daemon, bool deflate, struct ploop_error *err)
{
	enum ploop_maintenance state = maintenance_state(daemon);

	switch (state) {
	case PLOOP_MAINTENANCE_OFF:
		break;
	case PLOOP_MAINTENANCE_BALLOON:
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "Hidden balloon is in use by someone else!");
	case PLOOP_MAINTENANCE_FBLOADED:
	case PLOOP_MAINTENANCE_RELOC:
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
				 "Can't %s hidden balloon before previous balloon operation (%s) is completed. Use "
				 "\"ploop-balloon complete\".",
				 deflate ? "deflate" : "inflate", ploop_maintenance_name(state));
	default:
		if (!deflate)
			return error_set(
				err, -EBUSY, PLOOP_EXIT_BUSY,
				"Can't inflate hidden balloon while another maintenance operation is in progress "
				"(%s)",
				ploop_maintenance_name(state));
	}
	if (daemon->phase != DAEMON_SERVING)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is being stopped", daemon->name);
	if (!deflate && !daemon->stack->levels[daemon->stack->nlevels - 1].format->has_index)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM, "Ballooning for raw format is not supported");
	if (daemon->state.read_only)
		return error_set(err, -EROFS, PLOOP_EXIT_PARAM, "%s is read-only", daemon->name);
	return 0;
}

void daemon_balloon(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	bool deflate;
	int r = message_bool(arguments, "deflate", &deflate, &err);

	if (r == 0)
		r = check_free(daemon, deflate, &err);
	if (r < 0) {
		server_refuse(peer, &err);
		return;
	}
	daemon->balloon.holder = peer;
	server_watch_peer(peer, holder_gone, daemon);
	server_answer(peer, NULL);
}

static int take_ranges(struct daemon *daemon, struct json_object *arguments, struct ranges *ranges,
		       struct ploop_error *err)
{
	int r = message_ranges(arguments, "ranges", device_size(daemon->device), ranges, err);

	if (r < 0)
		return r;
	ranges_sort(ranges);
	ranges_align(ranges, device_cluster(daemon->device));
	return 0;
}

/* Is cluster v of the disk in the top's file, so that there may be something to give back? */
static bool in_top(const struct device *device, uint32_t v)
{
	struct device_place place = device_lookup(device, v);

	return place.cluster && place.level + 1 == device_levels(device);
}

static struct json_object *print_clusters(uint64_t clusters)
{
	struct json_object *result = json_object_new_object();

	if (result)
		message_add_number(result, "clusters", clusters);
	return result;
}

void daemon_balloon_count(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	uint32_t cluster = device_cluster(daemon->device);
	struct ranges ranges = { 0 };
	struct ploop_error err;
	uint64_t n = 0;
	int r = take_ranges(daemon, arguments, &ranges, &err);

	for (size_t i = 0; r == 0 && i < ranges.n; i++) {
		uint32_t first = (uint32_t)(ranges.list[i].offset / cluster);
		uint32_t end = first + (uint32_t)(ranges.list[i].length / cluster);

		for (uint32_t v = first; v < end; v++)
			n += device_releasable(daemon->device, v);
	}
	ranges_clear(&ranges);
	if (r < 0)
		server_refuse(peer, &err);
	else
		server_answer(peer, print_clusters(n));
}

static void release_end(struct daemon *daemon)
{
	struct balloon_job *job = &daemon->balloon;
	struct server_peer *asker = job->asker;
	struct ploop_error err;

	job->asker = NULL;
	ranges_clear(&job->ranges);
	if (job->result < 0) {
		error_sys(&err, job->result, PLOOP_EXIT_RELOC, "%s: cannot give back what the balloon covers",
			  daemon->name);
		server_refuse(asker, &err);
	} else {
		server_answer(asker, print_clusters(job->released));
	}
}

static void request_done(struct device_request *request, int result)
{
	struct daemon *daemon = container_of(request, struct daemon, balloon.request);

	if (result < 0 && daemon->balloon.result == 0)
		daemon->balloon.result = result;
	loop_defer(daemon->loop, &daemon->balloon.task);
}

static void submit(struct daemon *daemon, enum device_kind kind, uint64_t offset, uint64_t length)
{
	daemon->balloon.request =
		(struct device_request){ .kind = kind, .offset = offset, .length = length, .done = request_done };
	device_submit(daemon->device, &daemon->balloon.request);
}

/* The next run of clusters that the top has. False: there is none left. */
static bool find_run(const struct daemon *daemon, struct balloon_job *job, uint32_t *ret_first, uint32_t *ret_count)
{
	uint32_t cluster = device_cluster(daemon->device), first;

	for (;; job->range++) {
		while (job->next < job->end && !in_top(daemon->device, job->next))
			job->next++;
		if (job->next < job->end)
			break;
		if (job->range == job->ranges.n)
			return false;
		job->next = (uint32_t)(job->ranges.list[job->range].offset / cluster);
		job->end = job->next + (uint32_t)(job->ranges.list[job->range].length / cluster);
	}
	for (first = job->next;
	     job->next < job->end && job->next - first < RELEASE_RUN && in_top(daemon->device, job->next); job->next++)
		job->released += device_releasable(daemon->device, job->next);
	*ret_first = first;
	*ret_count = job->next - first;
	return true;
}

static void release_step(struct loop_task *task)
{
	struct daemon *daemon = container_of(task, struct daemon, balloon.task);
	struct balloon_job *job = &daemon->balloon;
	uint64_t cluster = device_cluster(daemon->device);
	uint32_t first, count;

	if (daemon->phase != DAEMON_SERVING && job->result == 0)
		job->result = -ECANCELED; /* nothing more may be submitted */
	if (job->flushing || job->result < 0) {
		release_end(daemon);
	} else if (find_run(daemon, job, &first, &count)) {
		submit(daemon, DEVICE_DISCARD, first * cluster, count * cluster);
	} else {
		job->flushing = true;
		submit(daemon, DEVICE_FLUSH, 0, 0);
	}
}

void daemon_balloon_release(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct balloon_job *job = &daemon->balloon;
	struct ploop_error err;
	int r;

	if (job->holder != peer) {
		error_set(&err, -EPERM, PLOOP_EXIT_BUSY, "%s: the balloon is not yours", daemon->name);
		server_refuse(peer, &err);
		return;
	}
	r = take_ranges(daemon, arguments, &job->ranges, &err);
	if (r < 0) {
		ranges_clear(&job->ranges);
		server_refuse(peer, &err);
		return;
	}
	job->asker = peer;
	job->range = 0;
	job->next = job->end = 0;
	job->released = 0;
	job->result = 0;
	job->flushing = false;
	job->task.run = release_step;
	loop_defer(daemon->loop, &job->task);
}
