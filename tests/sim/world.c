/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* world.c - the life of a world: requests, waiting, opening, closing, cuts. See world.h. */
#include "world.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "io/sim-table.h"

#define PATIENCE 2000000 /* turns without an end */

void world_fail(struct world *world, const char *format, ...)
{
	char shape[200], what[600];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	disk_describe(&world->disk, shape, sizeof(shape));
	snprintf(world->finding, sizeof(world->finding),
		 "seed %" PRIu64 ", op %" PRIu64 ", cut %" PRIu64 ", %s: %s\n  (%s)", world->seed, world->ops,
		 world->cuts, world->doing, what, shape);
	longjmp(*world->caught, 1);
}

void world_init(struct world *world, uint64_t seed, bool verbose)
{
	char shape[200];
	uint8_t *buffers = world->buffers;

	*world = (struct world){ .seed = seed, .verbose = verbose, .doing = "building" };
	world->buffers = buffers ? buffers : sim_alloc(WORLD_SLOTS * WORLD_BUFFER);
	prng_seed(&world->prng, seed);
	prng_seed(&world->aside, ~seed);
	world->sim = sim_new(prng_next(&world->prng));
	disk_draw(&world->disk, &world->prng);
	oracle_init(&world->oracle, world->disk.size / SECTOR);
	disk_build(&world->disk, world->sim, &world->prng, &world->oracle);
	world_shadow_init(world);
	for (unsigned i = 0; i < WORLD_SLOTS; i++) {
		world->slots[i].world = world;
		world->slots[i].buffer = world->buffers + i * WORLD_BUFFER;
	}
	world->depth = 1 + (unsigned)prng_below(&world->prng, WORLD_SLOTS);
	sim_set_clone(world->sim, prng_one_in(&world->prng, 2));
	disk_describe(&world->disk, shape, sizeof(shape));
	if (verbose)
		printf("seed %" PRIu64 ": %s\n", seed, shape);
}

void world_fini(struct world *world)
{
	world_bitmaps_free(world);
	oracle_fini(&world->oracle);
	world_shadow_fini(world);
	sim_free(world->sim);
}

static void narrate(const struct slot *slot, const char *what, int result)
{
	static const char *const kinds[] = { "read", "write", "discard", "zero", "flush" };
	const struct device_request *request = &slot->request;

	if (slot->world->verbose)
		printf("  [%" PRIu64 "] %s %s%s %" PRIu64 "+%" PRIu64 " -> %d\n", slot->world->oracle.clock, what,
		       kinds[request->kind], request->flags ? " fua" : "", request->offset / SECTOR,
		       request->length / SECTOR, result);
}

static void check_result(struct slot *slot, int result)
{
	struct world *world = slot->world;
	bool changes = slot->request.kind != DEVICE_READ && slot->request.kind != DEVICE_FLUSH;

	if (!result || world->may_fail || (world->read_only && changes && result == -EROFS))
		return;
	world_fail(world, "a request of kind %d at sector %" PRIu64 " failed: %s", (int)slot->request.kind,
		   slot->request.offset / SECTOR, strerror(-result));
}

static void read_done(struct slot *slot, uint64_t sector, uint64_t count, int result)
{
	struct world *world = slot->world;
	bool good = true;

	if (slot->settling)
		good = result || oracle_settle(&world->oracle, sector, count, slot->buffer, world->power_cut);
	else if (result)
		oracle_read_failed(&world->oracle, &slot->read);
	else
		good = oracle_read_done(&world->oracle, &slot->read, sector, count, slot->buffer);
	if (!good)
		world_fail(world, "%s", world->oracle.text);
}

static void on_done(struct device_request *request, int result)
{
	struct slot *slot = container_of(request, struct slot, request);
	struct world *world = slot->world;
	uint64_t sector = request->offset / SECTOR, count = request->length / SECTOR;

	if (!slot->busy)
		world_fail(world, "a request was done twice");
	slot->busy = false;
	slot->result = result;
	world->busy--;
	narrate(slot, "done  ", result);
	if (sim_is_cut(world->sim))
		return; /* nobody is left to hear it */
	check_result(slot, result);
	switch (request->kind) {
	case DEVICE_READ:
		read_done(slot, sector, count, result);
		break;
	case DEVICE_FLUSH:
		/* One that only reads cannot make durable what another left behind. */
		oracle_flush_done(&world->oracle, slot->flush, world->read_only ? -EROFS : result);
		break;
	default:
		oracle_write_done(&world->oracle, slot->write, sector, count, result);
		if (request->kind == DEVICE_WRITE)
			memset(slot->buffer, 0xbb, request->length); /* it is ours again */
	}
	/* A front end may have the next one at hand. */
	if (world->chain && world->busy < world->depth && prng_one_in(&world->prng, 3))
		world_submit_random(world);
}

static struct slot *free_slot(struct world *world)
{
	for (unsigned i = 0; i < WORLD_SLOTS; i++)
		if (!world->slots[i].busy)
			return &world->slots[i];
	return NULL;
}

static void tell_oracle(struct slot *slot, uint64_t sector, uint64_t count)
{
	struct world *world = slot->world;
	const struct device_request *request = &slot->request;

	switch (request->kind) {
	case DEVICE_READ:
		if (!slot->settling)
			oracle_read_submitted(&world->oracle, &slot->read);
		memset(slot->buffer, 0xdd, request->length);
		break;
	case DEVICE_FLUSH:
		slot->flush = oracle_flush_submitted(&world->oracle);
		break;
	default:
		slot->write = oracle_write_submitted(&world->oracle, sector, count, request->kind != DEVICE_WRITE,
						     request->flags & DEVICE_FUA);
		if (request->kind == DEVICE_WRITE)
			oracle_fill(slot->write->id, sector, count, slot->buffer);
	}
}

static struct slot *submit(struct world *world, enum device_kind kind, unsigned flags, uint64_t sector, uint64_t count,
			   bool settling)
{
	struct slot *slot = free_slot(world);

	assert(slot && (kind == DEVICE_DISCARD || count * SECTOR <= WORLD_BUFFER));
	memset(&slot->request, 0x55, sizeof(slot->request));
	slot->request.kind = kind;
	slot->request.flags = flags;
	slot->request.offset = sector * SECTOR;
	slot->request.length = count * SECTOR;
	slot->request.buffer = kind == DEVICE_READ || kind == DEVICE_WRITE ? slot->buffer : NULL;
	slot->request.done = on_done;
	slot->settling = settling;
	slot->write = NULL;
	slot->result = 0;
	slot->busy = true;
	world->busy++;
	world->ops++;
	tell_oracle(slot, sector, count);
	narrate(slot, "submit", 0);
	device_submit(world->device, &slot->request);
	return slot;
}

struct slot *world_submit(struct world *world, enum device_kind kind, unsigned flags, uint64_t sector, uint64_t count)
{
	return submit(world, kind, flags, sector, count, false);
}

/* A range: anywhere or near the beginning, of any length or whole clusters or around the border of one. */
static void draw_range(struct world *world, uint64_t *sector, uint64_t *count)
{
	struct prng *prng = &world->prng;
	uint64_t all = world->oracle.sectors, cluster = world->disk.cluster / SECTOR;
	uint64_t span = !world->parts && prng_one_in(prng, 2) ? min_u64(all, 4 * cluster) : all;

	*sector = prng_below(prng, span);
	switch (world->parts && !prng_one_in(prng, 4) ? 3 + prng_below(prng, 2) : prng_below(prng, 6)) {
	case 0: /* clusters */
		*sector = round_down(*sector, cluster);
		*count = cluster * (1 + prng_below(prng, 3));
		break;
	case 1: /* across a border */
		*sector = round_down(*sector, cluster);
		*sector -= min_u64(*sector, prng_below(prng, 16));
		*count = 1 + prng_below(prng, 32);
		break;
	case 2: /* large */
		*count = 1 + prng_below(prng, 3 * cluster);
		break;
	case 3: /* blocks of the file system */
		*sector = round_down(*sector, 8);
		*count = 8 * (1 + prng_below(prng, 8));
		break;
	default:
		*count = 1 + prng_below(prng, 16);
	}
	*count = min_u64(min_u64(*count, WORLD_BUFFER / SECTOR), all - *sector);
}

void world_submit_random(struct world *world)
{
	static const enum device_kind kinds[] = { DEVICE_READ,    DEVICE_READ,         DEVICE_READ,  DEVICE_WRITE,
						  DEVICE_WRITE,   DEVICE_WRITE,        DEVICE_WRITE, DEVICE_DISCARD,
						  DEVICE_DISCARD, DEVICE_WRITE_ZEROES, DEVICE_FLUSH };
	struct prng *prng = &world->prng;
	enum device_kind kind = kinds[prng_below(prng, sizeof(kinds) / sizeof(kinds[0]))];
	bool fua = kind != DEVICE_READ && kind != DEVICE_FLUSH && prng_one_in(prng, 10);
	uint64_t sector = 0, count = 0;

	if (kind != DEVICE_FLUSH)
		draw_range(world, &sector, &count);
	world_submit(world, kind, fua ? DEVICE_FUA : 0, sector, count);
}

void world_turn(struct world *world)
{
	int r = loop_turn(sim_loop(world->sim), UINT64_MAX);

	if (r && world->busy)
		world_fail(world, "the loop has nothing left to do though %u requests wait: %s", world->busy,
			   strerror(-r));
}

void world_wait(struct world *world)
{
	for (uint64_t turns = 0; world->busy; turns++) {
		if (turns > PATIENCE)
			world_fail(world, "%u requests do not end", world->busy);
		world_turn(world);
	}
}

void world_wait_for_work(struct world *world)
{
	for (uint64_t turns = 0; world_works(world) && !sim_is_cut(world->sim); turns++)
		if (turns > PATIENCE || (loop_turn(sim_loop(world->sim), UINT64_MAX) && world_works(world)))
			world_fail(world, "long work does not end");
}

/* A new top that is not wanted, or that the power cut took. */
static void drop_top(struct world *world)
{
	struct delta *delta = &world->levels[world->disk.nlevels];

	io_close(delta->file);
	delta->file = NULL;
	if (!sim_is_cut(world->sim))
		sim_remove(world->sim, world->disk.levels[world->disk.nlevels].path);
}

/* Whether a snapshot may fail so now. */
static bool push_may_fail(const struct world *world, int r)
{
	return r == -ENOSPC || world->may_fail || sim_is_cut(world->sim) || device_aborted(world->device);
}

static void on_pushed(void *data, int result)
{
	struct world *world = data;
	struct disk_level *old;

	if (world->verbose)
		printf("  pushed: %d\n", result);
	if (sim_is_cut(world->sim))
		return; /* world_recover() takes it as it was */
	world->pushing = false;
	if (result && !push_may_fail(world, result))
		world_fail(world, "device_push: %s", strerror(-result));
	if (result) {
		drop_top(world);
		return;
	}
	disk_adopt_top(&world->disk);
	old = &world->disk.levels[world->disk.nlevels - 2];
	if (sim_unsynced(world->sim, old->path) == 0)
		disk_settle(old, world->sim);
	else if (!world->may_fail) /* else the last steps failed, which is no worse than a crash */
		world_fail(world, "the old top is called closed but is not durable");
	world->pushes++;
}

static void push(struct world *world)
{
	struct delta *delta = &world->levels[world->disk.nlevels];
	struct ploop_error err = { 0 };
	int r = disk_new_top(&world->disk, world->sim, &world->prng, delta);

	if (r)
		snprintf(err.text, sizeof(err.text), "%s", world->disk.text);
	else
		r = device_push(world->device, delta, on_pushed, world, &err);
	/* A merge that was stopped half-way is no finding. */
	if (r && r != -EBUSY && !push_may_fail(world, r))
		world_fail(world, "a snapshot cannot begin: %s", err.text);
	if (r)
		drop_top(world);
	world->pushing = !r;
	if (world->verbose)
		printf("  push: %d\n", r);
}

static void on_settled(struct device_settle *settle, int result)
{
	struct world *world = container_of(settle, struct world, settle);

	if (sim_is_cut(world->sim))
		return;
	world->preparing = false;
	if (result && !push_may_fail(world, result))
		world_fail(world, "device_settle: %s", strerror(-result));
	if (!result && !world->closing)
		push(world);
	device_unsettle(world->device);
}

void world_push(struct world *world)
{
	if (world_works(world) || world->read_only || world->disk.nlevels == DISK_LEVELS)
		return;
	/* Who makes the new top settles before; who has died since, and is caught up with, does not. */
	if (prng_one_in(&world->prng, 4)) {
		push(world);
		return;
	}
	world->preparing = true;
	world->settle.done = on_settled;
	device_settle(world->device, &world->settle);
}

/* The merged levels are gone, and so are their files. */
static void drop_merged(struct world *world)
{
	struct disk *disk = &world->disk;
	unsigned first = world->merge_low + 1, gone = world->merge_high - world->merge_low;

	for (unsigned i = first; i <= world->merge_high; i++) {
		io_close(world->levels[i].file);
		sim_remove(world->sim, disk->levels[i].path);
	}
	memmove(&world->levels[first], &world->levels[first + gone],
		(disk->nlevels - first - gone) * sizeof(world->levels[0]));
	memmove(&disk->levels[first], &disk->levels[first + gone],
		(disk->nlevels - first - gone) * sizeof(disk->levels[0]));
	disk->nlevels -= gone;
}

/* The device uses the file that the merge opened for writing. */
static void keep_merge_file(struct world *world)
{
	io_close(world->levels[world->merge_low].file);
	world->levels[world->merge_low].file = world->merge_file;
	world->merge_file = NULL;
	world->merging = false;
}

/* A merge of lower levels that was stopped leaves the one that it wrote to closed, as nobody else will. */
static void check_stopped(struct world *world, const struct disk_level *low)
{
	const uint8_t in_use[4] = { 0x59, 0x6e, 0x6f, 0x74 };
	uint8_t mark[4];

	if (low->raw || world->may_fail || world->merge_high == world->disk.nlevels - 1)
		return;
	if (io_pread(world->merge_file, mark, sizeof(mark), 44) == 0 && !memcmp(mark, in_use, sizeof(mark)))
		world_fail(world, "%s is still marked as in use though its merge was stopped", low->path);
}

static void on_merged(void *data, int result)
{
	struct world *world = data;
	struct disk_level *low = &world->disk.levels[world->merge_low];

	if (world->verbose)
		printf("  merged: %d\n", result);
	if (result && result != -ECANCELED && !push_may_fail(world, result))
		world_fail(world, "device_merge: %s", strerror(-result));
	if (result == -ECANCELED && !sim_is_cut(world->sim))
		check_stopped(world, low);
	keep_merge_file(world);
	if (!result || !sim_is_cut(world->sim)) /* else world_settle_size() finds out */
		world_adopt_size(world, low, device_geometry(world->device, world->merge_low)->size);
	if (result)
		return;
	drop_merged(world);
	if (world->merge_low + 1 < world->disk.nlevels && sim_unsynced(world->sim, low->path) == 0)
		disk_settle(low, world->sim);
	world->merges++;
}

void world_merge_levels(struct world *world, unsigned low, unsigned high)
{
	struct device_merge_config config = { .low = low, .high = high, .done = on_merged, .data = world };
	const struct disk_level before = world->before, after = world->after;
	struct ploop_error err = { 0 };
	int r;

	if (world_works(world) || world->read_only || high >= world->disk.nlevels || low >= high)
		return;
	world->merge_low = low;
	world->merge_high = high;
	r = io_open(sim_loop(world->sim), &io_sim, world->disk.levels[low].path, IO_RDWR, &config.file, NULL);
	world->merge_file = config.file;
	world->disk.levels[low].settled = false;
	world->merging = true;
	if (world->disk.levels[low].size < world->disk.levels[high].size)
		world_may_fit(world, &world->disk.levels[low], world->disk.levels[high].size);
	if (!r)
		r = device_merge(world->device, &config, &err);
	if (world->verbose)
		printf("  merge %u..%u: %d %s\n", low, high, r, err.text);
	if (!r)
		return;
	/* A lower delta that cannot become larger, or an older merge that was stopped, is no finding. */
	if (r != -EFBIG && r != -EBUSY && r != -EROFS && !push_may_fail(world, r))
		world_fail(world, "a merge cannot begin: %s", err.text);
	world->merging = false;
	io_close(world->merge_file);
	world->merge_file = NULL;
	if (sim_is_cut(world->sim) || world->disk.levels[low].raw)
		return;
	world->before = before;
	world->after = after;
}

void world_merge(struct world *world)
{
	struct prng *prng = &world->prng;
	unsigned low, high;

	if (world->merging) {
		device_merge_stop(world->device);
		return;
	}
	if (world_works(world) || world->disk.nlevels < 2)
		return;
	low = (unsigned)prng_below(prng, world->disk.nlevels - 1);
	high = low + 1 + (unsigned)prng_below(prng, world->disk.nlevels - 1 - low);
	world_merge_levels(world, high == world->disk.nlevels - 1 ? high - 1 : low, high);
}

static void on_event(void *data, enum device_event event)
{
	struct world *world = data;

	world->events[event]++;
	if (world->verbose)
		printf("  event %d\n", (int)event);
}

int world_open(struct world *world, bool read_only, enum device_on_full on_full)
{
	struct device_config config = {
		.loop = sim_loop(world->sim),
		.levels = world->levels,
		.nlevels = world->disk.nlevels,
		.read_only = read_only,
		.on_full = on_full,
		.partial_limit = world->disk.partial_limit,
		.shadow = world->shadow,
		.event = on_event,
		.event_data = world,
	};
	struct ploop_error err = { 0 };
	int r;

	snprintf(world->doing, sizeof(world->doing), "opening");
	world->read_only = read_only;
	world->opening = true;
	world->closing = world->closed = world->preparing = false;
	r = world_shadow_replay(world);
	if (!r)
		r = world_complete(world);
	if (r)
		return r;
	r = disk_open(&world->disk, world->sim, read_only, world->levels);
	if (r) {
		if (!world->may_fail && !sim_is_cut(world->sim))
			world_fail(world, "%s", world->disk.text);
		return r;
	}
	r = device_open(&config, &world->device, &err);
	if (r) {
		disk_close(&world->disk, world->levels);
		world->device = NULL;
		if (!world->may_fail && !sim_is_cut(world->sim))
			world_fail(world, "device_open: %s", err.text);
		return r;
	}
	world->opening = sim_is_cut(world->sim);
	if (!world->bitmaps)
		world_bitmaps_first(world);
	world->disk.levels[world->disk.nlevels - 1].spent |= !read_only;
	world->disk.levels[world->disk.nlevels - 1].littered |= world->may_fail;
	snprintf(world->doing, sizeof(world->doing), "running%s", read_only ? " read-only" : "");
	return 0;
}

static void on_closed(void *data, int result)
{
	struct world *world = data;

	world->closed = true;
	world->close_result = result;
}

/* Lets device_close() run to its end, whatever the result. */
static void close_device(struct world *world)
{
	uint64_t turns = 0;

	if (!world->device)
		return;
	world->partials += device_get_stats(world->device)->bio_partial;
	device_close(world->device, on_closed, world);
	while (!world->closed) {
		if (++turns > PATIENCE)
			world_fail(world, "device_close() does not end");
		if (loop_turn(sim_loop(world->sim), UINT64_MAX) && !world->closed)
			world_fail(world, "device_close() waits for nothing");
	}
	world->device = NULL;
	world_copy_drop(world);
	world_bitmaps_drop(world);
	if (world_works(world) && !sim_is_cut(world->sim))
		world_fail(world, "closed while long work was under way");
	disk_close(&world->disk, world->levels);
}

/* The power was cut in the middle of a snapshot: the new top is there, empty. */
static void keep_top(struct world *world)
{
	if (!world->pushing)
		return;
	world->pushing = false;
	io_close(world->levels[world->disk.nlevels].file);
	disk_adopt_top(&world->disk);
}

void world_close(struct world *world)
{
	enum disk_expect expect = DISK_CLEAN;

	snprintf(world->doing, sizeof(world->doing), "closing");
	world->closing = true;
	close_device(world);
	if (world->verbose)
		printf("  closed: %d%s\n", world->close_result, sim_is_cut(world->sim) ? ", cut" : "");
	if (sim_is_cut(world->sim))
		return;
	if (world->close_result && !world->may_fail)
		world_fail(world, "device_close: %s", strerror(-world->close_result));
	oracle_flush_done(&world->oracle, oracle_flush_submitted(&world->oracle),
			  world->read_only ? -EROFS : world->close_result);
	if (world->close_result || world->read_only)
		expect = DISK_ANY;
	world->lost = world->close_result != 0;
	sim_fail(world->sim, 0, 0, 0);
	sim_cut_after(world->sim, 0);
	if (world->close_result)
		world_settle_size(world); /* of a new size that failed with the device nobody knows more than the file */
	if (!disk_check(&world->disk, world->sim, expect))
		world_fail(world, "%s", world->disk.text);
}

bool world_read_all(struct world *world, bool settling)
{
	uint64_t step = min_u64(WORLD_BUFFER / SECTOR / 4, max_u64(world->disk.cluster / SECTOR, 256));

	snprintf(world->doing, sizeof(world->doing), settling ? "reading what is left" : "reading all");
	for (uint64_t s = 0; s < world->oracle.sectors; s += step) {
		while (!free_slot(world))
			world_turn(world);
		if (sim_is_cut(world->sim))
			break;
		submit(world, DEVICE_READ, 0, s, min_u64(step, world->oracle.sectors - s), settling);
	}
	world_wait(world);
	world->unsettled &= !settling || sim_is_cut(world->sim);
	return !sim_is_cut(world->sim);
}

void world_recover(struct world *world)
{
	bool unsure = world->opening || world->closing || world->read_only || world_works(world);

	snprintf(world->doing, sizeof(world->doing), "taking down after a cut");
	if (!world->lost || prng_one_in(&world->prng, 2)) {
		sim_cut(world->sim);
		world->power_cut = world->cut_kind == SIM_CUT_POWER;
	} else {
		world->power_cut = false;
	}
	world->cuts += world->power_cut;
	world->unsettled |= world->power_cut || !sim_is_cut(world->sim);
	world->lost = false;
	if (world->verbose)
		printf("  %s\n", world->power_cut ? "power cut" : "process gone");
	oracle_cut(&world->oracle);
	world->disk.levels[world->disk.nlevels - 1].littered = true;
	if (!world->closed)
		close_device(world);
	keep_top(world);
	world_shadow_recover(world);
	sim_boot(world->sim);
	world_settle_size(world);
	if (!disk_check(&world->disk, world->sim, unsure ? DISK_ANY : DISK_IN_USE))
		world_fail(world, "%s", world->disk.text);
	world->cut_kind = prng_one_in(&world->prng, 5) ? SIM_CUT_PROCESS : SIM_CUT_POWER;
	sim_set_cut(world->sim, world->cut_kind);
}

void world_settle(struct world *world)
{
	while (world->lost || sim_is_cut(world->sim)) {
		world_recover(world);
		if (!world_open(world, world->disk.odd, DEVICE_FULL_STOP) && world_read_all(world, true))
			world_close(world);
	}
}
