/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bitmap-id.h - the UUID of a dirty bitmap, and of the backup with which it began: as bytes, as people see it, and in messages. */
#ifndef LIB_BITMAP_ID_H
#define LIB_BITMAP_ID_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

#include "device/cbt.h"

struct json_object;

/* Status 38 for what is no UUID. */
int bitmap_id_parse(const char *text, uint8_t ret[CBT_ID], struct ploop_error *err);
void bitmap_id_print(const uint8_t id[CBT_ID], char ret[PLOOP_UUID]);
void bitmap_id_new(uint8_t ret[CBT_ID]);

static inline bool bitmap_id_none(const uint8_t id[CBT_ID])
{
	for (unsigned i = 0; i < CBT_ID; i++)
		if (id[i])
			return false;
	return true;
}

/* Into and out of a message; false and -EPROTO when there is none. */
void bitmap_id_add(struct json_object *message, const char *key, const uint8_t id[CBT_ID]);
int bitmap_id_take(struct json_object *message, const char *key, uint8_t ret[CBT_ID], struct ploop_error *err);

#endif
