/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2.h - qcow2 images as qemu has them, version 3, as far as writing one needs: clusters without compression or encryption.
 *
 * The file: the header with the name of the file below, the first table, data in clusters from geometry.first on, then the
 * second tables and the reference counts. The clusters are those of the source, so that they can share its blocks.
 */
#ifndef JOB_QCOW2_H
#define JOB_QCOW2_H

#include <stdint.h>

struct geometry;
struct io_file;
struct ploop_error;

/* Where data may lie in such a file: size, cluster, clusters, base and first. Clusters have at most 2 MiB there. */
int qcow2_plan(uint64_t size, uint32_t cluster, struct geometry *ret, struct ploop_error *err);

/*
 * Makes an image of a file that holds data only, durably: places[v] is the cluster of the file that holds virtual cluster v,
 * 0 when none does; `next` is the first one that is free. `backing` NULL: nothing lies below.
 */
int qcow2_finish(struct io_file *file, const struct geometry *to, const uint32_t *places, uint32_t next,
		 const char *backing, const char *backing_format);

/* Reads such an image's tables again, into places[geometry.clusters]. -EUCLEAN for what qcow2_finish() does not write. */
int qcow2_load(struct io_file *file, const struct geometry *g, uint32_t *places);

#endif
