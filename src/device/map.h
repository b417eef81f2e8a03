/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map.h - the merged map: where each virtual cluster is, whatever the depth of the stack. Five bytes a cluster, in memory that
 * is touched only where something is mapped.
 */
#ifndef DEVICE_MAP_H
#define DEVICE_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"

struct map {
	uint32_t *cluster;   /* file cluster; 0 = mapped nowhere */
	uint8_t *level;      /* meaningful where `cluster` is not 0 */
	struct bitmap below; /* the level that maps this cluster covers another one that does, too */
	uint32_t count;
	uint64_t mapped;
};

int map_init(struct map *map, uint32_t count);
void map_fini(struct map *map);
/* Makes room for `count` clusters; the new ones are mapped nowhere. Never shrinks. 0 or -ENOMEM, and then it is as it was. */
int map_grow(struct map *map, uint32_t count);

/* `level` maps v from now on, over whatever did before. Levels are added from the base up. */
static inline void map_cover(struct map *map, uint32_t v, unsigned level, uint32_t cluster)
{
	if (map->cluster[v])
		bitmap_set(&map->below, v);
	map->mapped += !map->cluster[v];
	map->cluster[v] = cluster;
	map->level[v] = (uint8_t)level;
}

static inline void map_clear(struct map *map, uint32_t v)
{
	map->mapped -= !!map->cluster[v];
	map->cluster[v] = 0;
	map->level[v] = 0;
}

/* Whether the top, which is `level`, maps v. */
static inline bool map_in(const struct map *map, uint32_t v, unsigned level)
{
	return map->cluster[v] && map->level[v] == level;
}

/* How many clusters from v on, at most `max`, lie one after the other in one file, or nowhere. At least 1. */
uint32_t map_run(const struct map *map, uint32_t v, uint32_t max);

#endif
