/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* balloon.c - `ploop balloon ACTION`, also called ploop-balloon: the words and lines are those that scripts know. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/balloon-discard.h"
#include "cli/call.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_AUTOMOUNT = OPTION_OWN,
	OPTION_RATE,
	OPTION_DEFRAG,
	OPTION_MIN_BLOCK,
	OPTION_STAT,
	OPTION_TIMEOUT,
	OPTION_TO_FREE,
};

struct arguments {
	struct ploop_balloon balloon;
	struct balloon_discard discard;
	uint64_t size;
	bool sized, json;
	enum progress_mode mode;
	struct progress progress;
};

/* Those of discard alone. */
static int take_discard(struct balloon_discard *discard, int option, const char *value, struct ploop_error *err)
{
	uint64_t seconds = 0;
	int r;

	switch (option) {
	case OPTION_DEFRAG:
		discard->defrag = true;
		return 0;
	case OPTION_STAT:
		discard->stat = true;
		return 0;
	case OPTION_MIN_BLOCK:
		return size_parse(value, "--min-block", SIZE_SECTORS, &discard->reclaim.min_block, err);
	case OPTION_TO_FREE:
		return size_parse(value, "--to-free", SIZE_SECTORS, &discard->reclaim.to_free, err);
	default:
		r = number_parse(value, "--timeout", 1000000000, &seconds, err);
		discard->reclaim.timeout = (unsigned)seconds;
		return r;
	}
}

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 's':
		own->sized = true;
		return size_parse(value, "-s", SIZE_SECTORS, &own->size, err);
	case 'd':
		own->balloon.which.device = value;
		return 0;
	case 'm':
		own->balloon.which.target = value;
		return 0;
	case 'c':
		own->balloon.which.component = value;
		return 0;
	case OPTION_AUTOMOUNT:
		own->balloon.automount = true;
		return 0;
	case OPTION_RATE:
		return size_parse(value, "--rate", SIZE_BYTES, &own->balloon.bytes_a_second, err);
	case OPTION_PROGRESS:
		return progress_parse(value, &own->mode, err);
	case OPTION_JSON:
		own->json = true;
		return 0;
	case 'f': /* never had an effect */
		return 0;
	default:
		return take_discard(&own->discard, option, value, err);
	}
}

static int show(struct arguments *own)
{
	struct ploop_error err;
	uint64_t size;

	if (ploop_balloon_size(&own->balloon, &size, &err) < 0)
		return report_error(&err);
	if (own->json) {
		struct json_object *object = json_object_new_object();

		json_add_number(object, "size", size);
		return json_print(object);
	}
	printf("Current size of hidden balloon is %llu bytes\n", (unsigned long long)size);
	return PLOOP_EXIT_OK;
}

static int print_status(struct arguments *own)
{
	enum ploop_maintenance state;
	struct ploop_error err;

	if (ploop_maintenance(&own->balloon.which, &state, &err) < 0)
		return report_error(&err);
	if (own->json) {
		struct json_object *object = json_object_new_object();

		json_add_text(object, "maintenance", ploop_maintenance_name(state));
		return json_print(object);
	}
	printf("Current state of in-kernel maintenance: %s\n", ploop_maintenance_name(state));
	return PLOOP_EXIT_OK;
}

/* A state ends with its reason: there is nothing stale that could be cleared. */
static int clear(struct arguments *own)
{
	enum ploop_maintenance state;
	struct ploop_error err;

	if (ploop_maintenance(&own->balloon.which, &state, &err) < 0)
		return report_error(&err);
	if (state == PLOOP_MAINTENANCE_OFF) {
		printf("Current state of in-kernel maintenance is OFF now\n");
		return PLOOP_EXIT_OK;
	}
	fprintf(stderr,
		"Can't clear stale in-kernel \"BALLOON\" maintenance state because kernel is in \"%s\" state now\n",
		ploop_maintenance_name(state));
	return PLOOP_EXIT_BUSY;
}

static void print_truncated(const struct ploop_balloon_result *result)
{
	printf("TRUNCATED: %llu cluster-blocks (%llu bytes)\n",
	       (unsigned long long)(result->truncated / result->cluster), (unsigned long long)result->truncated);
}

static int change(struct arguments *own)
{
	struct ploop_balloon_result result;
	struct ploop_error err;
	int r;

	progress_start(&own->progress, own->mode);
	r = ploop_balloon_change(&own->balloon, own->size, &result, &err);
	progress_end(&own->progress);
	if (r < 0)
		return report_error(&err);
	if (result.new_size < result.old_size)
		printf("Successfully truncated balloon from %llu to %llu bytes\n", (unsigned long long)result.old_size,
		       (unsigned long long)result.new_size);
	else if (result.new_size == result.old_size)
		printf("Nothing to do: new_size == old_size\n");
	else
		printf("Successfully inflated balloon from %llu to %llu bytes\n", (unsigned long long)result.old_size,
		       (unsigned long long)result.new_size);
	if (result.new_size <= result.old_size)
		return PLOOP_EXIT_OK;
	if (result.clusters || result.truncated)
		print_truncated(&result);
	else
		printf("No unused cluster blocks found\n");
	return PLOOP_EXIT_OK;
}

static int complete(struct arguments *own)
{
	struct ploop_balloon_result result;
	enum ploop_maintenance state;
	struct ploop_error err;
	int r;

	progress_start(&own->progress, own->mode);
	r = ploop_balloon_complete(&own->balloon, &state, &result, &err);
	progress_end(&own->progress);
	if (r < 0)
		return report_error(&err);
	if (state == PLOOP_MAINTENANCE_FBLOADED || state == PLOOP_MAINTENANCE_RELOC)
		print_truncated(&result);
	else
		printf("Nothing to complete: kernel is in \"%s\" state\n", ploop_maintenance_name(state));
	return PLOOP_EXIT_OK;
}

static int check(struct arguments *own)
{
	struct ploop_balloon_result result;
	struct ploop_error err;

	if (ploop_balloon_check(&own->balloon, &result, &err) < 0)
		return report_error(&err);
	if (own->json) {
		struct json_object *object = json_object_new_object();

		json_add_number(object, "size", result.old_size);
		json_add_number(object, "clusters", result.clusters);
		json_add_number(object, "cluster_size", result.cluster);
		return json_print(object);
	}
	if (!result.old_size)
		printf("Nothing to do: hidden balloon is empty\n");
	else if (!result.clusters)
		printf("No free blocks found\n");
	else
		printf("Found %llu free blocks. Consider using \"ploop-balloon repair\"\n",
		       (unsigned long long)result.clusters);
	return PLOOP_EXIT_OK;
}

static int repair(struct arguments *own)
{
	struct ploop_balloon_result result;
	struct ploop_error err;
	int r;

	progress_start(&own->progress, own->mode);
	r = ploop_balloon_repair(&own->balloon, &result, &err);
	progress_end(&own->progress);
	if (r < 0)
		return report_error(&err);
	if (!result.old_size)
		printf("Nothing to do: hidden balloon is empty\n");
	else if (!result.clusters)
		printf("No free blocks found\n");
	else
		printf("Found %llu free blocks\n", (unsigned long long)result.clusters);
	if (result.clusters || result.truncated)
		print_truncated(&result);
	return PLOOP_EXIT_OK;
}

static int discard(struct arguments *own)
{
	struct ploop_reclaim *reclaim = &own->discard.reclaim;

	reclaim->which = own->balloon.which;
	reclaim->automount = own->balloon.automount;
	reclaim->bytes_a_second = own->balloon.bytes_a_second;
	own->discard.json = own->json;
	own->discard.mode = own->mode;
	return balloon_discard(&own->discard);
}

static const struct {
	const char *name;
	int (*run)(struct arguments *own);
} actions[] = {
	{ "show", show },         { "status", print_status }, { "clear", clear },   { "change", change },
	{ "complete", complete }, { "check", check },         { "repair", repair }, { "discard", discard },
};

static int take_operands(struct call *call, struct arguments *own)
{
	struct ploop_which *which = &own->balloon.which;

	if (!call->noperands)
		return call_usage(call, "say what to do: show, change, status, ...");
	which->image = call->noperands > 1 ? call->operands[1] : NULL;
	if (call->noperands > 2 || (which->image && (which->device || which->target)))
		return call_usage(call, "give either -d and -m, or one DiskDescriptor.xml");
	if (!which->device && !which->target && !which->image)
		return call_usage(call, "Error: one of -d, -m or DiskDescriptor.xml argument is required");
	if (own->sized != !strcmp(call->operands[0], "change"))
		return call_usage(call, own->sized ? "-s goes with change" : "change needs -s");
	return PLOOP_EXIT_OK;
}

static int take(struct call *call, struct arguments *own)
{
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	return take_operands(call, own);
}

static int run(struct call *call)
{
	/* Scripts know 1 for wrong options of this one. */
	bool discarding = call->argc > 1 && !strcmp(call->argv[1], "discard");
	struct arguments own = { 0 };
	int status = take(call, &own);

	if (status)
		return discarding ? 1 : status;
	own.balloon.progress = progress_report;
	own.balloon.progress_data = &own.progress;
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (!strcmp(actions[i].name, call->operands[0]))
			return actions[i].run(&own);
	return call_usage(call, "there is no %s; see what there is below", call->operands[0]);
}

static const struct verb_option options[] = {
	{ 's', "size", "SIZE", "change: what it shall take in all" },
	{ 'd', "device", "DEVICE", "of the disk on this device" },
	{ 'm', "mount-point", "DIR", "of the file system that is mounted here" },
	{ 'c', "component", "NAME", "the device of that name, when a disk has several" },
	{ OPTION_AUTOMOUNT, "automount", NULL, "mount what is not mounted, for the time and where nobody sees it" },
	{ OPTION_TO_FREE, "to-free", "SIZE", "discard: enough when so much went back to the host" },
	{ OPTION_MIN_BLOCK, "min-block", "SIZE", "discard: leave shorter free stretches of the file system alone" },
	{ OPTION_TIMEOUT, "timeout", "SECONDS", "discard: enough after so long" },
	{ OPTION_STAT, "stat", NULL, "discard: only print sizes" },
	{ OPTION_DEFRAG, "defrag", NULL, "discard: accepted; it is not needed" },
	{ OPTION_RATE, "rate", "SIZE", "move at most so many bytes a second inside the image" },
	VERB_OPTION_JSON,
	VERB_OPTION_PROGRESS,
	{ 'f', NULL, NULL, NULL },
	{ 0 },
};

const struct verb verb_balloon = {
	.name = "balloon",
	.group = "Space",
	.summary = "take space from a file system in use, and give it back to the host",
	.synopsis = "show|status|clear|complete|check|repair {-d DEVICE | -m DIR | DESCRIPTOR}\n"
		    "change -s SIZE [--rate SIZE] {-d DEVICE | -m DIR | DESCRIPTOR}\n"
		    "discard [--to-free SIZE] [--min-block SIZE] [--stat] {-d DEVICE | -m DIR | DESCRIPTOR}",
	.details = "  show      how large the balloon is\n"
		   "  change    make it this large; 0 gives all space back to the file system\n"
		   "  status    what is being done to the device\n"
		   "  clear     see that nothing is; states end by themselves\n"
		   "  complete  wait for what a change that was killed left running\n"
		   "  check     how much the balloon covers that the host has not got back\n"
		   "  repair    give that back\n"
		   "  discard   give back all that the file system does not use, as `ploop compact` does\n",
	.options = options,
	.run = run,
};
