/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * killat N PROGRAM [ARGUMENT..]: runs a program and kills it just before its Nth system call that changes something: a file, a
 * folder, what is durable, or what another process is told. 0 kills nothing, and counts.
 * killat N -p PID: the same to a process that runs. Says "ready" first. SIGTERM lets it go, and says "let go M".
 *
 * killat N -s PROGRAM [ARGUMENT..]: stops it there (SIGSTOP) instead of killing it, says "stopped PID openat", and lets it go. The call is
 * still made.
 *
 * Says on standard error "killed N openat" and exits with 99; or "finished M", M of them in all, and exits with the program's
 * own status (0 for a process of others). All threads are followed, and those that are made later; child processes are not.
 *
 * What is put on an io_uring is no system call of its own: the call that submits counts, and a batch is one step. Run the
 * program under `nouring` too, where each operation on a file is a call of a thread.
 */
#include <dirent.h>
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
#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE)
#define MAX_THREADS 1024

enum counts {
	ALWAYS,
	IF_FILE,    /* the first argument is neither a standard stream nor an eventfd */
	IF_CREATES, /* openat with O_CREAT */
	IF_CHANGES, /* ioctl: freezing, thawing, cloning */
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
	{ SYS_pwritev2, "pwritev2", IF_FILE },
	{ SYS_copy_file_range, "copy_file_range", ALWAYS },
	{ SYS_sendfile, "sendfile", ALWAYS },
	{ SYS_splice, "splice", ALWAYS },
	{ SYS_ftruncate, "ftruncate", ALWAYS },
	{ SYS_truncate, "truncate", ALWAYS },
	{ SYS_fallocate, "fallocate", ALWAYS },
	{ SYS_fsync, "fsync", ALWAYS },
	{ SYS_fdatasync, "fdatasync", ALWAYS },
	{ SYS_syncfs, "syncfs", ALWAYS },
	{ SYS_mkdirat, "mkdirat", ALWAYS },
	{ SYS_symlinkat, "symlinkat", ALWAYS },
	{ SYS_linkat, "linkat", ALWAYS },
	{ SYS_unlinkat, "unlinkat", ALWAYS },
	{ SYS_renameat2, "renameat2", ALWAYS },
	{ SYS_fchmod, "fchmod", ALWAYS },
	{ SYS_fchmodat, "fchmodat", ALWAYS },
	{ SYS_fchown, "fchown", ALWAYS },
	{ SYS_fchownat, "fchownat", ALWAYS },
	{ SYS_fsetxattr, "fsetxattr", ALWAYS },
	{ SYS_mount, "mount", ALWAYS },
	{ SYS_umount2, "umount2", ALWAYS },
	{ SYS_sendto, "sendto", ALWAYS },
	{ SYS_sendmsg, "sendmsg", ALWAYS },
	{ SYS_ioctl, "ioctl", IF_CHANGES },
	{ SYS_io_uring_enter, "io_uring_enter", IF_SUBMITS },
#ifdef SYS_renameat
	{ SYS_renameat, "renameat", ALWAYS },
#endif
#ifdef SYS_open
	{ SYS_rename, "rename", ALWAYS },
	{ SYS_unlink, "unlink", ALWAYS },
	{ SYS_mkdir, "mkdir", ALWAYS },
	{ SYS_rmdir, "rmdir", ALWAYS },
	{ SYS_symlink, "symlink", ALWAYS },
#endif
};

/* An eventfd only wakes another thread. */
static bool is_eventfd(pid_t pid, int fd)
{
	char path[64], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	return strstr(target, "[eventfd]") != NULL;
}

static bool ioctl_changes(unsigned request)
{
	return request == FIFREEZE || request == FITHAW || request == FICLONE || request == FICLONERANGE ||
	       request == FIDEDUPERANGE;
}

static bool does_count(pid_t pid, enum counts counts, const uint64_t *args)
{
	switch (counts) {
	case IF_FILE:
		return (int)args[0] > STDERR_FILENO && !is_eventfd(pid, (int)args[0]);
	case IF_CREATES:
		return args[2] & O_CREAT;
	case IF_CHANGES:
		return ioctl_changes((unsigned)args[1]);
	case IF_SUBMITS:
		return args[1];
	default:
		return true;
	}
}

/* The name of a call that counts, else NULL. */
static const char *counted(pid_t pid, const struct __ptrace_syscall_info *info)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if ((long)info->entry.nr == calls[i].number)
			return does_count(pid, calls[i].counts, info->entry.args) ? calls[i].name : NULL;
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

/* The first thread is reported last: not before all others were waited for. */
static int kill_at(pid_t pid, long n, const char *name)
{
	int status;
	pid_t who;

	kill(pid, SIGKILL);
	while ((who = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR)
		if (who == pid && !WIFSTOPPED(status))
			break;
	fprintf(stderr, "killed %ld %s\n", n, name);
	return KILLED;
}

/* It goes on when somebody sends SIGCONT. Only for programs of one thread. */
static int stop_at(pid_t pid, const char *name)
{
	kill(pid, SIGSTOP);
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	fprintf(stderr, "stopped %d %s\n", (int)pid, name);
	return KILLED;
}

/* What a stop of a traced thread means: the signal to deliver to it. New threads begin with a SIGSTOP of the tracer's. */
static int signal_of(int status)
{
	int signal = WSTOPSIG(status);

	return status >> 16 || signal == SYSCALL_STOP || signal == SIGTRAP || signal == SIGSTOP ? 0 : signal;
}

static void go_on(pid_t who, int signal)
{
	ptrace(PTRACE_SYSCALL, who, NULL, (void *)(intptr_t)signal);
}

static int start(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, __WALL) != pid ||
	    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(OPTIONS | PTRACE_O_EXITKILL)) < 0) {
		perror("ptrace");
		return -1;
	}
	go_on(pid, 0);
	return 0;
}

/* Takes the threads that are not taken yet; returns how many, or -1. */
static int seize_some(pid_t pid, pid_t *threads, int *n)
{
	char path[64];
	struct dirent *entry;
	int found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) && *n < MAX_THREADS) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		/* EPERM: it is ours, as one that was taken made it or this is another look. */
		if (tid && ptrace(PTRACE_SEIZE, tid, NULL, (void *)OPTIONS) == 0) {
			threads[(*n)++] = tid;
			found++;
		}
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Stops all threads once, so that all their calls from "ready" on are seen. Those that one of them makes come by themselves. */
static int attach(pid_t pid)
{
	static pid_t threads[MAX_THREADS];
	int n = 0, status;

	while (seize_some(pid, threads, &n) > 0)
		;
	if (!n) {
		perror("ptrace");
		return -1;
	}
	for (int i = 0; i < n; i++)
		ptrace(PTRACE_INTERRUPT, threads[i], NULL, NULL);
	for (int i = 0; i < n; i++)
		if (waitpid(threads[i], &status, __WALL) == threads[i] && WIFSTOPPED(status))
			go_on(threads[i], signal_of(status));
	fprintf(stderr, "ready\n");
	return 0;
}

/* The next stop or end of a thread; 0 when we are told to end. Both signals are blocked. */
static pid_t next_event(const sigset_t *signals, int *status)
{
	pid_t who;

	while ((who = waitpid(-1, status, __WALL | WNOHANG)) == 0)
		if (sigwaitinfo(signals, NULL) == SIGTERM)
			return 0;
	return who;
}

static int trace(pid_t pid, long n, bool stop)
{
	struct __ptrace_syscall_info info;
	const char *name;
	long count = 0;
	int status = 0;
	sigset_t signals;
	pid_t who;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	while ((who = next_event(&signals, &status)) > 0) {
		if (!WIFSTOPPED(status)) {
			if (who != pid)
				continue; /* a thread that ended */
			fprintf(stderr, "finished %ld\n", count);
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
		if (WSTOPSIG(status) == SYSCALL_STOP &&
		    ptrace(PTRACE_GET_SYSCALL_INFO, who, (void *)sizeof(info), &info) > 0 &&
		    info.op == PTRACE_SYSCALL_INFO_ENTRY) {
			name = counted(pid, &info);
			if (name && ++count == n)
				return stop ? stop_at(pid, name) : kill_at(pid, n, name);
		}
		go_on(who, signal_of(status));
	}
	fprintf(stderr, "let go %ld\n", count);
	return 1;
}

int main(int argc, char **argv)
{
	bool stop = argc > 3 && !strcmp(argv[2], "-s");
	pid_t pid;

	if (argc < 3) {
		fprintf(stderr, "usage: killat N [-s] PROGRAM [ARGUMENT..]\n       killat N -p PID\n");
		return 1;
	}
	if (!strcmp(argv[2], "-p")) {
		pid = argc > 3 ? (pid_t)strtol(argv[3], NULL, 10) : 0;
		return attach(pid) < 0 ? 1 : trace(pid, strtol(argv[1], NULL, 10), false);
	}
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	if (pid == 0)
		run(argv + 2 + stop);
	return start(pid) < 0 ? 1 : trace(pid, strtol(argv[1], NULL, 10), stop);
}
