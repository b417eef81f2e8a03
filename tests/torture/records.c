/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * records.c - writes records that can be told apart, and tells when each is durable.
 *
 *	records FILE          writes record after record, each followed by fdatasync(), and then prints its number
 *	records FILE COUNT    checks that the first COUNT are there, whole
 *
 * Each record is a block that holds nothing but numbers made from its own. Beside them, in FILE.junk, comes and goes what nobody asks to be
 * durable, so that there always is something to lose.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS 512u
#define SIZE (WORDS * sizeof(uint64_t))
#define JUNK_EVERY 8u
#define JUNK_BLOCKS 64u

static void fail(const char *what)
{
	fprintf(stderr, "records: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void fill(uint64_t number, uint64_t block[WORDS])
{
	uint64_t v = number + 1;

	for (unsigned i = 0; i < WORDS; i++) {
		v = v * 6364136223846793005u + 1442695040888963407u;
		block[i] = v;
	}
	block[0] = number;
}

static int open_or_fail(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		fail(path);
	return fd;
}

static void write_junk(const char *path, uint64_t number)
{
	uint64_t block[WORDS];
	int fd = open_or_fail(path, O_WRONLY | O_CREAT | (number % (2 * JUNK_EVERY) ? O_TRUNC : 0));

	fill(~number, block);
	for (unsigned i = 0; i < JUNK_BLOCKS; i++)
		(void)!pwrite(fd, block, SIZE, (off_t)((i * 7 + number) % 4096 * SIZE));
	close(fd);
}

static void write_records(const char *path)
{
	uint64_t block[WORDS];
	char junk[4096];
	int fd = open_or_fail(path, O_WRONLY | O_CREAT);

	snprintf(junk, sizeof(junk), "%s.junk", path);
	for (uint64_t number = 0;; number++) {
		fill(number, block);
		if (pwrite(fd, block, SIZE, (off_t)(number * SIZE)) != SIZE || fdatasync(fd))
			fail(path);
		printf("record %llu\n", (unsigned long long)number);
		fflush(stdout);
		if (number % JUNK_EVERY == 0)
			write_junk(junk, number);
	}
}

static int check_records(const char *path, uint64_t count)
{
	uint64_t want[WORDS], is[WORDS], bad = 0;
	int fd = open_or_fail(path, O_RDONLY);

	for (uint64_t number = 0; number < count; number++) {
		fill(number, want);
		if (pread(fd, is, SIZE, (off_t)(number * SIZE)) == SIZE && !memcmp(is, want, SIZE))
			continue;
		if (!bad++)
			printf("records: number %llu of %llu is not there\n", (unsigned long long)number,
			       (unsigned long long)count);
	}
	close(fd);
	return bad ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 2)
		write_records(argv[1]);
	if (argc == 3)
		return check_records(argv[1], strtoull(argv[2], NULL, 10));
	fprintf(stderr, "usage: records FILE [COUNT]\n");
	return 2;
}
