/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* balloon-discard.c - see balloon-discard.h. The words are those that scripts know. */
#include "cli/balloon-discard.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "cli/json.h"
#include "cli/report.h"

#define MB (UINT64_C(1) << 20)

static int print_stat(const struct balloon_discard *discard)
{
	struct ploop_balloon balloon = { .which = discard->reclaim.which, .automount = discard->reclaim.automount };
	struct ploop_balloon_stat stat;
	struct ploop_error err;

	if (ploop_balloon_stat(&balloon, &stat, &err) < 0)
		return report_error(&err);
	if (discard->json) {
		struct json_object *object = json_object_new_object();

		json_add_number(object, "balloon", stat.balloon);
		json_add_number(object, "data", stat.data);
		json_add_number(object, "size", stat.size);
		json_add_number(object, "images", stat.images);
		return json_print(object);
	}
	printf("Balloon size: %8lluMB\n", (unsigned long long)(stat.balloon / MB));
	printf("Data size:    %8lluMB\n", (unsigned long long)(stat.data / MB));
	printf("Ploop size:   %8lluMB\n", (unsigned long long)(stat.size / MB));
	printf("Image size:   %8lluMB\n", (unsigned long long)(stat.images / MB));
	return PLOOP_EXIT_OK;
}

/* One that gives back less than a cluster was refused by the original. */
static int check_to_free(const struct ploop_reclaim *reclaim)
{
	struct ploop_device device;
	struct ploop_error err;
	uint32_t cluster;

	if (!reclaim->to_free || ploop_find(&reclaim->which, &device, &err) < 0)
		return PLOOP_EXIT_OK;
	cluster = device.cluster;
	ploop_device_clear(&device);
	if (reclaim->to_free >= cluster)
		return PLOOP_EXIT_OK;
	log_error("Can't shrink by less than %u bytes", cluster);
	return PLOOP_EXIT_PARAM;
}

int balloon_discard(struct balloon_discard *discard)
{
	struct ploop_reclaimed result;
	struct progress progress;
	struct ploop_error err;
	int r;

	if (discard->stat)
		return print_stat(discard);
	r = check_to_free(&discard->reclaim);
	if (r)
		return r;
	if (discard->defrag)
		log_info("--defrag is not needed: parts of clusters go back to the host, too");
	discard->reclaim.mounted_only = true;
	discard->reclaim.progress = progress_report;
	discard->reclaim.progress_data = &progress;
	progress_start(&progress, discard->mode);
	r = ploop_reclaim(&discard->reclaim, &result, &err);
	progress_end(&progress);
	if (r == -ENODEV) {
		log_error("Unable to discard: image is not mounted");
		return PLOOP_EXIT_PARAM;
	}
	if (r < 0)
		return report_error(&err);
	printf("%llu clusters have been relocated\n", (unsigned long long)(result.moved / result.cluster));
	return PLOOP_EXIT_OK;
}
