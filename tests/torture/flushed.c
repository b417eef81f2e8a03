/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * flushed.c - writes to a block device until it dies, and then checks that everything that was flushed is there.
 *
 *	flushed [-j THREADS] [-t SECONDS] [-s SEED] [-z] [-a] DEVICE
 *
 * Every thread has a part of the device of its own and does one operation at a time: writes of 512 bytes to 64 KiB at any
 * sector, with -z also discards and write zeroes, and now and then a flush. When an operation fails, or the time is over, all
 * stop, and one line "stopped" goes to standard output. Each line of standard input then names a device (the same disk, mounted
 * again): it is compared, one line "verified" is printed, and the writing goes on there. The end of the input ends the program.
 *
 * A sector must hold what it held at its thread's last successful flush, or what any operation issued since then put there.
 * Anything else is corruption: exit status 1. To begin with all is zeros; with -a, whatever an earlier run left there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512u
#define MAX_SECTORS 128u
#define MAX_OPS 256u

struct op {
	uint32_t version; /* 0: zeros */
	uint32_t first, count;
};

struct worker {
	pthread_t thread;
	unsigned index;
	uint64_t random;
	uint32_t first, count; /* its sectors */
	uint32_t version;
	struct op ops[MAX_OPS]; /* issued since the last flush that succeeded */
	unsigned nops;
	uint64_t writes, flushes;
	uint64_t (*buffer)[SECTOR / 8];
};

static struct {
	int fd;
	bool zeroes;
	bool adopt; /* what is there is taken for flushed, if it was ever written there */
	time_t end;
	atomic_bool stop;
	uint32_t *flushed; /* version of each sector at the last flush */
} run;

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static void fill_sector(uint64_t *words, uint32_t sector, uint32_t version)
{
	uint64_t state = (uint64_t)sector << 32 | version;

	words[0] = version;
	words[1] = sector;
	for (unsigned i = 2; i < SECTOR / 8; i++)
		words[i] = version ? next_random(&state) : 0;
	if (!version)
		words[1] = 0;
}

static bool flush(struct worker *w)
{
	if (fdatasync(run.fd))
		return false;
	for (unsigned i = 0; i < w->nops; i++)
		for (uint32_t s = 0; s < w->ops[i].count; s++)
			run.flushed[w->ops[i].first + s] = w->ops[i].version;
	w->nops = 0;
	w->flushes++;
	return true;
}

static bool write_sectors(struct worker *w, const struct op *op)
{
	ssize_t len = (ssize_t)op->count * SECTOR;

	for (uint32_t s = 0; s < op->count; s++)
		fill_sector(w->buffer[s], op->first + s, op->version);
	return pwrite(run.fd, w->buffer, (size_t)len, (off_t)op->first * SECTOR) == len;
}

static bool zero_sectors(struct worker *w, const struct op *op)
{
	uint64_t range[2] = { (uint64_t)op->first * SECTOR, (uint64_t)op->count * SECTOR };

	if (next_random(&w->random) & 1)
		return !ioctl(run.fd, BLKDISCARD, range);
	return !fallocate(run.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range[0], (off_t)range[1]);
}

static bool step(struct worker *w)
{
	struct op *op = &w->ops[w->nops];
	bool zero = run.zeroes && next_random(&w->random) % 8 == 0;

	if (w->nops == MAX_OPS || next_random(&w->random) % 24 == 0)
		return flush(w);
	op->count = 1 + (uint32_t)(next_random(&w->random) % (zero ? 16 * MAX_SECTORS : MAX_SECTORS));
	if (next_random(&w->random) % 3 == 0)
		op->count = 8;
	if (op->count > w->count)
		op->count = w->count;
	op->first = w->first + (uint32_t)(next_random(&w->random) % (w->count - op->count + 1));
	op->version = zero ? 0 : ++w->version;
	w->nops++; /* from now on it may be on the disk */
	w->writes++;
	return zero ? zero_sectors(w, op) : write_sectors(w, op);
}

static void *work(void *data)
{
	struct worker *w = data;

	while (!run.stop && time(NULL) < run.end)
		if (!step(w))
			run.stop = true;
	return NULL;
}

/* Whether an operation since the last flush may have put this version there. */
static bool issued(const struct worker *w, uint32_t sector, uint32_t version)
{
	for (unsigned i = 0; i < w->nops; i++)
		if (w->ops[i].version == version && sector - w->ops[i].first < w->ops[i].count)
			return true;
	return false;
}

static bool check_sector(struct worker *w, uint32_t sector, const uint64_t *words)
{
	uint64_t want[SECTOR / 8];
	uint32_t version = (uint32_t)words[0];

	fill_sector(want, sector, version);
	if (memcmp(want, words, SECTOR)) {
		printf("sector %u: not what was ever written there\n", sector);
		return false;
	}
	if (run.adopt)
		w->version = version > w->version ? version : w->version;
	else if (version != run.flushed[sector] && !issued(w, sector, version)) {
		printf("sector %u: version %u, but %u was flushed\n", sector, version, run.flushed[sector]);
		return false;
	}
	run.flushed[sector] = version;
	return true;
}

/* Compares one worker's part, and takes what is there as flushed: it stays. */
static bool verify(struct worker *w)
{
	bool good = true;

	for (uint32_t at = 0; at < w->count && good; at += MAX_SECTORS) {
		uint32_t n = w->count - at < MAX_SECTORS ? w->count - at : MAX_SECTORS;
		ssize_t len = (ssize_t)n * SECTOR;

		if (pread(run.fd, w->buffer, (size_t)len, ((off_t)w->first + at) * SECTOR) != len) {
			printf("cannot read sector %u: %s\n", w->first + at, strerror(errno));
			return false;
		}
		for (uint32_t s = 0; s < n && good; s++)
			good = check_sector(w, w->first + at + s, w->buffer[s]);
	}
	w->nops = 0;
	return good;
}

static bool verify_all(struct worker *workers, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!verify(&workers[i]))
			return false;
	return true;
}

static void write_until_it_dies(struct worker *workers, unsigned n, unsigned seconds)
{
	uint64_t writes = 0, flushes = 0;

	run.stop = false;
	run.end = time(NULL) + seconds;
	for (unsigned i = 0; i < n; i++)
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	for (unsigned i = 0; i < n; i++) {
		pthread_join(workers[i].thread, NULL);
		writes += workers[i].writes;
		flushes += workers[i].flushes;
	}
	printf("stopped after %llu operations and %llu flushes\n", (unsigned long long)writes,
	       (unsigned long long)flushes);
}

static int open_device(const char *path, uint64_t *ret_size)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, ret_size)) {
		perror(path);
		exit(2);
	}
	return fd;
}

static struct worker *make_workers(unsigned n, uint64_t seed, uint64_t size)
{
	struct worker *workers = calloc(n, sizeof(*workers));
	uint32_t sectors = (uint32_t)(size / SECTOR);

	run.flushed = calloc(sectors, sizeof(*run.flushed));
	for (unsigned i = 0; workers && i < n; i++) {
		workers[i].index = i;
		workers[i].random = seed * 1000 + i;
		workers[i].first = sectors / n * i;
		workers[i].count = sectors / n;
		if (posix_memalign((void **)&workers[i].buffer, 4096, MAX_SECTORS * SECTOR))
			return NULL;
	}
	return run.flushed ? workers : NULL;
}

int main(int argc, char **argv)
{
	unsigned threads = 32, seconds = 5;
	uint64_t seed = (uint64_t)time(NULL), size;
	struct worker *workers;
	char line[4096];
	int option;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt(argc, argv, "j:t:s:za")) != -1) {
		if (option == 'j')
			threads = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 't')
			seconds = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (option == 'z')
			run.zeroes = true;
		else if (option == 'a')
			run.adopt = true;
		else
			return 2;
	}
	if (optind + 1 != argc || !threads)
		return 2;
	run.fd = open_device(argv[optind], &size);
	workers = make_workers(threads, seed, size);
	if (!workers)
		return 2;
	if (run.adopt && !verify_all(workers, threads))
		return 1;
	run.adopt = false;
	printf("seed %llu\n", (unsigned long long)seed);
	write_until_it_dies(workers, threads, seconds);
	while (fgets(line, sizeof(line), stdin)) {
		close(run.fd);
		line[strcspn(line, "\n")] = 0;
		run.fd = open_device(line, &size);
		if (!verify_all(workers, threads))
			return 1;
		printf("verified\n");
		write_until_it_dies(workers, threads, seconds);
	}
	return 0;
}
