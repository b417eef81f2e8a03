/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * apart.h - what waits for answers of this very process.
 *
 * The kernel ends a FUSE connection when the last descriptor of its channel is closed, and so all waits for it. A thread that waits
 * keeps the table of descriptors of a killed process, with the channel in it: it would wait for ever, and the process with it. So
 * such work is done by a thread with a table of its own, without the channel.
 */
#ifndef EXPORT_APART_H
#define EXPORT_APART_H

/*
 * Waits until `work` has run. Of all descriptors above the standard streams it sees only `keep` (negative: none); what it opens it
 * closes. Returns 0, or a negative errno when it has not run.
 */
int apart_run(void (*work)(void *data), void *data, int keep);

#endif
