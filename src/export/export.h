/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * export.h - front ends: how the kernel reaches a device.
 *
 * A front end is one const table. It runs on the device's loop, turns what the kernel asks into device requests, and
 * provides a block device node. It sees the device and the loop, nothing else.
 */
#ifndef EXPORT_EXPORT_H
#define EXPORT_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

struct device;
struct export;
struct loop;
struct ploop_error;

/*
 * What of a front end outlives its engine: a line of text and open descriptors, of which somebody else keeps copies. From them the
 * next engine, perhaps a newer program, takes over what the kernel has. The text begins with a number: its own version.
 */
#define EXPORT_KEPT_TEXT 1024
#define EXPORT_KEPT_FDS 16
struct export_kept {
	char text[EXPORT_KEPT_TEXT];
	int fds[EXPORT_KEPT_FDS];
	unsigned nfds;
	bool any_time; /* the next one can take over at any moment, also when this one is killed; else only after leave() */
};

struct export_config {
	struct loop *loop;
	struct device *device;
	const char *name;        /* of the device, "ploop0": for messages; lives as long as the export */
	unsigned depth;          /* requests in flight; 0 means 128 */
	bool read_only;
	uint32_t logical_block;  /* bytes; 512 */
	/* The kernel's side is gone for good (unmounted, detached by hand). Called on the loop. */
	void (*gone)(void *data);
	/* keep() says something else from now on. Called on the loop. */
	void (*kept)(void *data);
	void *data;
};

struct export_ops {
	const char *name;
	const char *summary; /* one line for `ploop modules` */
	/* Can this host run it? 0, or a negative errno and a text that says why not. Required. */
	int (*usable)(struct ploop_error *err);
	/* Starts serving. Asynchronous: calls started(data, 0 or negative errno) on the loop when the node can be used; the
	 * text of a failure is in `err`, which must live until then. After a failure the export is gone. Required. */
	int (*start)(const struct export_config *config, void (*started)(void *data, int result), void *data,
		     struct export **ret, struct ploop_error *err);
	/* The block device node, for example "/dev/loop3". Required. */
	const char *(*node)(const struct export *export);
	/*
	 * Detaches from the kernel, after the last opener is gone. Asynchronous. -EBUSY when somebody has the node open and
	 * `force` is not set: then it goes on serving. Frees the export on success. Required.
	 */
	void (*stop)(struct export *export, bool force, void (*stopped)(void *data, int result), void *data);
	/* The device has a new size: tell the kernel; done() is called when the node has it. Not while it starts or stops.
	 * Optional (NULL: cannot grow while in use). */
	void (*resized)(struct export *export, void (*done)(void *data, int result), void *data);

	/*
	 * A device whose engine is dead, and that no other will adopt; the caller knows by its sequence number that it is ours. Both
	 * block: not for a loop.
	 */
	/* What is asked of it fails from now on, instead of waiting for an engine. Optional (NULL: it does so by itself). */
	int (*fail)(const char *node);
	/* Removes it, or has it go with its last user. Optional (NULL: nothing is left). */
	int (*clear)(const char *node);

	/*
	 * Changing engines. All three, or none (NULL: the kernel's device ends with its engine).
	 *
	 * A request that was under way when an engine died comes again to the next one: also when it was carried out and only its
	 * answer was lost. That is harmless: until it is answered it counts as not done, for every order of requests that
	 * overlap in time is allowed, and whoever asked may not rely on what is there meanwhile; carried out once more it brings the
	 * same bytes, the same zeros, another flush. What an engine has answered the next one knows.
	 */
	/* What the next engine needs. Between started() and stop(). The descriptors stay the export's. */
	int (*keep)(const struct export *export, struct export_kept *ret);
	/* As start(), with what the engine before kept; takes the descriptors, also when it fails. A failure leaves the kernel's
	 * device as it is. started() is called when requests are served, first of all those that come again. */
	int (*adopt)(const struct export_config *config, const struct export_kept *kept,
		     void (*started)(void *data, int result), void *data, struct export **ret, struct ploop_error *err);
	/* Takes no more requests, answers those under way, and frees the export; the kernel's device stays, and what is asked of it
	 * waits for the next engine. Not while it starts, stops or tells a size. Cannot fail. */
	void (*leave)(struct export *export, void (*left)(void *data), void *data);
};

/* A running front end. Implementations embed it first. */
struct export {
	const struct export_ops *ops;
};

/* In the order of preference, NULL-terminated. */
extern const struct export_ops *const export_modules[];
const struct export_ops *export_find(const char *name);

#endif
