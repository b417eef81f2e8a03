/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * world-shadow.c - what outlives a process that dies (device/shadow.h): after that, and before anything is opened, the files are
 * made to say it, and then all that was answered must be there, as if it had been flushed.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "device/shadow.h"
#include "io/sim-table.h"
#include "world.h"

/* The memory as it is now: what the engine does while it is taken down is not to be in it. */
static int copy_memory(int from)
{
	int to = memfd_create("ploop-shadow", MFD_CLOEXEC);
	char *buffer = sim_alloc(SIM_PAGE);
	off_t data = 0, hole;
	struct stat st;

	if (to < 0 || fstat(from, &st) || ftruncate(to, st.st_size))
		abort();
	while ((data = lseek(from, data, SEEK_DATA)) >= 0) {
		hole = lseek(from, data, SEEK_HOLE);
		for (; data < hole; data += SIM_PAGE)
			if (pread(from, buffer, SIM_PAGE, data) != SIM_PAGE || pwrite(to, buffer, SIM_PAGE, data) != SIM_PAGE)
				abort();
	}
	free(buffer);
	return to;
}

static void on_cut(void *data, enum sim_cut kind)
{
	struct world *world = data;

	if (kind == SIM_CUT_PROCESS)
		world->remembered = copy_memory(shadow_fd(world->shadow));
}

void world_shadow_init(struct world *world)
{
	world->remembered = -1;
	if (shadow_new(&world->shadow))
		abort();
	sim_on_cut(world->sim, on_cut, world);
}

void world_shadow_fini(struct world *world)
{
	shadow_close(world->shadow);
	if (world->remembered >= 0)
		close(world->remembered);
}

/* The device that used it is gone. */
void world_shadow_recover(struct world *world)
{
	if (!sim_is_cut(world->sim))
		return; /* it was closed, if only badly */
	shadow_close(world->shadow);
	world->shadow = NULL;
	if (world->remembered >= 0 ? shadow_open(world->remembered, &world->shadow) : shadow_new(&world->shadow))
		world_fail(world, "the memory of the process that died is not understood");
	world->replay = world->remembered >= 0;
	world->remembered = -1;
}

static int replay_level(struct world *world, const struct disk_level *level)
{
	struct delta delta = { .format = level->raw ? &format_raw : &format_ploop1 };
	struct ploop_error err = { 0 };
	int r;

	if (!shadow_has(world->shadow, level->path))
		return 0;
	r = io_open(sim_loop(world->sim), &io_sim, level->path, IO_RDWR, &delta.file, &err);
	if (r)
		return r;
	r = disk_parse(&world->disk, level, &delta);
	if (!r)
		r = shadow_replay(world->shadow, &delta, &err);
	io_close(delta.file);
	if (r && !world->may_fail && !sim_is_cut(world->sim))
		world_fail(world, "replay: %s", err.text);
	return r;
}

int world_shadow_replay(struct world *world)
{
	uint64_t now = oracle_flush_submitted(&world->oracle);
	bool served = shadow_top(world->shadow) != NULL;
	int r = 0;

	if (!world->replay)
		return 0;
	for (unsigned i = 0; i < world->disk.nlevels && !r; i++)
		r = replay_level(world, &world->disk.levels[i]);
	if (r)
		return r;
	/* A process that died before it had opened the device has answered nothing. */
	if (served && !world->unsettled)
		oracle_flush_done(&world->oracle, now, 0);
	shadow_forget(world->shadow);
	world->replay = false;
	world->replays++;
	return 0;
}
