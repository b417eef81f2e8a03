/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lock.c - exclusive use of a range of virtual clusters.
 *
 * Whoever changes the map takes a lock; so will every online operation. Plain reads and writes take none: they only look
 * whether one is in their way, which costs a test of an empty list. A lock that must also keep out what is already on its way to
 * the disk waits until no piece in flight touches its range (lock_in_flight); pieces never wait for anything but I/O, so
 * that ends.
 *
 * A request waits for a lock only at its cursor, and the change that holds a lock never waits for another lock: no cycle.
 */
#include "device/internal.h"

struct device_lock *lock_conflict(const struct device *dev, uint32_t first, uint32_t last, bool reading)
{
	list_for_each (node, &dev->locks) {
		struct device_lock *lock = container_of(node, struct device_lock, node);

		if (first <= lock->last && lock->first <= last && (lock->reads || !reading))
			return lock;
	}
	return NULL;
}

void lock_take(struct device *dev, struct device_lock *lock, uint32_t first, uint32_t last, bool reads)
{
	lock->first = first;
	lock->last = last;
	lock->reads = reads;
	list_init(&lock->waiters);
	list_push_back(&dev->locks, &lock->node);
}

void lock_release(struct device *dev, struct device_lock *lock)
{
	struct list woken;
	struct list *node;

	list_remove(&lock->node);
	list_init(&woken);
	list_move_all(&woken, &lock->waiters);
	while ((node = list_pop(&woken)) != NULL) {
		struct device_request *request = container_of(node, struct device_request, wait);

		request->waiting = false;
		request_continue(request);
	}
	job_poke(dev);
}

void lock_wait(struct device_request *request, struct device_lock *lock)
{
	request->device->stats.bio_lockouts++;
	request->waiting = true;
	list_push_back(&lock->waiters, &request->wait);
}

static bool lock_piece_touches(const struct device_piece *piece, uint64_t start, uint64_t end)
{
	return piece->busy && piece->start < end && start < piece->end;
}

bool lock_alone(const struct device *dev, const struct device_lock *lock)
{
	list_for_each (node, &dev->locks) {
		const struct device_lock *other = container_of(node, struct device_lock, node);

		if (other != lock && other->first <= lock->last && lock->first <= other->last)
			return false;
	}
	return !lock_in_flight(dev, lock->first, lock->last);
}

bool lock_in_flight(const struct device *dev, uint32_t first, uint32_t last)
{
	uint64_t start = (uint64_t)first * dev->cluster;
	uint64_t end = device_cluster_end(dev, last);

	list_for_each (node, &dev->active) {
		const struct device_request *request = container_of(node, struct device_request, node);

		for (unsigned i = 0; i < DEVICE_REQUEST_PIECES; i++)
			if (lock_piece_touches(&request->pieces[i], start, end))
				return true;
	}
	return false;
}

static bool lock_op_uses(const struct io_op *op, const struct io_file *file)
{
	return op->file == file || (op->kind == IO_CLONE && op->source == file);
}

bool lock_file_in_flight(const struct device *dev, const struct io_file *file)
{
	list_for_each (node, &dev->active) {
		const struct device_request *request = container_of(node, struct device_request, node);

		if (request->change.busy && lock_op_uses(&request->change.op, file))
			return true;
		for (unsigned i = 0; i < DEVICE_REQUEST_PIECES; i++)
			if (request->pieces[i].busy && request->pieces[i].op.file == file)
				return true;
	}
	return false;
}
