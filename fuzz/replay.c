/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* replay.c - gives a fuzzer every file of its corpus, and each of them cut short, as a plain test: `replay FOLDER`. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "fuzz.h"

#define INPUT_LIMIT (64u << 20)
#define CUTS 8

static void replay(const char *text, size_t len)
{
	LLVMFuzzerTestOneInput((const uint8_t *)text, len);
	for (unsigned i = 1; i <= CUTS; i++) {
		/* A copy of its own, so that the sanitizer sees who reads beyond the end. */
		size_t cut = len * i / (CUTS + 1);
		uint8_t *part = malloc(cut ? cut : 1);

		if (!part)
			abort();
		memcpy(part, text, cut);
		LLVMFuzzerTestOneInput(part, cut);
		free(part);
	}
}

int main(int argc, char **argv)
{
	DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
	const struct dirent *entry;
	unsigned n = 0;

	if (!folder) {
		fprintf(stderr, "usage: replay FOLDER\n");
		return 2;
	}
	while ((entry = readdir(folder))) {
		char *text;
		size_t len;

		if (entry->d_name[0] == '.')
			continue;
		if (fd_read_file(dirfd(folder), entry->d_name, INPUT_LIMIT, &text, &len) < 0) {
			fprintf(stderr, "cannot read %s/%s\n", argv[1], entry->d_name);
			return 1;
		}
		replay(text, len);
		free(text);
		n++;
	}
	closedir(folder);
	printf("%u inputs\n", n);
	return n ? 0 : 1;
}
