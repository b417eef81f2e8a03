/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loop-uring.c - the loop on one io_uring: file I/O, watched descriptors and the wait are one system call a turn.
 *
 * The user data of an entry is a struct loop_completion, or, with the lowest bit set, a slot of a watch, or 0 when nobody
 * cares. A watch is reached through a slot because its memory may be gone before the kernel has confirmed its removal; a
 * slot is free again only when the kernel has nothing more to say about it.
 *
 *	FREE -> ADD (wants an entry) -> POLLING -> FREE
 *	                                   `-> REMOVE (wants an entry) -> REMOVING -> FREE
 *
 * The ring belongs to the thread that first waits (the kernel's SINGLE_ISSUER), not to the one that makes the loop: a daemon
 * may fork in between.
 *
 * To sleep and be woken takes longer than many a disk takes to answer. Where most of the last waits were that short, the
 * next one first looks for a while whether something has come (two words of memory, no system call), and sleeps only then.
 * One long sleep ends it, so that an idle loop costs nothing. Where this thread has to queue for a CPU it is not done either:
 * then somebody else, perhaps the one we wait for, has a better use for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "io/loop-kinds.h"

enum slot_state { SLOT_FREE, SLOT_ADD, SLOT_POLLING, SLOT_REMOVE, SLOT_REMOVING };

struct slot {
	struct list node; /* in uring_loop.free or .wanting, or in neither */
	struct loop_watch *watch; /* NULL once removed */
	enum slot_state state;
};

struct uring_loop {
	struct loop loop;
	struct io_uring ring;
	bool enabled;
	bool can_spin; /* the kernel shows pending work in memory, and there is another CPU to do the rest */
	int score;           /* how well waiting awake would have paid lately; SPIN_SCORE and more: do it */
	int schedstat;       /* descriptor of how long this thread has queued for a CPU, or negative */
	uint64_t checked;    /* when that was last looked at */
	uint64_t queued;     /* nanoseconds, then */
	uint64_t slices;     /* times that it got one, then */
	bool cpu_free;       /* ... and what it meant */
	struct list free;
	struct list wanting; /* slots that want an entry: ADD, REMOVE */
	struct slot slots[LOOP_WATCHES];
};

#define SLOT_TAG UINT64_C(1)
#define REAP_BATCH 64
#define SPIN_NS UINT64_C(50000)
#define SPIN_LOOKS 32 /* between two looks at the clock */
#define SPIN_SCORE 8
#define SPIN_SCORE_MAX 16
#define SPIN_MISS 4 /* what a vain spin costs, in hits */
#define CPU_CHECK_NS UINT64_C(20000000)
#define CPU_QUEUED_NS 5000 /* a CPU is free when this thread gets one sooner than this, on average */

static const struct loop_ops loop_uring_ops;

static struct uring_loop *uring_loop(struct loop *loop)
{
	return container_of(loop, struct uring_loop, loop);
}

static uint64_t slot_data(const struct slot *slot)
{
	return (uint64_t)(uintptr_t)slot | SLOT_TAG;
}

static void slot_release(struct uring_loop *self, struct slot *slot)
{
	slot->state = SLOT_FREE;
	slot->watch = NULL;
	list_push_front(&self->free, &slot->node);
}

/* Gives slots their entries, as far as there is room. */
static void uring_feed_slots(struct uring_loop *self)
{
	list_for_each_safe(node, &self->wanting) {
		struct slot *slot = container_of(node, struct slot, node);
		struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);

		if (!sqe)
			return;
		list_remove(node);
		if (slot->state == SLOT_ADD) {
			io_uring_prep_poll_add(sqe, slot->watch->fd, (unsigned)slot->watch->events);
			io_uring_sqe_set_data64(sqe, slot_data(slot));
			slot->state = SLOT_POLLING;
		} else {
			io_uring_prep_poll_remove(sqe, slot_data(slot));
			io_uring_sqe_set_data64(sqe, 0);
			slot->state = SLOT_REMOVING;
		}
	}
}

static void slot_complete(struct uring_loop *self, struct slot *slot, int result)
{
	struct loop_watch *watch = slot->watch;

	if (slot->state == SLOT_REMOVE)
		list_remove(&slot->node);
	slot_release(self, slot);
	if (!watch)
		return;
	watch->armed = false;
	watch->ready(watch, result);
}

static void uring_complete(struct uring_loop *self, uint64_t data, int result, unsigned flags)
{
	if (data & SLOT_TAG) {
		slot_complete(self, (struct slot *)(uintptr_t)(data & ~SLOT_TAG), result);
	} else if (data) {
		struct loop_completion *completion = (struct loop_completion *)(uintptr_t)data;

		completion->done(completion, result, flags);
	}
}

/* Copies a batch out before handing it on, so that the kernel has room again and a handler may submit. */
static unsigned uring_reap(struct uring_loop *self)
{
	struct io_uring_cqe *cqes[REAP_BATCH];
	struct {
		uint64_t data;
		int result;
		unsigned flags;
	} done[REAP_BATCH];
	unsigned n = io_uring_peek_batch_cqe(&self->ring, cqes, REAP_BATCH);

	for (unsigned i = 0; i < n; i++) {
		done[i].data = cqes[i]->user_data;
		done[i].result = cqes[i]->res;
		done[i].flags = cqes[i]->flags;
	}
	io_uring_cq_advance(&self->ring, n);
	for (unsigned i = 0; i < n; i++)
		uring_complete(self, done[i].data, done[i].result, done[i].flags);
	return n;
}

static bool uring_pending(struct uring_loop *self)
{
	return io_uring_cq_ready(&self->ring) ||
	       IO_URING_READ_ONCE(*self->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static void uring_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static void uring_score(struct uring_loop *self, int by)
{
	self->score += by;
	if (self->score > SPIN_SCORE_MAX)
		self->score = SPIN_SCORE_MAX;
	if (self->score < 0)
		self->score = 0;
}

/* Whether this thread gets a CPU whenever it wants one. */
static bool uring_cpu_free(struct uring_loop *self, uint64_t now)
{
	unsigned long long queued = 0, slices = 0;
	char text[96];
	ssize_t n;

	if (now - self->checked < CPU_CHECK_NS)
		return self->cpu_free;
	n = pread(self->schedstat, text, sizeof(text) - 1, 0);
	text[n < 0 ? 0 : n] = 0;
	self->cpu_free = sscanf(text, "%*u %llu %llu", &queued, &slices) == 2 &&
			 queued - self->queued <= (slices - self->slices) * CPU_QUEUED_NS;
	self->queued = queued;
	self->slices = slices;
	self->checked = now;
	return self->cpu_free;
}

/* True when something has come. */
static bool uring_spin(struct uring_loop *self, uint64_t now, uint64_t timeout)
{
	uint64_t end = now + (timeout < SPIN_NS ? timeout : SPIN_NS);

	do {
		for (unsigned i = 0; i < SPIN_LOOKS; i++) {
			if (uring_pending(self)) {
				uring_score(self, 1);
				return true;
			}
			uring_relax();
		}
		now = loop_monotonic(&self->loop);
	} while (now < end);
	uring_score(self, -SPIN_MISS);
	return false;
}

static int uring_sleep(struct uring_loop *self, uint64_t timeout)
{
	struct timespec time = loop_timespec(timeout);
	struct __kernel_timespec ts = { .tv_sec = time.tv_sec, .tv_nsec = time.tv_nsec };
	struct io_uring_cqe *cqe;

	return io_uring_submit_and_wait_timeout(&self->ring, &cqe, 1, timeout == UINT64_MAX ? NULL : &ts, NULL);
}

/* Submits, and waits when there is nothing to do. */
static int uring_enter(struct uring_loop *self, uint64_t timeout)
{
	uint64_t start;
	int r;

	if (!timeout)
		return io_uring_submit_and_get_events(&self->ring);
	if (!self->can_spin)
		return uring_sleep(self, timeout);
	start = loop_monotonic(&self->loop);
	if (self->score >= SPIN_SCORE && uring_cpu_free(self, start)) {
		r = io_uring_submit(&self->ring);
		if (r < 0 || uring_spin(self, start, timeout))
			return io_uring_cq_ready(&self->ring) ? 0 : io_uring_get_events(&self->ring);
		return uring_sleep(self, timeout);
	}
	r = uring_sleep(self, timeout);
	uring_score(self, loop_monotonic(&self->loop) - start < SPIN_NS ? 1 : -SPIN_MISS);
	return r;
}

/* From now on the ring is this thread's. A system call of its own: the library does not export one in all versions. */
static int uring_enable(struct uring_loop *self)
{
	if (self->enabled)
		return 0;
	if (syscall(SYS_io_uring_register, self->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return -errno;
	self->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	self->enabled = true;
	return 0;
}

static int uring_wait(struct loop *loop, uint64_t timeout)
{
	struct uring_loop *self = uring_loop(loop);
	unsigned most;
	int r = uring_enable(self);

	if (r)
		return r;
	uring_feed_slots(self);
	if (!list_empty(&self->wanting))
		timeout = 0;
	r = uring_enter(self, timeout);
	/* EBUSY and EAGAIN: the kernel wants completions to be taken first, which comes now. */
	if (r < 0 && r != -ETIME && r != -EINTR && r != -EBUSY && r != -EAGAIN)
		return r;
	/* Bounded, so that tasks and timers get their turn. */
	for (most = 16; most && uring_reap(self) == REAP_BATCH; most--)
		;
	return 0;
}

/* A ring ends, and lets go of its files, when all of its operations have. */
static int uring_hold(struct loop *loop, int fd)
{
	int files[LOOP_FILES] = { fd };

	for (unsigned i = 1; i < LOOP_FILES; i++)
		files[i] = -1;
	return io_uring_register_files(&uring_loop(loop)->ring, files, LOOP_FILES);
}

static int uring_watch(struct loop *loop, struct loop_watch *watch)
{
	struct uring_loop *self = uring_loop(loop);
	struct list *node = list_pop(&self->free);
	struct slot *slot;

	if (!node)
		return -ENFILE;
	slot = container_of(node, struct slot, node);
	slot->watch = watch;
	slot->state = SLOT_ADD;
	list_push_back(&self->wanting, &slot->node);
	return 0;
}

static void uring_unwatch(struct loop *loop, struct loop_watch *watch)
{
	struct uring_loop *self = uring_loop(loop);

	for (unsigned i = 0; i < LOOP_WATCHES; i++) {
		struct slot *slot = &self->slots[i];

		if (slot->watch != watch)
			continue;
		slot->watch = NULL;
		if (slot->state == SLOT_ADD) {
			list_remove(&slot->node);
			slot_release(self, slot);
		} else {
			slot->state = SLOT_REMOVE;
			list_push_back(&self->wanting, &slot->node);
		}
		return;
	}
}

static void uring_free(struct loop *loop)
{
	struct uring_loop *self = uring_loop(loop);

	io_uring_queue_exit(&self->ring);
	if (self->schedstat >= 0)
		close(self->schedstat);
	free(self);
}

static const struct loop_ops loop_uring_ops = {
	.name = "uring",
	.wait = uring_wait,
	.watch = uring_watch,
	.unwatch = uring_unwatch,
	.now = loop_monotonic,
	.free = uring_free,
	.hold = uring_hold,
};

/* From what the newest kernels take to what all take. */
static int uring_setup(struct io_uring *ring, unsigned entries)
{
	static const unsigned tries[] = {
		IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_R_DISABLED,
	};
	int r = -EINVAL;

	for (unsigned i = 0; i < sizeof(tries) / sizeof(tries[0]) && r == -EINVAL; i++) {
		struct io_uring_params params = { .flags = tries[i] | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
						  .cq_entries = entries * 4 };

		r = io_uring_queue_init_params(entries, ring, &params);
		if (!r && (params.features & (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)) !=
				  (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)) {
			io_uring_queue_exit(ring);
			r = -ENOSYS;
		}
	}
	return r;
}

int loop_uring_new(unsigned depth, struct loop **ret, struct ploop_error *err)
{
	struct uring_loop *self = calloc(1, sizeof(*self));
	unsigned entries = 64;
	int r;

	if (!self)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot make an event loop");
	while (entries < depth * 2 && entries < 4096)
		entries *= 2;
	r = uring_setup(&self->ring, entries);
	if (r) {
		free(self);
		return error_sys(err, r, PLOOP_EXIT_SYS, "cannot set up io_uring (see sysctl kernel.io_uring_disabled)");
	}
	loop_init(&self->loop, &loop_uring_ops);
	self->schedstat = -EBADF;
	self->can_spin = self->ring.flags & IORING_SETUP_TASKRUN_FLAG && sysconf(_SC_NPROCESSORS_ONLN) > 1;
	list_init(&self->free);
	list_init(&self->wanting);
	for (unsigned i = 0; i < LOOP_WATCHES; i++)
		slot_release(self, &self->slots[i]);
	*ret = &self->loop;
	return 0;
}

struct io_uring *loop_ring(struct loop *loop)
{
	return loop && loop->ops == &loop_uring_ops ? &uring_loop(loop)->ring : NULL;
}
