/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge.c - `ploop merge`: of image files, or of the levels of a device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/arg.h"
#include "cli/call.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_RATE = OPTION_OWN,
	OPTION_STATUS,
	OPTION_PAUSE,
	OPTION_RESUME,
	OPTION_STOP,
};

struct arguments {
	const char *device, *levels, *new_image, *format;
	uint64_t rate;
	enum progress_mode progress;
	int control; /* OPTION_STATUS and its like; 0: merge */
	bool json;
};

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	enum arg_format format;

	switch (option) {
	case 'd':
		own->device = value;
		return 0;
	case 'l':
		own->levels = value;
		return 0;
	case 'n':
		own->new_image = value;
		return 0;
	case 'f':
		own->format = value;
		return arg_format(value, &format, err);
	case 'u':
	case 'A':
		return 0; /* of snapshot-merge; the original took them here too, and did nothing with them */
	case OPTION_RATE:
		return size_parse(value, "--rate", SIZE_BYTES, &own->rate, err);
	case OPTION_PROGRESS:
		return progress_parse(value, &own->progress, err);
	case OPTION_JSON:
		own->json = true;
		return 0;
	default:
		own->control = option;
		return 0;
	}
}

/* "A..B", or "A" for A..A+1. */
static int parse_levels(const char *text, uint32_t *ret_low, uint32_t *ret_high)
{
	char *rest;
	long low = strtol(text, &rest, 10), high = low + 1;

	if (rest == text)
		return -EINVAL;
	if (!strncmp(rest, "..", 2)) {
		text = rest + 2;
		high = strtol(text, &rest, 10);
	}
	if (rest == text || *rest || low < 0 || high <= low || high > 127)
		return -EINVAL;
	*ret_low = (uint32_t)low;
	*ret_high = (uint32_t)high;
	return 0;
}

static int merge_levels(struct call *call, const struct arguments *own)
{
	struct progress progress;
	struct ploop_merge_levels merge = {
		.device = own->device,
		.high = PLOOP_MERGE_TOP,
		.bytes_a_second = own->rate,
		.progress = progress_report,
		.progress_data = &progress,
	};
	struct ploop_error err;
	int r;

	if (own->levels && parse_levels(own->levels, &merge.low, &merge.high) < 0)
		return call_usage(call, "-l is LEVEL or LEVEL..TOP_LEVEL, from 0 to 127, not %s", own->levels);
	progress_start(&progress, own->progress);
	r = ploop_merge_levels(&merge, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int merge_files(struct call *call, const struct arguments *own)
{
	const char *images[128];
	struct progress progress;
	struct ploop_merge merge = {
		.images = images,
		.nimages = (unsigned)call->noperands,
		.base_format = own->format && strcmp(own->format, "expanded") ? own->format : NULL,
		.new_image = own->new_image,
		.bytes_a_second = own->rate,
		.progress = progress_report,
		.progress_data = &progress,
	};
	struct ploop_error err;
	int r;

	if (call->noperands > (int)(sizeof(images) / sizeof(*images)))
		return call_usage(call, "at most 128 images");
	for (int i = 0; i < call->noperands; i++)
		images[i] = call->operands[call->noperands - 1 - i];
	progress_start(&progress, own->progress);
	r = ploop_merge(&merge, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int print_json(const struct ploop_merge_status *status)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "state", ploop_merge_state_name(status->state));
	json_add_number(object, "low", status->low);
	json_add_number(object, "high", status->high);
	json_add_bool(object, "top", status->top);
	json_add_number(object, "done", status->done);
	json_add_number(object, "total", status->total);
	json_add_text(object, "error", status->state == PLOOP_MERGE_FAILED ? status->error.text : NULL);
	return json_print(object);
}

static int print_status(const struct arguments *own)
{
	struct ploop_merge_status status;
	struct ploop_error err;
	char done[SIZE_TEXT], total[SIZE_TEXT];

	if (ploop_merge_status(own->device, &status, &err) < 0)
		return report_error(&err);
	if (own->json)
		return print_json(&status);
	printf("%s", ploop_merge_state_name(status.state));
	if (status.state != PLOOP_MERGE_NONE)
		printf(" levels %u..%u, %s of %s%s", status.low, status.high, size_format(status.done, done),
		       size_format(status.total, total), status.top ? " of the top" : "");
	printf("%s%s\n", status.state == PLOOP_MERGE_FAILED ? ": " : "",
	       status.state == PLOOP_MERGE_FAILED ? status.error.text : "");
	return PLOOP_EXIT_OK;
}

static int control(const struct arguments *own)
{
	struct ploop_error err;
	int r;

	if (own->control == OPTION_STATUS)
		return print_status(own);
	if (own->control == OPTION_STOP)
		r = ploop_merge_stop(own->device, &err);
	else
		r = ploop_merge_pause(own->device, own->control == OPTION_PAUSE, &err);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int run(struct call *call)
{
	struct arguments own = { 0 };
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	if (own.device ? call->noperands != 0 : !call->noperands)
		return call_usage(call, "give -d, or the images to merge and the one to merge them into");
	if (own.device && (own.format || own.new_image))
		return call_usage(call, "-f and -n go with images, -d does not");
	if (!own.device && (own.levels || own.control || own.json))
		return call_usage(call, "-l, --status and its like need -d");
	if (own.control)
		return control(&own);
	return own.device ? merge_levels(call, &own) : merge_files(call, &own);
}

static const struct verb_option options[] = {
	{ 'd', "device", "DEVICE", "merge levels of this device, in use or not" },
	{ 'l', "level", "A[..B]", "levels A+1 to B into level A; 0 is the base (0 to the top; A alone: A..A+1)" },
	{ 'f', "format", "raw|ploop1|expanded", "format of the base, when images are merged" },
	{ 'n', "new-delta", "FILE", "leave the base as it is and merge all into this new image" },
	{ OPTION_RATE, "rate", "SIZE", "at most so many bytes a second" },
	{ OPTION_STATUS, "status", NULL, "say how far the merge of the device is" },
	{ OPTION_PAUSE, "pause", NULL, "let the merge of the device rest" },
	{ OPTION_RESUME, "resume", NULL, "let it go on" },
	{ OPTION_STOP, "stop", NULL, "stop it; merging again goes on where it was" },
	VERB_OPTION_JSON,
	VERB_OPTION_PROGRESS,
	{ 'u', NULL, "UUID", NULL },
	{ 'A', NULL, NULL, NULL },
	{ 0 },
};

const struct verb verb_merge = {
	.name = "merge",
	.group = "Snapshots",
	.summary = "copy what is in upper images down into a lower one",
	.synopsis = "-d DEVICE [-l A[..B]] [--rate SIZE]\n-d DEVICE --status|--pause|--resume|--stop\n"
		    "[-f raw] [-n NEW_DELTA] [--rate SIZE] DELTA.. BASE",
	.details =
		"Images are named newest first, the base last. What was merged stays as a file, which nothing needs.\n",
	.options = options,
	.run = run,
};
