/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* extension.h - before a delta is opened for writing: what becomes of its format extension. */
#ifndef IMAGE_EXTENSION_H
#define IMAGE_EXTENSION_H

struct delta;
struct ploop_error;

/*
 * Reads the extension of a delta that shall be written to, if it has one, and settles its geometry: either the extension is
 * dropped by the header that will mark the image in use (a warning says so), or the geometry is read-only with the reason.
 * Writes nothing. Fails only when the file cannot be read. Blocks.
 */
int image_settle_extension(struct delta *delta, struct ploop_error *err);

#endif
