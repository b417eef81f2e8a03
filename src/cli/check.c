/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check.c - `ploop check`: what is wrong with the images of a disk, and putting it right. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/call.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

#define LINES_OF_A_KIND 20 /* findings of one kind that are printed */

struct ask {
	struct ploop_check_options check;
	const char *undo; /* the file to go back with */
	bool force, silent, json;
	enum progress_mode progress_mode;
	struct progress progress;
	struct json_object *images, *findings; /* with --json */
};

static const char *const verdicts[] = {
	[PLOOP_CHECK_FOUND] = "found",
	[PLOOP_CHECK_FIXED] = "fixed",
	[PLOOP_CHECK_SKIPPED] = "skipped",
};
static const char *const levels[] = { "none", "leaks", "safe", "all" };

static void json_add_place(struct json_object *object, const char *key, uint64_t number)
{
	if (number != UINT64_MAX)
		json_add_number(object, key, number);
}

static void take_finding(void *data, const struct ploop_check_finding *finding)
{
	static const char *const words[] = { "", "... Fixed", "... Skipped" };
	static uint64_t printed[PLOOP_CHECK_KINDS];
	struct ask *ask = data;
	struct json_object *object;

	if (ask->json) {
		if (!ask->findings)
			ask->findings = json_object_new_array();
		object = json_list_add(ask->findings);
		json_add_text(object, "kind", ploop_check_kind_name(finding->kind));
		json_add_text(object, "verdict", verdicts[finding->verdict]);
		json_add_place(object, "cluster", finding->cluster);
		json_add_place(object, "file_cluster", finding->file_cluster);
		json_add_number(object, "bytes", finding->bytes);
		json_add_text(object, "text", finding->text);
		return;
	}
	if (printed[finding->kind]++ < LINES_OF_A_KIND)
		printf("%s: %s%s\n", finding->path, finding->text, words[finding->verdict]);
	else if (printed[finding->kind] == LINES_OF_A_KIND + 1)
		printf("%s: more of this kind (--json lists all)\n", finding->path);
}

static struct json_object *counts(const uint64_t numbers[PLOOP_CHECK_KINDS])
{
	struct json_object *object = json_object_new_object();

	for (unsigned kind = 0; kind < PLOOP_CHECK_KINDS; kind++)
		if (numbers[kind])
			json_add_number(object, ploop_check_kind_name((enum ploop_check_kind)kind), numbers[kind]);
	return object;
}

static void image_to_json(struct ask *ask, const struct ploop_check_image *image)
{
	struct json_object *object = json_list_add(ask->images);

	json_add_text(object, "path", image->path);
	json_add_text(object, "format", image->format);
	json_add_number(object, "version", image->version);
	json_add_number(object, "size", image->size);
	json_add_number(object, "cluster", image->cluster);
	json_add_number(object, "entries", image->entries);
	json_add_number(object, "mapped", image->mapped);
	json_add_number(object, "file_size", image->file_size);
	json_add_number(object, "leaked", image->leaked);
	json_add_bool(object, "in_use", image->in_use);
	json_add_bool(object, "changed", image->changed);
	json_add_number(object, "errors", image->errors);
	json_add_number(object, "status", image->status);
	json_object_object_add(object, "found", counts(image->found));
	json_object_object_add(object, "fixed", counts(image->fixed));
	json_object_object_add(object, "findings", ask->findings ? ask->findings : json_object_new_array());
	ask->findings = NULL;
}

static uint64_t sum(const uint64_t numbers[PLOOP_CHECK_KINDS])
{
	uint64_t total = 0;

	for (unsigned kind = 0; kind < PLOOP_CHECK_KINDS; kind++)
		total += numbers[kind];
	return total;
}

/* What is wrong and what to do about it, on standard error, in the words that scripts look for. */
static void tell_status(const struct ploop_check_image *image)
{
	static const char *const advice[] = {
		" and cannot be by this program",
		"",
		"",
		"; --repair=safe does it without loss",
		"; --repair=all clears the entries that lead nowhere: what they should hold is lost",
	};

	switch (image->status) {
	case PLOOP_EXIT_OK:
		break;
	case PLOOP_EXIT_FORMAT:
		log_error("Fatal errors were found, image %s is not repaired%s", image->path, advice[image->needed + 1]);
		break;
	case PLOOP_EXIT_BUSY:
		log_error("Image %s is in the changing version state", image->path);
		break;
	case PLOOP_EXIT_IN_USE:
		log_error("%s: Dirty flag is set; nothing else is wrong: mount it, or take the flag away with -d",
			  image->path);
		break;
	default:
		log_error("Image is clean but unable to fix the header on ro image %s", image->path);
		break;
	}
}

static void take_image(void *data, const struct ploop_check_image *image)
{
	char size[SIZE_TEXT], leaked[SIZE_TEXT];
	struct ask *ask = data;

	if (ask->json) {
		image_to_json(ask, image);
		return;
	}
	if (!ask->silent && !image->status)
		printf("%s: clean, %s%llu of %llu clusters mapped, %s\n", image->path,
		       sum(image->fixed) ? "repaired, " : "", (unsigned long long)image->mapped,
		       (unsigned long long)image->entries, size_format(image->file_size, size));
	if (!ask->silent && image->leaked)
		printf("%s: %s hold nothing (--repair=leaks gives them back)\n", image->path,
		       size_format(image->leaked, leaked));
	tell_status(image);
}

static int take_progress(void *data, const char *stage, uint64_t done, uint64_t total)
{
	struct ask *ask = data;

	return progress_report(&ask->progress, stage, done, total);
}

static int parse_repair(struct call *call, enum ploop_check_repair *ret)
{
	for (unsigned i = 0; i < 4; i++) {
		if (!strcmp(call->value, levels[i])) {
			*ret = (enum ploop_check_repair)i;
			return 0;
		}
	}
	return call_usage(call, "--repair is none, leaks, safe or all, not %s", call->value);
}

static void at_least(struct ploop_check_options *check, enum ploop_check_repair level)
{
	if (check->repair < level)
		check->repair = level;
}

enum {
	OPTION_REPAIR = OPTION_OWN,
	OPTION_UNDO_FILE,
	OPTION_UNDO,
	OPTION_OUTSIDE,
};

/* The letters are those of the original, and write what they wrote there. Returns an exit status. */
static int take_letter(struct call *call, struct ask *ask, int c)
{
	struct ploop_check_options *check = &ask->check;
	struct ploop_error err;
	uint64_t sectors;

	switch (c) {
	case 'f':
		ask->force = true;
		at_least(check, PLOOP_CHECK_REPAIR_SAFE);
		return 0;
	case 'F':
		at_least(check, PLOOP_CHECK_REPAIR_ALL);
		return 0;
	case 'd':
		at_least(check, PLOOP_CHECK_REPAIR_SAFE);
		check->drop_in_use = true;
		return 0;
	case 'r':
		check->read_only = true;
		return 0;
	case 's':
		ask->silent = true;
		return 0;
	case 'R':
		check->raw = true;
		return 0;
	case 'b':
		if (number_parse(call->value, "-b", 131072, &sectors, &err) < 0)
			return call_usage_error(call, &err);
		check->cluster = (uint32_t)sectors * 512;
		return 0;
	case 'u':
		check->snapshot = call->value;
		return 0;
	default: /* c, S: always so, never needed */
		return 0;
	}
}

static int take_option(struct call *call, struct ask *ask, int c)
{
	struct ploop_error err;
	int status;

	switch (c) {
	case CALL_BAD:
		return PLOOP_EXIT_PARAM;
	case OPTION_REPAIR:
		status = parse_repair(call, &ask->check.repair);
		ask->check.drop_in_use = ask->check.repair != PLOOP_CHECK_REPAIR_NONE;
		return status;
	case OPTION_UNDO_FILE:
		ask->check.undo = call->value;
		return 0;
	case OPTION_UNDO:
		ask->undo = call->value;
		return 0;
	case OPTION_OUTSIDE:
		ask->check.outside = true;
		return 0;
	case OPTION_JSON:
		ask->json = true;
		return 0;
	case OPTION_PROGRESS:
		return progress_parse(call->value, &ask->progress_mode, &err) < 0 ? call_usage_error(call, &err) : 0;
	default:
		return take_letter(call, ask, c);
	}
}

static int go_back(const char *image, const struct ask *ask)
{
	struct ploop_error err;

	if (ploop_check_undo(image, ask->undo, ask->force, &err) < 0)
		return report_error(&err);
	log_info("%s is again as it was before %s was made", image, ask->undo);
	return PLOOP_EXIT_OK;
}

static int check(const char *operand, struct ask *ask)
{
	struct json_object *object = NULL;
	enum ploop_exit status;
	struct ploop_error err;
	int r;

	if (ask->json) {
		object = json_object_new_object();
		ask->images = json_add_list(object, "images");
	}
	ask->check.finding = take_finding;
	ask->check.image = take_image;
	ask->check.progress = take_progress;
	ask->check.data = ask;
	progress_start(&ask->progress, ask->progress_mode);
	r = ploop_check(operand, &ask->check, &status, &err);
	progress_end(&ask->progress);
	json_object_put(ask->findings);
	if (r < 0) {
		json_object_put(object);
		return report_error(&err);
	}
	if (!ask->json)
		return status;
	json_add_number(object, "status", status);
	r = json_print(object);
	return r ? r : (int)status;
}

static int run(struct call *call)
{
	struct ask ask = { 0 };
	int c, status;

	while ((c = call_option(call)) != CALL_END) {
		status = take_option(call, &ask, c);
		if (status)
			return status;
	}
	if (call->noperands != 1)
		return call_usage(call, "name one DiskDescriptor.xml or one image");
	return ask.undo ? go_back(call->operands[0], &ask) : check(call->operands[0], &ask);
}

static const struct verb_option options[] = {
	{ OPTION_REPAIR, "repair", "none|leaks|safe|all", "what may be written (see below); none without any option" },
	{ OPTION_UNDO_FILE, "undo-file", "FILE", "make FILE, with which --undo can go back; for one image" },
	{ OPTION_UNDO, "undo", "FILE", "put back what the check that made FILE has changed" },
	{ 'd', "drop-inuse", NULL, "like --repair=safe" },
	{ 'f', "force", NULL, "like --repair=safe, but an in-use mark stays; with --undo: whatever happened since" },
	{ 'F', "hard-force", NULL, "like --repair=all, but an in-use mark stays" },
	{ 'r', "ro", NULL, "write nothing, whatever else is said; 7 when something should have been written" },
	{ 's', "silent", NULL, "say nothing about an image that is clean" },
	{ 'R', "raw", NULL, "the image is raw; needs -b" },
	{ 'b', "blocksize", "SECTORS", "cluster size of a raw image" },
	{ 'u', "uuid", "UUID", "of a descriptor: the images up to this snapshot" },
	{ OPTION_OUTSIDE, "outside", NULL, "of a descriptor: images outside its folder too" },
	{ 'c', "check", NULL, NULL },
	{ 'S', "repair-sparse", NULL, NULL },
	VERB_OPTION_JSON,
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_check = {
	.name = "check",
	.group = "Disks",
	.summary = "find what is wrong with images, and put it right",
	.synopsis = "[OPTIONS] DiskDescriptor.xml\n[OPTIONS] IMAGE\n--undo FILE [-f] IMAGE",
	.details =
		"--repair=leaks gives back space that nothing uses; safe also repairs what it can without losing data\n"
		"(a cluster used twice is copied); all also clears index entries that lead nowhere, whose data is "
		"lost.\n"
		"Each takes the in-use mark off an image without damage.\n",
	.options = options,
	.run = run,
};
