/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create.c - makes a disk with ext4 in it, filled with a folder or a tar archive when one is named, then opens it and tells what
 * it is. Needs neither root nor a device.
 *
 *	create BYTES DELTA [FOLDER | ARCHIVE]
 */
#include <stdio.h>
#include <stdlib.h>

#include <ploop/ploop.h>

static void log_line(void *data, int level, const char *text)
{
	(void)data;
	fprintf(level < 0 ? stderr : stdout, "%s\n", text);
}

static int show_progress(void *data, const char *stage, uint64_t done, uint64_t total)
{
	(void)data;
	if (total)
		printf("%s: %llu of %llu bytes\n", stage, (unsigned long long)done, (unsigned long long)total);
	return 0; /* anything else would cancel it */
}

static int tell(const char *image, struct ploop_error *err)
{
	struct ploop_files files = { .paths = &image, .npaths = 1 };
	struct ploop_level base;
	struct ploop_disk *disk;
	int r;

	r = ploop_disk_open(&files, &disk, err);
	if (r < 0)
		return r;
	r = ploop_disk_level(disk, 0, &base, err);
	if (!r)
		printf("%s: %s version %u, %llu bytes in clusters of %u; the file takes %llu bytes\n", base.path, base.format,
		       base.version, (unsigned long long)ploop_disk_size(disk), ploop_disk_cluster(disk),
		       (unsigned long long)base.allocated);
	ploop_disk_close(disk);
	return r;
}

int main(int argc, char **argv)
{
	struct ploop_init_params params = { .progress = show_progress };
	struct ploop_error err;

	if (argc < 3) {
		fprintf(stderr, "usage: %s BYTES DELTA [FOLDER | ARCHIVE]\n", argv[0]);
		return PLOOP_EXIT_PARAM;
	}
	params.size = strtoull(argv[1], NULL, 0);
	params.image = argv[2];
	params.from = argv[3];
	ploop_set_log(log_line, NULL);
	if (ploop_init(&params, &err) < 0 || tell(argv[2], &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return (int)err.status;
	}
	return 0;
}
