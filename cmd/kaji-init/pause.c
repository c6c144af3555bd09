/* SPDX-License-Identifier: Apache-2.0 */

/* The process that holds a pod's namespaces, and reaps in a shared PID namespace. */

#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;
	int err;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	err = errno;
	close(fd);
	errno = err;
	return n < 0 ? -1 : 0;
}

/* Tells the parent why there will be no pause process. */
static void fail(int report, const char *format, ...)
{
	char text[256];
	va_list args;
	int err = errno, n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (n < (int)sizeof(text) - 1)
		n += snprintf(text + n, sizeof(text) - (size_t)n, ": %s", strerror(err));
	if (write(report, text, strnlen(text, sizeof(text))) < 0)
		_exit(2);
	_exit(1);
}

static int loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int result;

	if (fd < 0)
		return -1;
	result = ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
	return result;
}

static int set_sysctl(const char *setting)
{
	char path[256];
	const char *value = strchr(setting, '=');
	int n;

	if (!value) {
		errno = EINVAL;
		return -1;
	}
	n = snprintf(path, sizeof(path), "/proc/sys/%.*s", (int)(value - setting), setting);
	if (n >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return write_file(path, value + 1);
}

/* Containers of the pod can look at this process: it must not show them the
 * host's files. */
static int leave_root(const char *root)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("pause", root, "tmpfs", MS_RDONLY | MS_NOEXEC | MS_NOSUID | MS_NODEV, "size=0,mode=555") < 0 ||
	    chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return -1;
	return umount2(".", MNT_DETACH) < 0 ? -1 : chdir("/");
}

static void hold(const struct pod *pod, int report)
{
	sigset_t set;

	prctl(PR_SET_NAME, "pause");
	setsid();
	if (pod->namespaces & CLONE_NEWUSER && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
		fail(report, "becoming root of the user namespace");
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) /* after the change of user, which clears it */
		fail(report, "asking for the parent's death");
	if (pod->namespaces & CLONE_NEWUTS) {
		if (sethostname(pod->hostname, strlen(pod->hostname)) < 0)
			fail(report, "setting the host name %s", pod->hostname);
		if (pod->domainname[0] && setdomainname(pod->domainname, strlen(pod->domainname)) < 0)
			fail(report, "setting the domain name %s", pod->domainname);
	}
	if (pod->namespaces & CLONE_NEWNET && loopback_up() < 0)
		fail(report, "bringing lo up");
	for (const char *const *s = pod->sysctls; *s; s++)
		if (set_sysctl(*s) < 0)
			fail(report, "setting sysctl %s", *s);
	if (pod->namespaces & CLONE_NEWNS && leave_root(pod->root) < 0)
		fail(report, "leaving the host's files");
	if (write(report, "", 1) != 1)
		_exit(1);
	syscall(SYS_close_range, 0, ~0U, 0);

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_SETMASK, &set, NULL);
	for (;;) {
		int got;

		if (sigwait(&set, &got) != 0)
			continue;
		if (got != SIGCHLD)
			_exit(0);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

static int map_ids(pid_t pid, const struct pod *pod)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	if (write_file(path, pod->uid_map) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	return write_file(path, pod->gid_map);
}

pid_t pause_start(const struct pod *pod, char *message, size_t size)
{
	int go[2], report[2];
	ssize_t n = 0;
	pid_t pid;
	char c;

	if (pipe2(go, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0) {
		snprintf(message, size, "making a pipe: %s", strerror(errno));
		return -1;
	}
	pid = (pid_t)syscall(SYS_clone, pod->namespaces | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0) {
		close(go[1]);
		close(report[0]);
		if (read(go[0], &c, 1) == 1) /* the ids are mapped */
			hold(pod, report[1]);
		_exit(1);
	}
	close(go[0]);
	close(report[1]);
	if (pid < 0)
		snprintf(message, size, "creating the pod's namespaces: %s", strerror(errno));
	else if (pod->namespaces & CLONE_NEWUSER && map_ids(pid, pod) < 0)
		snprintf(message, size, "mapping users: %s", strerror(errno));
	else if (write(go[1], "", 1) == 1)
		n = read(report[0], message, size - 1);
	close(go[1]);
	close(report[0]);
	if (pid > 0 && n == 1 && message[0] == '\0')
		return pid;
	if (n > 0)
		message[n] = '\0';
	else if (n == 0 && message[0] == '\0')
		snprintf(message, size, "the pause process died");
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return -1;
}
