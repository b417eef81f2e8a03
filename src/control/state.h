/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * state.h - what a ploopd serves, as it stands in state.json of its run directory: enough to list the device without asking
 * the daemon, and to clear the device when the daemon is dead.
 */
#ifndef CONTROL_STATE_H
#define CONTROL_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

struct ploop_error;

struct device_state {
	char *name;
	char *front_end;
	char *node; /* the kernel's block device, "/dev/loop3" */
	uint64_t
		diskseq; /* the kernel's number of this use of the node: tells whether it is still ours. 0: not known */
	char **images;   /* absolute paths, base first */
	size_t nimages;
	char *descriptor, *snapshot, *component;
	bool read_only;
	uint64_t size;    /* bytes */
	uint32_t cluster; /* bytes */
};

int state_print(const struct device_state *state, struct json_object **ret);
/* Checks every field. The caller clears. */
int state_parse(struct json_object *message, struct device_state *ret, struct ploop_error *err);
void state_clear(struct device_state *state);

int state_save(const struct device_state *state, struct ploop_error *err);
/* -ENOENT when the device is just starting or gone. */
int state_load(const char *name, struct device_state *ret, struct ploop_error *err);

/* The kernel's sequence number of a block device node now; 0 when there is none. */
uint64_t state_diskseq(const char *node);

#endif
