/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* maintenance.c - see maintenance.h. */
#include "daemon/maintenance.h"

#include <errno.h>

#include "base/error.h"
#include "control/message.h"
#include "daemon/balloon.h"
#include "daemon/daemon.h"

enum ploop_maintenance maintenance_state(const struct daemon *daemon)
{
	if (daemon->pusher)
		return PLOOP_MAINTENANCE_SNAPSHOT;
	if (merge_active(daemon))
		return PLOOP_MAINTENANCE_MERGE;
	if (compact_active(daemon))
		return PLOOP_MAINTENANCE_RELOC;
	if (grow_active(daemon))
		return PLOOP_MAINTENANCE_GROW;
	if (daemon->track.track)
		return PLOOP_MAINTENANCE_TRACK;
	if (replace_active(daemon))
		return PLOOP_MAINTENANCE_REPLACE;
	return balloon_state(daemon);
}

int maintenance_check_for(const struct daemon *daemon, const struct server_peer *peer, struct ploop_error *err)
{
	bool his = daemon->balloon.holder == peer && maintenance_state(daemon) == PLOOP_MAINTENANCE_BALLOON;

	return his && daemon->phase == DAEMON_SERVING ? 0 : maintenance_check(daemon, err);
}

int maintenance_check(const struct daemon *daemon, struct ploop_error *err)
{
	enum ploop_maintenance state = maintenance_state(daemon);

	if (daemon->phase != DAEMON_SERVING)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is being stopped", daemon->name);
	switch (state) {
	case PLOOP_MAINTENANCE_OFF:
		return 0;
	case PLOOP_MAINTENANCE_SNAPSHOT:
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is getting another top; try again", daemon->name);
	case PLOOP_MAINTENANCE_MERGE:
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
				 "levels %u..%u of %s are being merged already; see `ploop merge -d %s --status`",
				 daemon->merge.low, daemon->merge.high, daemon->name, daemon->name);
	case PLOOP_MAINTENANCE_GROW:
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is growing; try again", daemon->name);
	case PLOOP_MAINTENANCE_REPLACE:
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "an image of %s is being replaced; try again", daemon->name);
	case PLOOP_MAINTENANCE_TRACK:
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is being copied; wait until `ploop copy` is done",
				 daemon->name);
	default:
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
				 "another maintenance operation is in progress on %s (%s); see `ploop balloon status`",
				 daemon->name, ploop_maintenance_name(state));
	}
}

void daemon_maintenance(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct json_object *result = json_object_new_object();

	(void)arguments;
	if (result)
		message_add_text(result, "state", ploop_maintenance_name(maintenance_state(daemon)));
	server_answer(peer, result);
}
