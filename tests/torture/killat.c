/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * killat N PROGRAM [ARGUMENT..]: runs a program and kills it just before its Nth system call that changes something: a file, a
 * folder, what is durable, or what another process is told. 0 kills nothing, and counts.
 * killat N -p PID: the same to a process that runs, and its first thread alone. Says "ready" first. Ending killat lets it go.
 *
 * Says on standard error "killed N openat" and exits with 99; or "finished M", M of them in all, and exits with the program's
 * own status. Threads are followed, child processes are not.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILLED 99
#define SYSCALL_STOP (SIGTRAP | 0x80)

enum counts {
	ALWAYS,
	IF_FILE,    /* the first argument is no standard stream */
	IF_CREATES, /* openat with O_CREAT */
	IF_FREEZES, /* ioctl FIFREEZE and FITHAW */
	IF_SUBMITS, /* io_uring_enter that submits */
};

static const struct {
	long number;
	const char *name;
	enum counts counts;
} calls[] = {
	{ SYS_openat, "openat", IF_CREATES },
	{ SYS_write, "write", IF_FILE },
	{ SYS_writev, "writev", IF_FILE },
	{ SYS_pwrite64, "pwrite64", IF_FILE },
	{ SYS_pwritev, "pwritev", IF_FILE },
	{ SYS_ftruncate, "ftruncate", ALWAYS },
	{ SYS_fallocate, "fallocate", ALWAYS },
	{ SYS_fsync, "fsync", ALWAYS },
	{ SYS_fdatasync, "fdatasync", ALWAYS },
	{ SYS_unlinkat, "unlinkat", ALWAYS },
	{ SYS_renameat2, "renameat2", ALWAYS },
	{ SYS_linkat, "linkat", ALWAYS },
	{ SYS_fchmod, "fchmod", ALWAYS },
	{ SYS_fchown, "fchown", ALWAYS },
	{ SYS_sendto, "sendto", ALWAYS },
	{ SYS_ioctl, "ioctl", IF_FREEZES },
	{ SYS_io_uring_enter, "io_uring_enter", IF_SUBMITS },
#ifdef SYS_renameat
	{ SYS_renameat, "renameat", ALWAYS },
#endif
#ifdef SYS_open
	{ SYS_rename, "rename", ALWAYS },
	{ SYS_unlink, "unlink", ALWAYS },
#endif
};

/* The name of a call that counts, else NULL. */
static const char *counted(const struct __ptrace_syscall_info *info)
{
	const uint64_t *args = info->entry.args;

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		if ((long)info->entry.nr != calls[i].number)
			continue;
		if ((calls[i].counts == IF_FILE && (int)args[0] <= STDERR_FILENO) ||
		    (calls[i].counts == IF_CREATES && !(args[2] & O_CREAT)) ||
		    (calls[i].counts == IF_FREEZES && (unsigned)args[1] != FIFREEZE && (unsigned)args[1] != FITHAW) ||
		    (calls[i].counts == IF_SUBMITS && !args[1]))
			return NULL;
		return calls[i].name;
	}
	return NULL;
}

static void run(char **argv)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	execvp(argv[0], argv);
	perror(argv[0]);
	_exit(127);
}

static int finish(pid_t pid, int status, long count)
{
	while (!WIFEXITED(status) && !WIFSIGNALED(status))
		if (waitpid(pid, &status, __WALL) < 0)
			return 1;
	fprintf(stderr, "finished %ld\n", count);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int kill_at(pid_t pid, long n, const char *name)
{
	int status;

	kill(pid, SIGKILL);
	while (waitpid(pid, &status, __WALL) == pid && !WIFSIGNALED(status) && !WIFEXITED(status))
		;
	fprintf(stderr, "killed %ld %s\n", n, name);
	return KILLED;
}

/* What a stop of the traced process means: the signal to deliver to it. */
static int signal_of(int status)
{
	int signal = WSTOPSIG(status);

	return signal == SYSCALL_STOP || signal == SIGTRAP || signal == SIGSTOP ? 0 : signal;
}

static int start(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, __WALL) != pid ||
	    ptrace(PTRACE_SETOPTIONS, pid, NULL,
		   (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL)) < 0) {
		perror("ptrace");
		return -1;
	}
	return 0;
}

static int attach(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)PTRACE_O_TRACESYSGOOD) < 0 ||
	    ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0 || waitpid(pid, &status, __WALL) != pid) {
		perror("ptrace");
		return -1;
	}
	fprintf(stderr, "ready\n");
	return 0;
}

static int trace(pid_t pid, long n)
{
	struct __ptrace_syscall_info info;
	long count = 0;
	int status = 0;
	pid_t who;

	for (who = pid;;) {
		ptrace(PTRACE_SYSCALL, who, NULL, (void *)(intptr_t)(WIFSTOPPED(status) ? signal_of(status) : 0));
		who = waitpid(-1, &status, __WALL);
		if (who < 0)
			return 1;
		if (!WIFSTOPPED(status)) {
			if (who == pid)
				return finish(pid, status, count);
			continue; /* a thread that ended */
		}
		if (WSTOPSIG(status) == SYSCALL_STOP &&
		    ptrace(PTRACE_GET_SYSCALL_INFO, who, (void *)sizeof(info), &info) > 0 &&
		    info.op == PTRACE_SYSCALL_INFO_ENTRY) {
			const char *name = counted(&info);

			if (name && ++count == n)
				return kill_at(pid, n, name);
		}
	}
}

int main(int argc, char **argv)
{
	pid_t pid;

	if (argc < 3) {
		fprintf(stderr, "usage: killat N PROGRAM [ARGUMENT..]\n       killat N -p PID\n");
		return 1;
	}
	if (!strcmp(argv[2], "-p")) {
		pid = argc > 3 ? (pid_t)strtol(argv[3], NULL, 10) : 0;
		return attach(pid) < 0 ? 1 : trace(pid, strtol(argv[1], NULL, 10));
	}
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	if (pid == 0)
		run(argv + 2);
	return start(pid) < 0 ? 1 : trace(pid, strtol(argv[1], NULL, 10));
}
