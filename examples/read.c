/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * read.c - writes what is on a disk to a file, without a device and without root: a raw, sparse copy.
 *
 *	read DiskDescriptor.xml OUT
 *	read BASE [.. TOP] OUT
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <ploop/ploop.h>

#define CHUNK (1 << 20)

static int copy_extent(struct ploop_disk *disk, const struct ploop_extent *extent, int out, struct ploop_error *err)
{
	static char buffer[CHUNK];

	for (uint64_t done = 0; done < extent->length; done += CHUNK) {
		size_t take = extent->length - done < CHUNK ? (size_t)(extent->length - done) : CHUNK;
		int r = ploop_disk_read(disk, buffer, take, extent->offset + done, err);

		if (r < 0)
			return r;
		if (pwrite(out, buffer, take, (off_t)(extent->offset + done)) != (ssize_t)take) {
			perror("write");
			return -1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct ploop_files files = { .paths = (const char *const *)argv + 1, .npaths = (unsigned)argc - 2 };
	struct ploop_error err = { 0 };
	struct ploop_extent extent;
	struct ploop_disk *disk;
	int out, r = 0;

	if (argc < 3) {
		fprintf(stderr, "usage: %s DiskDescriptor.xml OUT\n", argv[0]);
		return PLOOP_EXIT_PARAM;
	}
	if (ploop_disk_open(&files, &disk, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return (int)err.status;
	}
	out = open(argv[argc - 1], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0 || ftruncate(out, (off_t)ploop_disk_size(disk)) < 0) {
		perror(argv[argc - 1]);
		ploop_disk_close(disk);
		return PLOOP_EXIT_CREAT;
	}
	/* What is mapped nowhere reads as zeros, and is a hole in the copy. */
	for (uint64_t at = 0; !r && ploop_disk_extent(disk, at, &extent); at = extent.offset + extent.length) {
		if (extent.mapped)
			r = copy_extent(disk, &extent, out, &err);
	}
	if (r < 0)
		fprintf(stderr, "%s\n", err.text);
	ploop_disk_close(disk);
	close(out);
	return r < 0 ? PLOOP_EXIT_READ : PLOOP_EXIT_OK;
}
