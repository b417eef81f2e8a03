/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settle.c - see settle.h. There may be gigabytes to copy, so that this asks again and again and sets no limit. */
#include "lib/settle.h"

#include <errno.h>
#include <time.h>

#include "control/client.h"
#include "control/message.h"

#define FIRST_PAUSE_NS 1000000
#define LONGEST_PAUSE_NS 5000000 /* what waits for the answer slows writers down */

int settle_device(const char *name, struct ploop_error *err)
{
	_client_ struct control_client *client = NULL;
	struct timespec pause = { .tv_nsec = FIRST_PAUSE_NS };
	bool settled = false;
	int r = control_connect(name, CONTROL_TIMEOUT_MS, &client, err);

	while (r == 0 && !settled) {
		_message_ struct json_object *result = NULL;

		r = control_call(client, "settle", NULL, &result, err);
		if (r == -EOPNOTSUPP)
			return 0; /* a ploopd of before, which never writes in part */
		if (r == 0)
			r = message_bool(result, "settled", &settled, err);
		if (r < 0 || settled)
			break;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < LONGEST_PAUSE_NS)
			pause.tv_nsec *= 2;
	}
	return r;
}
