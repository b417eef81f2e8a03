/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* map.c - memory of the merged map, and runs in it. */
#include "device/map.h"

#include <errno.h>
#include <sys/mman.h>

static void *map_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

int map_init(struct map *map, uint32_t count)
{
	*map = (struct map){ .count = count };
	map->cluster = map_memory((size_t)count * sizeof(uint32_t) + 1);
	map->level = map_memory((size_t)count + 1);
	if (map->cluster && map->level && !bitmap_init(&map->below, count))
		return 0;
	map_fini(map);
	return -ENOMEM;
}

void map_fini(struct map *map)
{
	if (map->cluster)
		munmap(map->cluster, (size_t)map->count * sizeof(uint32_t) + 1);
	if (map->level)
		munmap(map->level, (size_t)map->count + 1);
	bitmap_fini(&map->below);
	*map = (struct map){ 0 };
}

/* Moves the array of the map at *array. */
static bool map_stretch(void **array, size_t old, size_t bytes)
{
	void *memory = mremap(*array, old, bytes, MREMAP_MAYMOVE);

	if (memory == MAP_FAILED)
		return false;
	*array = memory;
	return true;
}

int map_grow(struct map *map, uint32_t count)
{
	size_t old = map->count, new = count;
	void *cluster = map->cluster, *level = map->level;

	if (count <= map->count)
		return 0;
	if (bitmap_grow(&map->below, count) ||
	    !map_stretch(&cluster, old * sizeof(uint32_t) + 1, new * sizeof(uint32_t) + 1))
		return -ENOMEM;
	map->cluster = cluster;
	if (!map_stretch(&level, old + 1, new + 1)) {
		map->cluster = mremap(cluster, new * sizeof(uint32_t) + 1, old * sizeof(uint32_t) + 1, 0);
		return -ENOMEM;
	}
	map->level = level;
	map->count = count;
	return 0;
}

uint32_t map_run(const struct map *map, uint32_t v, uint32_t max)
{
	uint32_t cluster = map->cluster[v];
	uint8_t level = map->level[v];
	uint32_t n = 1;

	if (!cluster) {
		while (n < max && !map->cluster[v + n])
			n++;
		return n;
	}
	while (n < max && map->cluster[v + n] == cluster + n && map->level[v + n] == level)
		n++;
	return n;
}
