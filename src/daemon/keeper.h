/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * keeper.h - the process that outlives the engine.
 *
 * A ploopd is two processes: the engine, which serves the device, and its keeper, which does nothing but hold copies of the
 * descriptors that must not be lost (kept.h) and start the next engine when one has ended without a word.
 *
 *	keeper                                   engine
 *	   |---------- fork ----------------------> opens the disk, starts the front end
 *	   | <-------- KEEP, descriptors ---------- the device is wanted; again whenever what is kept has changed
 *	   |                                        killed
 *	   | end of file: see below
 *	   |---------- fork ----------------------> the next one takes over
 *	   | <-------- UPGRADE, program ----------- hands over; at the end of file the keeper becomes that program
 *	   | <-------- FORGET --------------------- the device goes: from now on an end is the end
 *
 * Why a process: the kernel keeps a FUSE connection and the locks of a file as long as somebody has the descriptor, and nothing
 * else; there is not always a systemd to store descriptors. Why fork and not exec: the next engine needs no file of a system that
 * may be on fire, nor a namespace that may have ended. Why small: what does nothing has nothing to die of. If the keeper is
 * killed all the same, the engine makes another one; only who kills both at once kills the device.
 *
 * Rules:
 *  1. The engine's end of the socket is held by its table of descriptors, by its ring (loop_hold()), and by nobody else. So end of
 *     file means that every thread of it is gone that could begin something, and everything that it had begun is over. The threads
 *     of apart.h, which wait for the device itself, may still be there: they have tables of their own.
 *  2. No engine is started before that.
 *  3. What is kept includes the locks of the image files: between two engines nobody else gets them.
 *  4. An engine that dies too often (CRASHES times within CRASH_SECONDS) is not started again: the descriptors are closed, the
 *     kernel answers with errors, and the run directory says why.
 */
#ifndef DAEMON_KEEPER_H
#define DAEMON_KEEPER_H

#include <stdbool.h>

#define KEEPER_FDS 192 /* the levels of a stack, a front end's, and two */
#define KEEPER_NAME 16

/* What is kept. */
struct keeper_set {
	int fds[KEEPER_FDS];
	unsigned n;    /* 0: nothing */
	bool any_time; /* else only after UPGRADE */
	char name[KEEPER_NAME]; /* of the device */
};

/* What a process is that keeper_run() returns in. */
struct keeper_engine {
	int socket;             /* to the keeper */
	struct keeper_set kept; /* what the engine before left; n is 0 for the first */
};

/*
 * Makes the calling process the keeper of an engine that is to be started; returns in each engine. `first`: a descriptor for the
 * first engine alone, or -1. `refuge` as self_isolate() gave it.
 */
void keeper_run(int first, int refuge, struct keeper_engine *ret);

/* ploopd --keeper start|watch REFUGE, with a socket as descriptor 3: goes on as the keeper that sent what is kept on it; `watch`: of
 * the engine at the other end. Returns as keeper_run(). */
void keeper_resume(const char *how, const char *refuge, struct keeper_engine *ret);

/* For the engine. */
int keeper_keep(int socket, const struct keeper_set *set);
int keeper_forget(int socket);
int keeper_upgrade(int socket, const char *program);

/* Starts another keeper, as the old one is gone. Returns its pid and a socket to it, or a negative errno. */
int keeper_spawn(int refuge, int *ret_socket);

#endif
