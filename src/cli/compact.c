/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* compact.c - `ploop compact`: a disk takes no more room than its content. */
#include <stdio.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_AUTOMOUNT = OPTION_OWN,
	OPTION_DRY_RUN,
	OPTION_MIN_BLOCK,
	OPTION_NO_TRIM,
	OPTION_RATE,
	OPTION_TIMEOUT,
	OPTION_TO_FREE,
};

struct arguments {
	struct ploop_reclaim reclaim;
	bool dry_run, json;
	enum progress_mode mode;
};

static int take_timeout(struct arguments *own, const char *value, struct ploop_error *err)
{
	uint64_t seconds;
	int r = number_parse(value, "--timeout", 1000000000, &seconds, err);

	if (r == 0)
		own->reclaim.timeout = (unsigned)seconds;
	return r;
}

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 'd':
		own->reclaim.which.device = value;
		return 0;
	case 'm':
		own->reclaim.which.target = value;
		return 0;
	case 'c':
		own->reclaim.which.component = value;
		return 0;
	case OPTION_AUTOMOUNT:
		own->reclaim.automount = true;
		return 0;
	case OPTION_DRY_RUN:
		own->dry_run = true;
		return 0;
	case OPTION_MIN_BLOCK:
		return size_parse(value, "--min-block", SIZE_BYTES, &own->reclaim.min_block, err);
	case OPTION_NO_TRIM:
		own->reclaim.no_trim = true;
		return 0;
	case OPTION_RATE:
		return size_parse(value, "--rate", SIZE_BYTES, &own->reclaim.bytes_a_second, err);
	case OPTION_TIMEOUT:
		return take_timeout(own, value, err);
	case OPTION_TO_FREE:
		return size_parse(value, "--to-free", SIZE_BYTES, &own->reclaim.to_free, err);
	case OPTION_PROGRESS:
		return progress_parse(value, &own->mode, err);
	default:
		own->json = true;
		return 0;
	}
}

static uint64_t freed(const struct ploop_reclaimed *result)
{
	return result->allocated_before > result->allocated ? result->allocated_before - result->allocated : 0;
}

static int print_json(const struct arguments *own, const struct ploop_reclaimed *result)
{
	struct json_object *object = json_object_new_object();

	json_add_bool(object, "dry_run", own->dry_run);
	json_add_number(object, "freed", freed(result));
	json_add_number(object, "length_before", result->length_before);
	json_add_number(object, "length", result->length);
	json_add_number(object, "allocated_before", result->allocated_before);
	json_add_number(object, "allocated", result->allocated);
	json_add_bool(object, "trimmed", result->trimmed);
	json_add_bool(object, "enough", result->enough);
	return json_print(object);
}

static int print_result(const struct arguments *own, const struct ploop_reclaimed *result)
{
	char one[SIZE_TEXT], two[SIZE_TEXT], three[SIZE_TEXT], four[SIZE_TEXT], five[SIZE_TEXT];

	if (own->json)
		return print_json(own, result);
	printf("%s %s: %s on the host, before %s; files of %s, before %s%s\n", own->dry_run ? "would free" : "freed",
	       size_format(freed(result), one), size_format(result->allocated, two),
	       size_format(result->allocated_before, three), size_format(result->length, four),
	       size_format(result->length_before, five), result->enough ? "; there may be more" : "");
	return PLOOP_EXIT_OK;
}

static int run(struct call *call)
{
	struct arguments own = { 0 };
	struct ploop_reclaimed result;
	struct progress progress;
	struct ploop_error err;
	int c, r;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	own.reclaim.which.image = call->noperands ? call->operands[0] : NULL;
	if (call->noperands > 1 ||
	    call->noperands == (own.reclaim.which.device != NULL || own.reclaim.which.target != NULL))
		return call_usage(call, "give -d or -m, or one DiskDescriptor.xml or image");
	own.reclaim.progress = progress_report;
	own.reclaim.progress_data = &progress;
	progress_start(&progress, own.mode);
	r = own.dry_run ? ploop_reclaim_estimate(&own.reclaim, &result, &err)
			: ploop_reclaim(&own.reclaim, &result, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : print_result(&own, &result);
}

static const struct verb_option options[] = {
	{ 'd', "device", "DEVICE", "the disk on this device" },
	{ 'm', "mount-point", "DIR", "the disk that is mounted here" },
	{ 'c', "component", "NAME", "the device of that name, when a disk has several" },
	{ OPTION_DRY_RUN, "dry-run", NULL, "only say how much it would free" },
	{ OPTION_TO_FREE, "to-free", "SIZE", "enough when so many bytes went back to the host" },
	{ OPTION_TIMEOUT, "timeout", "SECONDS", "enough after so long" },
	{ OPTION_RATE, "rate", "SIZE", "move at most so many bytes a second inside the images" },
	{ OPTION_MIN_BLOCK, "min-block", "SIZE", "leave shorter free stretches of the file system alone" },
	{ OPTION_NO_TRIM, "no-trim", NULL, "do not ask the file system what is free" },
	{ OPTION_AUTOMOUNT, "automount", NULL, "mount what is not mounted, for the time and where nobody sees it" },
	VERB_OPTION_JSON,
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_compact = {
	.name = "compact",
	.group = "Space",
	.summary = "give back to the host what a disk does not need",
	.synopsis = "[--dry-run] [--to-free SIZE] [--timeout SECONDS] [--rate SIZE] {-d DEVICE | -m DIR | DESCRIPTOR | "
		    "IMAGE}",
	.details = "The file system says what is free, the images release it, move what lies at their ends into the "
		   "gaps, and\n"
		   "become shorter. In use or not; cut off anywhere, what was gained is gained, and the next run goes "
		   "on.\n",
	.options = options,
	.run = run,
};
