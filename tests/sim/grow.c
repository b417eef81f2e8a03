/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grow.c - growing takes the first file cluster away from the data that is in it, for the longer index. The power is cut at each step
 * of that, in a few ways: the disk has the old size or the new one, the old data in it, and nothing behind. See device/refit.c.
 *
 *	grow [--expect-finding]
 *
 * With --expect-finding the exit status is 0 when something is wrong: the engine was built to write in a wrong order.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/le.h"
#include "device/device.h"
#include "io/loop.h"
#include "io/sim-table.h"
#include "io/sim.h"

#define CLUSTER 32768u
#define USED 16u
#define APART 150u            /* clusters of the disk, so that the entry that changes is not in the header's page */
#define CLUSTERS (USED * APART)
#define MORE (CLUSTER / 4)    /* entries that fill a cluster */
#define SIZE ((uint64_t)CLUSTERS * CLUSTER)
#define WAYS 8 /* of one step to be cut */

struct life {
	struct sim *sim;
	struct device *device;
	struct delta delta;
	struct device_request request;
	bool done;
	int result;
	const char *wrong; /* NULL: nothing */
};

static void must(int r)
{
	if (r) {
		printf("the test itself failed: %s\n", strerror(-r));
		exit(2);
	}
}

/* Where the nth of the clusters that are used lies in the file: the 8th comes first. */
static uint32_t place(uint32_t n)
{
	return 1 + (n + 9) * 7 % USED;
}

static void fill(uint8_t *bytes, uint32_t n)
{
	for (uint32_t i = 0; i < CLUSTER; i += 4)
		le32_put(bytes + i, (n + 1) << 24 | i);
}

static void make_image(struct life *life)
{
	uint8_t *bytes = calloc(1, CLUSTER);
	struct io_file *file;

	must(bytes ? 0 : -12);
	must(io_open(sim_loop(life->sim), &io_sim, "image", IO_RDWR | IO_CREATE, &file, NULL));
	memcpy(bytes, "WithouFreSpacExt", 16);
	le32_put(bytes + 16, 2);
	le32_put(bytes + 20, 16);
	le32_put(bytes + 28, CLUSTER / 512);
	le32_put(bytes + 32, CLUSTERS);
	le64_put(bytes + 36, SIZE / 512);
	le32_put(bytes + 48, CLUSTER / 512);
	for (uint32_t n = 0; n < USED; n++)
		le32_put(bytes + 64 + (size_t)4 * APART * n, place(n));
	must(io_pwrite(file, bytes, CLUSTER, 0));
	for (uint32_t n = 0; n < USED; n++) {
		fill(bytes, n);
		must(io_pwrite(file, bytes, CLUSTER, place(n) * (uint64_t)CLUSTER));
	}
	must(io_sync(file));
	io_close(file);
	free(bytes);
}

static int open_image(struct life *life)
{
	const struct device_config config = { .loop = sim_loop(life->sim), .levels = &life->delta, .nlevels = 1 };
	uint8_t head[FORMAT_HEAD];
	struct ploop_error err;
	uint64_t size = 0;
	int r;

	life->delta = (struct delta){ .format = &format_ploop1 };
	r = io_open(sim_loop(life->sim), &io_sim, "image", IO_RDWR, &life->delta.file, NULL);
	if (r)
		return r;
	r = io_size(life->delta.file, &size);
	if (!r)
		r = io_pread(life->delta.file, head, sizeof(head), 0);
	if (!r)
		r = format_ploop1.parse(head, sizeof(head), size, 0, &life->delta.geometry, &err);
	if (!r)
		r = device_open(&config, &life->device, &err);
	if (r)
		io_close(life->delta.file);
	return r;
}

static void done(void *data, int result)
{
	struct life *life = data;

	life->done = true;
	life->result = result;
	loop_stop(sim_loop(life->sim));
}

static void request_done(struct device_request *request, int result)
{
	done((char *)request - offsetof(struct life, request), result);
}

static int wait_for(struct life *life)
{
	while (!life->done)
		must(loop_run(sim_loop(life->sim)));
	life->done = false;
	return life->result;
}

static void close_image(struct life *life)
{
	device_close(life->device, done, life);
	wait_for(life);
	io_close(life->delta.file);
}

static void check_cluster(struct life *life, uint32_t n, uint8_t *got, uint8_t *want)
{
	life->request = (struct device_request){ .kind = DEVICE_READ,
						 .offset = (uint64_t)n * APART * CLUSTER,
						 .length = CLUSTER,
						 .buffer = got,
						 .done = request_done };
	device_submit(life->device, &life->request);
	fill(want, n);
	if (wait_for(life) || memcmp(got, want, CLUSTER))
		life->wrong = "data is lost";
}

static void check(struct life *life)
{
	uint8_t *got = calloc(2, CLUSTER);
	uint64_t size;

	must(got ? 0 : -12);
	if (open_image(life)) {
		life->wrong = "the image does not open";
		free(got);
		return;
	}
	size = device_size(life->device);
	if (size != SIZE && size != SIZE + (uint64_t)MORE * CLUSTER)
		life->wrong = "neither the old nor the new size";
	for (uint32_t n = 0; n < USED; n++)
		check_cluster(life, n, got, got + CLUSTER);
	for (uint32_t v = CLUSTERS; v < size / CLUSTER; v++)
		if (device_lookup(life->device, v).cluster)
			life->wrong = "there is something behind the old end";
	close_image(life);
	free(got);
}

/* The power is cut at the nth step. False when it ended before. */
static bool live(struct life *life, uint64_t nth, uint64_t way)
{
	struct ploop_error err;
	bool cut;

	*life = (struct life){ .sim = sim_new(nth << 8 | way) };
	make_image(life);
	must(open_image(life));
	sim_cut_after(life->sim, nth);
	must(device_resize(life->device, SIZE + (uint64_t)MORE * CLUSTER, done, life, &err));
	wait_for(life);
	close_image(life);
	cut = sim_is_cut(life->sim);
	if (cut)
		sim_boot(life->sim);
	sim_cut_after(life->sim, 0);
	check(life);
	sim_free(life->sim);
	return cut;
}

int main(int argc, char **argv)
{
	bool expect = argc > 1 && !strcmp(argv[1], "--expect-finding");
	uint64_t lives = 0, steps = 0;
	struct life life;
	bool cut = true;

	while (cut) {
		steps++;
		for (uint64_t way = 0; way < WAYS; way++, lives++) {
			cut = live(&life, steps, way);
			if (!life.wrong)
				continue;
			printf("FINDING (step %llu, way %llu): %s\n", (unsigned long long)steps, (unsigned long long)way, life.wrong);
			return !expect;
		}
	}
	printf("%llu lives, cut at %llu steps\n", (unsigned long long)lives, (unsigned long long)steps - 1);
	return expect;
}
