/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.h - stacks of images for the model: drawn at random, built from bytes, and checked from bytes. It shares no code with
 * what it tests, except that levels are opened through the format's parse().
 */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/prng.h"
#include "format/format.h"
#include "io/sim.h"
#include "oracle.h"

#define DISK_LEVELS 9
#define DISK_BUILT 5 /* levels at most to begin with; snapshots add others */

struct disk_level {
	char path[16];
	bool raw;
	uint32_t version;
	uint64_t size;         /* bytes of the virtual disk */
	uint32_t clusters;     /* entries of the index */
	uint64_t start;        /* byte where the data area begins */
	uint32_t first_sector; /* as it stands in the header */
	/* Of a level below the top: nobody may write to it, and its changes and hash since then. Not so from a crash in the
	 * middle of a snapshot to the next opening for writing. */
	bool settled;
	uint64_t changes, hash;
	bool littered;  /* free clusters may hold data: a crash, an error or another program left it */
	bool extension; /* it was built with a dirty bitmap */
	bool spent;     /* it was opened for writing since */
};

struct disk {
	unsigned nlevels;
	unsigned serial;                       /* of the next file */
	uint32_t cluster;                      /* bytes */
	uint64_t size;                         /* of the top */
	unsigned partial_limit;                /* clusters that a device may write in part at a time; 0: as many as it likes */
	bool bitmaps;                          /* it has had dirty bitmaps */
	bool odd;                              /* a geometry that may only be read */
	struct disk_level levels[DISK_LEVELS]; /* base first */
	char text[256];                        /* what is wrong, after a function returned false */
};

/* Draws everything but the contents. */
void disk_draw(struct disk *disk, struct prng *prng);
/* Makes the files, and tells the oracle what the disk holds. */
void disk_build(struct disk *disk, struct sim *sim, struct prng *prng, struct oracle *oracle);

/* Opens all levels, and for writing clears the marks that a crash left below the top, as whoever opens a stack does. 0 or a
 * negative errno with a text in disk->text. */
int disk_open(struct disk *disk, struct sim *sim, bool read_only, struct delta levels[DISK_LEVELS]);
void disk_close(struct disk *disk, struct delta levels[DISK_LEVELS]);

/* Reads the header of an open level. */
int disk_parse(struct disk *disk, const struct disk_level *level, struct delta *delta);

/* Makes an empty image for a new top, durable, and opens it. It is not one of disk->nlevels yet. 0 or a negative errno. */
int disk_new_top(struct disk *disk, struct sim *sim, struct prng *prng, struct delta *ret);
/* It is the top now. */
void disk_adopt_top(struct disk *disk);
/* From now on nobody may write to the level. */
void disk_settle(struct disk_level *level, struct sim *sim);

/* disk-extension.c: builds a dirty bitmap at byte `at` and says where it ends; settles what parse() leaves open; and says what is
 * wrong with what a closed image names, whose places are in *ret then. */
struct disk_places {
	uint64_t at[64]; /* bytes of the file; the first is the extension */
	unsigned n;
};
int disk_put_extension(const struct disk *disk, struct io_file *file, uint64_t at, struct prng *prng,
		       uint64_t *ret_end);
int disk_settle_extension(const struct disk *disk, struct delta *delta);
const char *disk_check_extension(const struct disk *disk, const struct disk_level *level, struct io_file *file,
				 const uint8_t *head, struct disk_places *ret);

/* disk-partial.c: what is wrong with the table of partial clusters, if the image has one; `index` is the file up to its data. */
const char *disk_check_table(const struct disk *disk, const struct disk_level *level, struct io_file *file,
			     const uint8_t *index, uint64_t size);

enum disk_expect {
	DISK_ANY,    /* cut while it was opened or closed */
	DISK_IN_USE, /* cut while it was open */
	DISK_CLEAN,  /* closed */
};

/* Checks the files' structure: the top as `expect` says, the others as they were built. */
bool disk_check(struct disk *disk, struct sim *sim, enum disk_expect expect);
/* The levels below the top hold what they were built with. */
bool disk_check_hashes(struct disk *disk, struct sim *sim);

/* One line about the shape. */
void disk_describe(const struct disk *disk, char *text, size_t size);

#endif
