/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ublk.c - the front end of choice: the kernel's ublk driver, which gives requests to the engine's own ring.
 *
 *	start: [add, parameters] -> queue -> [START_DEV, which reads the partition table] -> started()
 *	adopt: [START_USER_RECOVERY] -> queue -> [END_USER_RECOVERY] -> started()
 *	stop:  [claim, STOP_DEV] -> the queue ends -> [remove] -> stopped()
 *
 * What is in brackets blocks and is a job of one thread; what waits for our own answers is done apart (apart.h).
 *
 * The device outlives its engine (USER_RECOVERY): the kernel holds back new requests, and gives those that the dead engine had to
 * the next one again (REISSUE). Why it is harmless to serve a request twice is said at export_ops.keep. That includes a write whose
 * first life still goes on: the file operations of a dead process keep its descriptors, and with them the lock of the image,
 * so that the next engine opens the image after the last of them.
 *
 * Growing needs UPDATE_SIZE (Linux 6.16): older kernels take a size only when the disk is made.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "export/apart.h"
#include "export/modules.h"
#include "export/ublk-control.h"
#include "export/ublk-node.h"
#include "export/ublk-queue.h"
#include "io/loop.h"
#include "io/pool.h"

#define DEPTH_DEFAULT 128u
#define BUFFER (512u * 1024)
#define BLOCK_SHIFT 12
#define DISCARD_MAX (UINT32_C(1) << 23) /* sectors: 4 GiB */
#define KEPT_FORMAT "1 ublk %u"
/* Something like udev may look at the device for a moment. */
#define STOP_TRIES 20
#define STOP_PAUSE_MS 50
/* An old kernel notices within 5 s that a server has died. */
#define RECOVERY_TRIES 1500
#define RECOVERY_PAUSE_MS 20

struct ublk_export {
	struct export export;
	struct export_config config;
	struct ublk_queue *queue;
	struct io_pool *pool;
	struct ublk_info info;
	char node[UBLK_NODE];
	bool encoded;
	bool safe_stop; /* the kernel knows itself whether the device is in use */
	int channel;  /* until the queue has it */
	bool added;   /* there is a device in the kernel, and it is ours to remove */
	bool ready;   /* started and not stopping */
	bool running; /* the kernel has tags */
	bool stopped; /* STOP_DEV was done; the rest follows when the queue has ended */

	/* The job under way: one at a time. */
	struct io_pool_job job;
	int result;
	bool force;
	struct ploop_error *err;
	void (*answer)(void *data, int result);
	void *data;
};

static const struct export_ops export_ublk_fixed_ops;

static struct ublk_export *ublk_export(struct export *export)
{
	return container_of(export, struct ublk_export, export);
}

static struct ublk_export *ublk_job(struct io_pool_job *job)
{
	return container_of(job, struct ublk_export, job);
}

static void ublk_run(struct ublk_export *self, void (*work)(struct io_pool_job *job),
		     void (*finished)(struct io_pool_job *job))
{
	self->job.work = work;
	self->job.finished = finished;
	io_pool_submit(self->pool, &self->job);
}

static void ublk_pause(unsigned ms)
{
	const struct timespec time = { .tv_nsec = ms * 1000000L };

	nanosleep(&time, NULL);
}

static int ublk_fail(struct ublk_export *self, int r, const char *what)
{
	self->result = error_sys(self->err, r, PLOOP_EXIT_DEVICE, "%s: ublk: %s", self->config.name, what);
	return self->result;
}

/* Ending: the kernel has no tags. */

static void ublk_free(struct ublk_export *self)
{
	ublk_queue_free(self->queue);
	if (self->channel >= 0)
		close(self->channel);
	io_pool_free(self->pool);
	free(self);
}

static void ublk_remove(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);

	/* Where it cannot go now, the next ploopd removes it. */
	(void)ublk_delete(self->info.id);
}

static void ublk_removed(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);
	void (*answer)(void *data, int result) = self->answer;
	void *data = self->data;
	int result = self->result;

	ublk_free(self);
	answer(data, result);
}

static void ublk_end(struct ublk_export *self)
{
	ublk_queue_free(self->queue);
	self->queue = NULL;
	if (self->channel >= 0)
		close(self->channel);
	self->channel = -EBADF;
	if (self->added)
		ublk_run(self, ublk_remove, ublk_removed);
	else
		ublk_removed(&self->job);
}

static void ublk_ended(void *data)
{
	struct ublk_export *self = data;

	self->running = false;
	if (self->stopped)
		ublk_end(self);
	else if (self->ready && self->config.gone)
		self->config.gone(self->config.data);
}

/* After STOP_DEV. */
static void ublk_await_end(struct ublk_export *self)
{
	self->stopped = true;
	if (!self->running)
		ublk_end(self);
}

/* Starting */

static uint8_t ublk_shift(uint64_t size, uint8_t least)
{
	uint8_t shift = 0;

	if (size & (size - 1))
		return least;
	while (size > UINT64_C(1) << shift)
		shift++;
	return shift > least ? shift : least;
}

static struct ublk_params ublk_params(const struct ublk_export *self)
{
	const struct export_config *config = &self->config;
	struct ublk_params params = {
		.length = sizeof(params),
		.types = UBLK_PARAMS_BASIC | UBLK_PARAMS_DISCARD,
		.basic.attributes = config->read_only ? UBLK_READ_ONLY : UBLK_VOLATILE_CACHE | UBLK_FUA,
		.basic.logical_shift = ublk_shift(config->logical_block, 9),
		.basic.physical_shift = BLOCK_SHIFT,
		.basic.minimal_shift = BLOCK_SHIFT,
		.basic.optimal_shift = ublk_shift(device_cluster(config->device), BLOCK_SHIFT),
		.basic.max_sectors = self->info.buffer / 512,
		.basic.sectors = device_size(config->device) / 512,
		.discard.granularity = 1u << BLOCK_SHIFT,
		.discard.max_segments = 1,
	};

	if (!config->read_only)
		params.discard.max_sectors = params.discard.max_zeroes_sectors = DISCARD_MAX;
	return params;
}

static int ublk_add_and_set(struct ublk_export *self)
{
	struct ublk_params params;
	int r;

	self->info = (struct ublk_info){
		.queues = 1,
		.depth = (uint16_t)(self->config.depth ? self->config.depth : DEPTH_DEFAULT),
		.buffer = BUFFER,
		.id = UBLK_ANY_ID,
		.flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE |
			 (self->encoded ? UBLK_F_CMD_IOCTL_ENCODE : 0),
		.server = ublk_signature(),
	};
	r = ublk_add(&self->info);
	if (r < 0)
		return ublk_fail(self, r, "cannot add a device (its module's parameter ublks_max?)");
	self->added = true;
	params = ublk_params(self);
	r = ublk_set_params(self->info.id, &params);
	return r < 0 ? ublk_fail(self, r, "the kernel does not take the device's parameters") : 0;
}

/* What the queue needs, once the device is there. */
static int ublk_open(struct ublk_export *self)
{
	ublk_node_name(self->info.id, self->node);
	if (self->info.queues != 1 || !self->info.depth || self->info.depth > UBLK_DEPTH_MAX ||
	    self->info.buffer < 4096 || self->info.buffer > INT32_MAX)
		return ublk_fail(self, -EPROTO, "a device of another shape");
	self->channel = ublk_open_channel(self->info.id);
	return self->channel < 0 ? ublk_fail(self, self->channel, "cannot open its channel") : 0;
}

static void ublk_prepare(struct ublk_export *self)
{
	uint64_t features = ublk_features();

	self->encoded = features & UBLK_F_CMD_IOCTL_ENCODE;
	self->safe_stop = features & UBLK_F_SAFE_STOP;
	self->export.ops = features & UBLK_F_UPDATE_SIZE ? &export_ublk_ops : &export_ublk_fixed_ops;
}

static void ublk_make(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);

	ublk_prepare(self);
	ublk_sweep();
	if (!ublk_add_and_set(self))
		ublk_open(self);
}

static int ublk_serve(struct ublk_export *self)
{
	struct ublk_queue_config config = {
		.loop = self->config.loop,
		.device = self->config.device,
		.channel = take_fd(&self->channel),
		.depth = self->info.depth,
		.buffer = self->info.buffer,
		.encoded = self->encoded,
		.read_only = self->config.read_only,
		.ended = ublk_ended,
		.data = self,
	};
	int r = ublk_queue_new(&config, &self->queue);

	if (r < 0)
		return ublk_fail(self, r, "cannot serve its queue");
	self->running = true;
	ublk_queue_start(self->queue);
	return 0;
}

static void go_live(void *data)
{
	struct ublk_export *self = data;
	int r = ublk_simple(UBLK_START_DEV, self->info.id, (uint64_t)getpid());

	if (r == 0) {
		ublk_unschedule(self->info.id);
		return;
	}
	ublk_fail(self, r, "the device does not start");
	(void)ublk_simple(UBLK_STOP_DEV, self->info.id, 0);
}

static void ublk_go_live(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);
	int r = apart_run(go_live, self, -EBADF);

	if (r < 0)
		ublk_fail(self, r, "cannot start a thread");
}

static void ublk_live(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);

	if (self->result) {
		ublk_await_end(self);
		return;
	}
	self->ready = true;
	self->answer(self->data, 0);
}

static void ublk_made(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);

	if (self->result || ublk_serve(self))
		ublk_end(self);
	else
		ublk_run(self, ublk_go_live, ublk_live);
}

static int ublk_new(const struct export_config *config, void (*started)(void *data, int result), void *data,
		    struct ublk_export **ret, struct ploop_error *err)
{
	struct ublk_export *self;
	int r;

	if (!loop_ring(config->loop))
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_DEVICE, "%s: ublk needs io_uring", config->name);
	self = calloc(1, sizeof(*self));
	if (!self)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s: cannot start the front end", config->name);
	self->export.ops = &export_ublk_fixed_ops;
	self->config = *config;
	self->channel = -EBADF;
	self->err = err;
	self->answer = started;
	self->data = data;
	r = io_pool_new(config->loop, 1, &self->pool, err);
	if (r) {
		ublk_free(self);
		return r;
	}
	*ret = self;
	return 0;
}

static int ublk_start(const struct export_config *config, void (*started)(void *data, int result), void *data,
		      struct export **ret, struct ploop_error *err)
{
	struct ublk_export *self;
	int r = ublk_new(config, started, data, &self, err);

	if (r)
		return r;
	ublk_run(self, ublk_make, ublk_made);
	*ret = &self->export;
	return 0;
}

static const char *ublk_node(const struct export *export)
{
	return ((const struct ublk_export *)export)->node;
}

/* Taking over */

static int ublk_keep(const struct export *export, struct export_kept *ret)
{
	const struct ublk_export *self = (const struct ublk_export *)export;

	ret->nfds = 0;
	ret->any_time = self->info.flags & UBLK_F_USER_RECOVERY_REISSUE;
	snprintf(ret->text, sizeof(ret->text), KEPT_FORMAT, self->info.id);
	return 0;
}

static void ublk_recover(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);
	int r;

	ublk_prepare(self);
	for (unsigned i = 0; (r = ublk_simple(UBLK_START_USER_RECOVERY, self->info.id, 0)) == -EBUSY; i++) {
		if (i == RECOVERY_TRIES)
			break;
		ublk_pause(RECOVERY_PAUSE_MS);
	}
	/* -EINVAL: an engine has begun to take it over, and died of it. */
	if (r < 0 && r != -EINVAL) {
		ublk_fail(self, r, "the device cannot be taken over");
		return;
	}
	r = ublk_get_info(self->info.id, &self->info);
	if (r < 0)
		ublk_fail(self, r, "the device does not tell its shape");
	else
		ublk_open(self);
}

static void ublk_go_on(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);
	int r = ublk_simple(UBLK_END_USER_RECOVERY, self->info.id, (uint64_t)getpid());

	if (r < 0)
		ublk_fail(self, r, "the device does not go on");
	else
		self->added = true;
}

static void ublk_gone_on(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);

	if (self->result) {
		void (*answer)(void *data, int result) = self->answer;

		/* The kernel has tags of ours, and gives them back only when this process ends: their memory stays. */
		self->ready = false;
		answer(self->data, self->result);
		return;
	}
	self->ready = true;
	self->answer(self->data, 0);
}

static void ublk_recovered(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);

	if (self->result || ublk_serve(self))
		ublk_end(self);
	else
		ublk_run(self, ublk_go_on, ublk_gone_on);
}

static int ublk_adopt(const struct export_config *config, const struct export_kept *kept,
		      void (*started)(void *data, int result), void *data, struct export **ret, struct ploop_error *err)
{
	struct ublk_export *self;
	uint32_t id;
	char end;
	int r;

	for (unsigned i = 0; i < kept->nfds; i++)
		close(kept->fds[i]);
	if (sscanf(kept->text, KEPT_FORMAT "%c", &id, &end) != 1)
		return error_set(err, -EPROTO, PLOOP_EXIT_DEVICE, "%s: ublk: what was kept is not understood",
				 config->name);
	r = ublk_new(config, started, data, &self, err);
	if (r)
		return r;
	self->info.id = id;
	ublk_run(self, ublk_recover, ublk_recovered);
	*ret = &self->export;
	return 0;
}

static void ublk_leave(struct export *export, void (*left)(void *data), void *data)
{
	struct ublk_export *self = ublk_export(export);

	/* The rest of it goes with the process: see ublk_queue_leave(). */
	self->ready = false;
	ublk_queue_leave(self->queue, left, data);
}

/* Stopping */

/* Unless somebody uses it. What is not open has nothing in the kernel's cache that the engine does not have. */
static int try_halt(struct ublk_export *self)
{
	_close_ int claimed = -EBADF;

	if (self->safe_stop)
		return ublk_simple(UBLK_TRY_STOP_DEV, self->info.id, 0);
	claimed = ublk_claim(self->info.id);
	return claimed < 0 ? claimed : ublk_simple(UBLK_STOP_DEV, self->info.id, 0);
}

static void halt(void *data)
{
	struct ublk_export *self = data;
	int r = -EBUSY;

	for (unsigned i = 0; i < STOP_TRIES && r == -EBUSY; i++) {
		if (i)
			ublk_pause(STOP_PAUSE_MS);
		r = try_halt(self);
	}
	if (r && self->force)
		r = ublk_simple(UBLK_STOP_DEV, self->info.id, 0);
	self->result = r == -ENODEV ? 0 : r;
}

static void ublk_halt(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);
	int r = apart_run(halt, self, -EBADF);

	if (r < 0)
		self->result = r;
}

static void ublk_halted(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);

	if (self->result) {
		self->ready = true;
		self->answer(self->data, self->result);
		return;
	}
	ublk_await_end(self);
}

static void ublk_stop(struct export *export, bool force, void (*stopped)(void *data, int result), void *data)
{
	struct ublk_export *self = ublk_export(export);

	self->ready = false;
	self->force = force;
	self->answer = stopped;
	self->data = data;
	ublk_run(self, ublk_halt, ublk_halted);
}

/* Growing */

static void ublk_resize(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);

	self->result = ublk_simple(UBLK_UPDATE_SIZE, self->info.id, device_size(self->config.device) / 512);
}

static void ublk_resize_done(struct io_pool_job *job)
{
	struct ublk_export *self = ublk_job(job);
	int result = self->result;

	self->result = 0;
	self->answer(self->data, result);
}

static void ublk_resized(struct export *export, void (*done)(void *data, int result), void *data)
{
	struct ublk_export *self = ublk_export(export);

	self->answer = done;
	self->data = data;
	ublk_run(self, ublk_resize, ublk_resize_done);
}

/* Nobody serves it any more */

static int ublk_give_up(const char *node)
{
	uint32_t id;
	int r = ublk_id_of(node, &id) ? ublk_simple(UBLK_STOP_DEV, id, 0) : 0;

	return r == -ENODEV ? 0 : r;
}

static int ublk_clear(const char *node)
{
	uint32_t id;
	int r = ublk_id_of(node, &id) ? ublk_delete(id) : 0;

	/* Where it is in use, the next ploopd removes it. */
	return r == -ENODEV || r == -EBUSY ? 0 : r;
}

#define UBLK_SUMMARY "the kernel's ublk driver; Linux 6.0 with the module ublk_drv"

const struct export_ops export_ublk_ops = {
	.name = "ublk",
	.summary = UBLK_SUMMARY,
	.usable = ublk_usable,
	.start = ublk_start,
	.node = ublk_node,
	.stop = ublk_stop,
	.resized = ublk_resized,
	.fail = ublk_give_up,
	.clear = ublk_clear,
	.keep = ublk_keep,
	.adopt = ublk_adopt,
	.leave = ublk_leave,
};

/* On a kernel without UPDATE_SIZE. */
static const struct export_ops export_ublk_fixed_ops = {
	.name = "ublk",
	.summary = UBLK_SUMMARY,
	.usable = ublk_usable,
	.start = ublk_start,
	.node = ublk_node,
	.stop = ublk_stop,
	.fail = ublk_give_up,
	.clear = ublk_clear,
	.keep = ublk_keep,
	.adopt = ublk_adopt,
	.leave = ublk_leave,
};
