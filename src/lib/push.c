/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* push.c - asks a running ploopd to take a new top, and finds out what became of it when the answer is lost. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "control/client.h"
#include "control/message.h"
#include "control/state.h"
#include "lib/change.h"

/* 1: `image` is its top; 0: it is not, and will not be; negative: cannot be said. */
static int has_top(const struct ploop_device *device, const char *image)
{
	_message_ struct json_object *status = NULL;
	struct device_state state;
	bool pushing = true;
	int r = control_ask(device->name, "status", NULL, &status, NULL);

	if (r == 0)
		r = message_bool(status, "pushing", &pushing, NULL);
	if (r == 0)
		r = state_parse(status, &state, NULL);
	if (r < 0)
		return r;
	if (pushing)
		r = -EBUSY;
	else
		r = state.nimages && !strcmp(state.images[state.nimages - 1], image);
	state_clear(&state);
	return r;
}

int push_check(const struct ploop_device *device, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();
	int r;

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
	message_add_text(arguments, "top", device->images[device->nimages - 1]);
	r = control_ask(device->name, "push-check", arguments, NULL, err);
	return r == -EOPNOTSUPP ? 0 : r; /* one that is older than the question */
}

int push_delta(const struct ploop_device *device, const char *image, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();
	int r, top;

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
	message_add_text(arguments, "image", image);
	message_add_text(arguments, "top", device->images[device->nimages - 1]);
	r = control_ask(device->name, "push", arguments, NULL, err);
	if (r == 0)
		return 0;
	top = has_top(device, image);
	if (top > 0)
		return 0;
	return top == 0 ? r : -EINPROGRESS;
}
