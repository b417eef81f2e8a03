/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check-private.h - what the files of the check share. check.c says in which order they work. */
#ifndef JOB_CHECK_PRIVATE_H
#define JOB_CHECK_PRIVATE_H

#include "base/bitmap.h"
#include "format/ploop1.h"
#include "io/io.h"
#include "job/check.h"

#define CHECK_CHUNK (1024u * 1024) /* of the index, or of a cluster that is copied, in memory at once */
#define CHECK_NOWHERE UINT64_MAX

enum check_weight {
	CHECK_ERROR, /* damage: the status is 11 while any is left */
	CHECK_HINT,  /* wrong, but nobody relies on it */
	CHECK_NOTE,  /* worth knowing; never in the status */
};

/* How a kind of finding is named, weighed and repaired. */
struct check_kind {
	const char *name;
	enum check_weight weight;
	int repair; /* the lowest level that repairs it; -1: none does */
};
extern const struct check_kind check_kinds[PLOOP_CHECK_KINDS];

struct check {
	struct io_file *file;
	const struct ploop_check_options *options;
	struct undo *undo;
	struct ploop_check_image *image;
	struct ploop_error *err;

	struct ploop1_header found, fixed; /* as in the file, and as it should be */
	struct geometry g;                 /* by `fixed` */
	const char *wrong_data_offset;     /* what is wrong with it, or NULL */
	const char *frozen;                /* why nothing may be repaired, or NULL */
	bool drop_extension;               /* the header shall not name it any more */
	bool spent_extension;              /* its bitmaps say that everything changed */
	bool repaired; /* something other than the header's state: space is not given back in this run */

	uint64_t size;           /* of the file */
	uint64_t places;         /* file clusters in it, those of the header included */
	struct bitmap used;      /* those that an entry or the extension points to */
	struct bitmap extension; /* those of the extension alone */
	uint8_t *chunk, *before; /* of the index, and as it was before it was changed */
	uint64_t duplicates;
	bool unsynced_copies; /* copies of clusters that must be durable before an entry may point to them */
};

/*
 * Reports a finding and says whether it is to be repaired now. The text is for a person; where it is about no cluster, the
 * numbers are CHECK_NOWHERE.
 */
struct check_where {
	uint64_t cluster, file_cluster, bytes;
};
bool check_found(struct check *check, enum ploop_check_kind kind, struct check_where where, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
#define CHECK_FILE ((struct check_where){ CHECK_NOWHERE, CHECK_NOWHERE, 0 })

void check_report(struct check *check, enum ploop_check_verdict verdict, const struct ploop_check_finding *finding);

/* The repair level that is in force: none once the image turned out to be frozen. */
int check_level(const struct check *check);

/* Tells the undo file, before it happens, how long the image may become. */
int check_plan_length(struct check *check, uint64_t size);
/* The file has become longer. -ENOMEM. */
int check_grown(struct check *check, uint64_t size);

/* Computes the geometry; 1 when nothing more can be checked. */
int check_header(struct check *check);
/* Reads the extension: from here on it is known whether anything may be written. */
int check_extension(struct check *check);
/* What is wrong with the table of partial clusters that the extension names, or NULL. What it names is in use. */
int check_partial(struct check *check, const void *extension, const char **ret_wrong);
/* The file cluster that starts at `offset`, or CHECK_NOWHERE. */
uint64_t check_place_of(const struct check *check, uint64_t offset);
/* The fields of the header, and the length of the file, which is set right at once. */
void check_fields(struct check *check);
int check_length(struct check *check);
int check_index(struct check *check);
/* Last: flags, state, extension and data offset written back, if they should change. */
int check_close_header(struct check *check);

/* Rewrites the extension, if there is one, so that its bitmaps are true of any disk; drops it when nothing of it is left. */
int check_spend_extension(struct check *check);

int check_space(struct check *check);

#endif
