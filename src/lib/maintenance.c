/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* maintenance.c - asks a ploopd what is being done to its device. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "control/client.h"
#include "control/message.h"
#include "lib/inside.h"

static const char *const names[] = {
	[PLOOP_MAINTENANCE_OFF] = "OFF",           [PLOOP_MAINTENANCE_BALLOON] = "BALLOON",
	[PLOOP_MAINTENANCE_FBLOADED] = "FBLOADED", [PLOOP_MAINTENANCE_SNAPSHOT] = "SNAPSHOT",
	[PLOOP_MAINTENANCE_TRACK] = "TRACK",       [PLOOP_MAINTENANCE_DISCARD] = "DISCARD",
	[PLOOP_MAINTENANCE_MERGE] = "MERGE",       [PLOOP_MAINTENANCE_GROW] = "GROW",
	[PLOOP_MAINTENANCE_RELOC] = "RELOC",       [PLOOP_MAINTENANCE_REPLACE] = "REPLACE",
};

const char *ploop_maintenance_name(enum ploop_maintenance state)
{
	return (size_t)state < ARRAY_SIZE(names) ? names[state] : "UNKNOWN";
}

int ploop_maintenance(const struct ploop_which *which, enum ploop_maintenance *ret, struct ploop_error *err)
{
	struct inside inside;
	int r = inside_find(which, &inside, err);

	if (r < 0)
		return r;
	r = maintenance_ask(&inside, ret, err);
	(void)inside_close(&inside, NULL);
	return r;
}

int maintenance_ask(const struct inside *inside, enum ploop_maintenance *ret, struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	const char *word;
	int r = control_ask(inside->entry.device.name, "maintenance", NULL, &answer, err);

	if (r == 0)
		r = message_need_text(answer, "state", &word, err);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(names); i++) {
		if (!strcmp(word, names[i])) {
			*ret = (enum ploop_maintenance)i;
			return 0;
		}
	}
	return r < 0 ? r : error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"state\" is not known");
}
