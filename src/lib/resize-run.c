/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize-run.c - see resize-run.h. The images are given by their names and not by the descriptor, whose lock is ours. A full host is
 * an error here, as nobody would wait for it.
 */
#include "lib/resize-run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "control/rundir.h"
#include "image/tree.h"
#include "lib/ploopd.h"

#define COMPONENT "resize" /* what the device is called in `ploop list` */

static int fill_request(const struct change *change, const char *overlay, struct open_request *request,
			struct ploop_error *err)
{
	const struct descriptor *d = change->descriptor;
	const struct snapshot *chain[TREE_MAX_DEPTH];
	int n = tree_chain(d, descriptor_top(d), chain, err);

	if (n < 0)
		return n;
	request->operands = calloc((size_t)n + 1, sizeof(*request->operands));
	for (int i = 0; request->operands && i < n; i++, request->noperands++) {
		request->operands[i] = descriptor_file(d, chain[i]);
		if (!request->operands[i])
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
	}
	if (request->operands && overlay)
		request->operands[request->noperands++] = dir_path(change->dir, overlay);
	if (descriptor_raw(chain[0])) {
		request->base_format = strdup("raw");
		request->cluster = d->cluster;
	}
	request->component = strdup(COMPONENT);
	request->outside = true;
	request->fail_when_full = true;
	if (!request->operands || !request->operands[request->noperands - 1] || !request->component ||
	    (descriptor_raw(chain[0]) && !request->base_format))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
	return 0;
}

int resize_run_start(const struct change *change, const char *overlay, struct resize_run *ret, struct ploop_error *err)
{
	struct open_request request = { 0 };
	struct device_state state = { 0 };
	int r = fill_request(change, overlay, &request, err);

	if (r == 0)
		r = spawn_daemon(&request, &state, &ret->connection, err);
	if (r == 0) {
		snprintf(ret->device, sizeof(ret->device), "%s/%s", rundir_dev(), state.name);
		r = resize_disk_open(state.name, state.node, state.cluster, &ret->disk, err);
	}
	state_clear(&state);
	open_request_clear(&request);
	return r;
}

int resize_run_end(struct resize_run *run, struct ploop_error *err)
{
	const struct ploop_which which = { .device = run->device };
	int r = 0;

	resize_disk_close(&run->disk);
	if (*run->device)
		r = ploop_umount(&which, err);
	cleanup_close(&run->connection);
	*run = (struct resize_run)RESIZE_RUN_NONE;
	return r;
}
