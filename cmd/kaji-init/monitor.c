/* SPDX-License-Identifier: Apache-2.0 */

/* The monitor is the parent of one pod's containers. It holds the pod's
 * namespaces (by a child, see pause.c), writes logs, copies output to attached
 * clients, reaps, and records exit codes, so that kaji may come and go.
 *
 * It is started with these descriptors:
 *   3  a listening SOCK_SEQPACKET socket
 *   4  the configuration, "key=value" NUL ..., until end of file (see configure)
 *   5  where it answers: "ok <pid of the pause process>" or "error <reason>"
 *
 * A client sends one command a message, fields separated by NUL, descriptors
 * as SCM_RIGHTS, and gets one message back, "ok" or "error <reason>":
 *   spawn <executable> <argument>...   descriptors become 0, 1, 2, ... of the child
 *   watch <id> <pid> <exit file> <log file> <kinds>
 *                                      kinds names the descriptors: o stdout, e stderr,
 *                                      i stdin, t a terminal's master
 *   attach <id> <kinds>                o and e receive copies; answers with the input, if any
 *   gate <id> <fifo>                   opens the fifo of a created container; answers with it, too
 *   opened <id>                        the container has passed its gate
 *   reopen <id>, closein <id>, forget <id>, stop
 *   subscribe                          from now on this connection also gets
 *                                      "exit <id>" and "pause" (which ended)
 */

#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LISTENER = 3, CONFIG = 4, ANSWER = 5 };
enum { MAX_FIELDS = 16, MAX_FDS = 8, MAX_MESSAGE = 16384, MAX_CLIENTS = 16, MAX_SYSCTLS = 64, MAX_HELPERS = 64 };

static struct container *containers;
static int clients[MAX_CLIENTS];
static bool subscribed[MAX_CLIENTS];
static int client_count;
static pid_t pause_pid;
static struct {
	pid_t pid;
	int client; /* who asked for it */
} helpers[MAX_HELPERS]; /* spawned and not yet reaped */
static int helper_count;
static char message[MAX_MESSAGE];

struct command {
	char *field[MAX_FIELDS];
	int fields;
	int fd[MAX_FDS];
	int fds;
};

static void tell(const char *what, const char *id)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "%s%c%s", what, 0, id);

	for (int i = 0; i < client_count; i++)
		if (subscribed[i])
			send(clients[i], text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void answer(int client, const char *text, int fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec data = { .iov_base = (char *)text, .iov_len = strlen(text) };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };

	if (fd >= 0) {
		m.msg_control = control.space;
		m.msg_controllen = sizeof(control.space);
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(int));
	}
	sendmsg(client, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void answer_errno(int client, const char *what)
{
	char text[300];

	snprintf(text, sizeof(text), "error %s: %s", what, strerror(errno));
	answer(client, text, -1);
}

static struct container *find(const char *id)
{
	struct container *c = containers;

	while (c && strcmp(c->id, id) != 0)
		c = c->next;
	return c;
}

/* The record outlives this process: kaji reads it, now or after a restart. */
static void record_exit(struct container *c)
{
	char path[4096], text[96];
	struct timespec now;
	int code, fd, n;

	clock_gettime(CLOCK_REALTIME, &now);
	code = WIFSIGNALED(c->status) ? 128 + WTERMSIG(c->status) : WEXITSTATUS(c->status);
	n = snprintf(text, sizeof(text), "%d %d %lld.%09ld\n", code, WIFSIGNALED(c->status) ? WTERMSIG(c->status) : 0,
		     (long long)now.tv_sec, now.tv_nsec);
	snprintf(path, sizeof(path), "%s.new", c->exit_path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0) {
		bool whole = write(fd, text, (size_t)n) == n;

		close(fd);
		if (whole)
			rename(path, c->exit_path);
	}
}

static void container_exited(struct container *c, int status)
{
	c->exited = true;
	c->status = status;
	/* What was written before the end belongs before the end; with nobody
	 * left in the PID namespace this reads all there is. */
	for (int i = 0; i < 4096 && stream_read(c, &c->out); i++)
		;
	for (int i = 0; i < 4096 && stream_read(c, &c->err); i++)
		;
	record_exit(c);
	tell("exit", c->id);
}

static void helper_ended(pid_t pid)
{
	for (int i = 0; i < helper_count; i++)
		if (helpers[i].pid == pid) {
			helpers[i] = helpers[--helper_count];
			return;
		}
}

/* Ends the helpers of a client that is gone, or all of them for -1. Whoever
 * cleans up after the client must not race with what it had begun. */
static void end_helpers(int client)
{
	for (int i = helper_count - 1; i >= 0; i--)
		if (client < 0 || helpers[i].client == client) {
			kill(helpers[i].pid, SIGKILL);
			while (waitpid(helpers[i].pid, NULL, 0) < 0 && errno == EINTR)
				;
			helpers[i] = helpers[--helper_count];
		}
}

/* A container becomes this process's child when the helper that made it ends.
 * One that is not by then was reaped before it was known: its code is lost. */
static void find_lost(void)
{
	siginfo_t info;

	if (helper_count > 0)
		return;
	for (struct container *c = containers; c; c = c->next)
		if (!c->exited && waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
			container_exited(c, 255 << 8);
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == pause_pid) {
			pause_pid = 0;
			tell("pause", "");
			continue;
		}
		helper_ended(pid);
		for (struct container *c = containers; c; c = c->next)
			if (c->pid == pid && !c->exited)
				container_exited(c, status);
	}
	find_lost();
}

static void spawn(int client, struct command *m)
{
	pid_t pid = -1;

	errno = EAGAIN;
	if (helper_count < MAX_HELPERS)
		pid = fork();
	if (pid < 0) {
		answer_errno(client, "fork");
		return;
	}
	if (pid == 0) {
		sigset_t none;
		char *argv[MAX_FIELDS + 1];

		prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody could use what it makes */
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGPIPE, SIG_DFL);
		/* Out of the way first, so that no dup2 overwrites a later source. */
		for (int i = 0; i < m->fds; i++)
			m->fd[i] = fcntl(m->fd[i], F_DUPFD_CLOEXEC, 64);
		for (int i = 0; i < m->fds; i++)
			if (dup2(m->fd[i], i) < 0)
				_exit(127);
		syscall(SYS_close_range, m->fds, ~0U, 0);
		argv[0] = "kaji-init";
		for (int i = 2; i < m->fields; i++)
			argv[i - 1] = m->field[i];
		argv[m->fields - 1] = NULL;
		execv(m->field[1], argv);
		_exit(127);
	}
	helpers[helper_count].pid = pid;
	helpers[helper_count++].client = client;
	answer(client, "ok", -1);
}

static void nonblocking(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void watch(int client, struct command *m)
{
	struct container *c = calloc(1, sizeof(*c));
	const char *kinds = m->field[5];

	if (!c || find(m->field[1])) {
		free(c);
		errno = EEXIST;
		answer_errno(client, "watch");
		return;
	}
	c->id = strdup(m->field[1]);
	c->pid = atoi(m->field[2]);
	c->exit_path = strdup(m->field[3]);
	c->log_path = strdup(m->field[4]);
	c->input = c->log_fd = c->gate = c->out.fd = c->err.fd = -1;
	c->out.name = "stdout";
	c->err.name = "stderr";
	for (int i = 0; i < m->fds && kinds[i]; i++) {
		int fd = m->fd[i];

		m->fd[i] = -1; /* kept */
		switch (kinds[i]) {
		case 'o':
			c->out.fd = fd;
			nonblocking(fd);
			break;
		case 'e':
			c->err.fd = fd;
			nonblocking(fd);
			break;
		case 'i':
			c->input = fd;
			break;
		case 't':
			c->out.fd = fd;
			c->input = fcntl(fd, F_DUPFD_CLOEXEC, 0);
			nonblocking(fd);
			break;
		default:
			close(fd);
		}
	}
	c->next = containers;
	containers = c;
	if (log_open(c) < 0) {
		answer_errno(client, c->log_path);
		return;
	}
	find_lost();
	answer(client, "ok", -1);
}

static void attach(int client, struct command *m, struct container *c)
{
	const char *kinds = m->field[2];

	for (int i = 0; i < m->fds && kinds[i]; i++) {
		stream_attach(kinds[i] == 'e' ? &c->err : &c->out, m->fd[i]);
		m->fd[i] = -1;
	}
	answer(client, "ok", c->input);
}

static void close_input(struct container *c)
{
	if (c->input >= 0)
		close(c->input);
	c->input = -1;
}

/* Whoever starts a container may die at any moment, its reader with it. */
static void open_gate(int client, struct container *c, const char *path)
{
	if (c->gate < 0)
		c->gate = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (c->gate < 0)
		answer_errno(client, path);
	else
		answer(client, "ok", c->gate);
}

static void close_gate(struct container *c)
{
	if (c->gate >= 0)
		close(c->gate);
	c->gate = -1;
}

static void forget(struct container *c)
{
	struct container **at = &containers;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	stream_close(c, &c->out);
	stream_close(c, &c->err);
	close_input(c);
	close_gate(c);
	if (c->log_fd >= 0)
		close(c->log_fd);
	free(c->id);
	free(c->exit_path);
	free(c->log_path);
	free(c);
}

static void stop(int client)
{
	end_helpers(-1);
	if (pause_pid > 0)
		kill(pause_pid, SIGKILL);
	answer(client, "ok", -1);
	_exit(0);
}

static void obey(int slot, struct command *m)
{
	int client = clients[slot];
	const char *verb = m->field[0];
	struct container *c;

	if (strcmp(verb, "spawn") == 0 && m->fields >= 3) {
		spawn(client, m);
	} else if (strcmp(verb, "watch") == 0 && m->fields == 6) {
		watch(client, m);
	} else if (strcmp(verb, "subscribe") == 0) {
		subscribed[slot] = true;
		answer(client, "ok", -1);
	} else if (strcmp(verb, "stop") == 0) {
		stop(client);
	} else if (m->fields < 2 || !(c = find(m->field[1]))) {
		answer(client, "error no such container", -1);
	} else if (strcmp(verb, "attach") == 0 && m->fields == 3) {
		attach(client, m, c);
	} else if (strcmp(verb, "gate") == 0 && m->fields == 3) {
		open_gate(client, c, m->field[2]);
	} else if (strcmp(verb, "opened") == 0) {
		close_gate(c);
		answer(client, "ok", -1);
	} else if (strcmp(verb, "reopen") == 0) {
		if (log_open(c) < 0)
			answer_errno(client, c->log_path);
		else
			answer(client, "ok", -1);
	} else if (strcmp(verb, "closein") == 0) {
		close_input(c);
		answer(client, "ok", -1);
	} else if (strcmp(verb, "forget") == 0) {
		forget(c);
		answer(client, "ok", -1);
	} else {
		answer(client, "error unknown command", -1);
	}
}

/* Receives one command; false when the client is gone. */
static bool serve(int slot)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} control;
	struct iovec data = { .iov_base = message, .iov_len = sizeof(message) - 1 };
	struct msghdr h = { .msg_iov = &data, .msg_iovlen = 1,
			    .msg_control = control.space, .msg_controllen = sizeof(control.space) };
	struct command m = { 0 };
	ssize_t n = recvmsg(clients[slot], &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	for (struct cmsghdr *k = CMSG_FIRSTHDR(&h); k; k = CMSG_NXTHDR(&h, k)) {
		if (k->cmsg_level != SOL_SOCKET || k->cmsg_type != SCM_RIGHTS)
			continue;
		m.fds = (int)((k->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(m.fd, CMSG_DATA(k), (size_t)m.fds * sizeof(int));
	}
	message[n] = '\0';
	for (char *at = message; at <= message + n && m.fields < MAX_FIELDS; at += strlen(at) + 1)
		m.field[m.fields++] = at;
	obey(slot, &m);
	for (int i = 0; i < m.fds; i++)
		if (m.fd[i] >= 0)
			close(m.fd[i]);
	return true;
}

static void drop(int slot)
{
	end_helpers(clients[slot]);
	close(clients[slot]);
	client_count--;
	clients[slot] = clients[client_count];
	subscribed[slot] = subscribed[client_count];
}

static void accept_client(void)
{
	int fd = accept4(LISTENER, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (client_count == MAX_CLIENTS) {
		close(fd);
		return;
	}
	subscribed[client_count] = false;
	clients[client_count++] = fd;
}

/* The poll set: the listener, signals, clients, then two slots a container
 * (its streams) and one a lagging or attached sink. */
static struct pollfd *polls;
static size_t poll_room;

static void poll_add(size_t *n, int fd, short events)
{
	if (*n == poll_room) {
		size_t room = poll_room ? poll_room * 2 : 32;
		struct pollfd *more = realloc(polls, room * sizeof(*polls));

		if (!more)
			return;
		polls = more;
		poll_room = room;
	}
	polls[(*n)++] = (struct pollfd){ .fd = fd, .events = events };
}

static void poll_stream(size_t *n, struct stream *s)
{
	bool lags = stream_flush(s);

	/* A client that does not read holds the container back, as a full pipe does. */
	if (s->fd >= 0 && !lags)
		poll_add(n, s->fd, POLLIN);
	for (struct sink *k = s->sinks; k; k = k->next)
		poll_add(n, k->fd, k->pending_len > 0 ? POLLOUT : 0);
}

static bool readable(size_t n, int fd)
{
	for (size_t i = 0; i < n; i++)
		if (polls[i].fd == fd)
			return polls[i].revents & (POLLIN | POLLHUP | POLLERR);
	return false;
}

static void loop(int signals)
{
	for (;;) {
		size_t n = 0;
		int count = client_count;

		poll_add(&n, LISTENER, POLLIN);
		poll_add(&n, signals, POLLIN);
		for (int i = 0; i < count; i++)
			poll_add(&n, clients[i], POLLIN);
		for (struct container *c = containers; c; c = c->next) {
			poll_stream(&n, &c->out);
			poll_stream(&n, &c->err);
		}
		if (poll(polls, n, -1) < 0)
			continue;
		for (struct container *c = containers; c; c = c->next) {
			if (c->out.fd >= 0 && readable(n, c->out.fd))
				stream_read(c, &c->out);
			if (c->err.fd >= 0 && readable(n, c->err.fd))
				stream_read(c, &c->err);
		}
		if (polls[1].revents) {
			struct signalfd_siginfo info;

			while (read(signals, &info, sizeof(info)) > 0)
				;
			reap();
		}
		for (int i = count - 1; i >= 0; i--)
			if (polls[2 + i].revents && !serve(i))
				drop(i);
		if (polls[0].revents)
			accept_client();
	}
}

/* Reads the whole configuration; its end says that the monitor is in its
 * cgroup and may have children. */
static bool configure(struct pod *pod, const char **sysctls)
{
	size_t size = 0, room = MAX_MESSAGE;
	char *text = malloc(room);
	bool complete = false;
	int count = 0;
	ssize_t n;

	while (text && (n = read(CONFIG, text + size, room - size)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || (size += (size_t)n) == room)
			return false;
	}
	if (!text)
		return false;
	close(CONFIG);
	*pod = (struct pod){ .hostname = "", .domainname = "", .uid_map = "", .gid_map = "", .root = "/", .sysctls = sysctls };
	for (char *at = text; at < text + size; at += strlen(at) + 1) {
		char *value = strchr(at, '=');

		if (!value)
			return false;
		*value++ = '\0';
		if (strcmp(at, "namespaces") == 0)
			pod->namespaces = strtoul(value, NULL, 10);
		else if (strcmp(at, "hostname") == 0)
			pod->hostname = value;
		else if (strcmp(at, "domainname") == 0)
			pod->domainname = value;
		else if (strcmp(at, "uidmap") == 0)
			pod->uid_map = value;
		else if (strcmp(at, "gidmap") == 0)
			pod->gid_map = value;
		else if (strcmp(at, "root") == 0)
			pod->root = value;
		else if (strcmp(at, "sysctl") == 0 && count < MAX_SYSCTLS)
			sysctls[count++] = value;
		else if (strcmp(at, "complete") == 0)
			complete = true;
		else
			return false;
		at = value;
	}
	return complete; /* kaji may have died in the middle */
}

static void monitor(void)
{
	static const char *sysctls[MAX_SYSCTLS + 1];
	char text[512] = "", reply[600];
	struct pod pod;
	sigset_t set;
	int signals, n;

	prctl(PR_SET_NAME, "kaji-monitor");
	setsid();
	signal(SIGPIPE, SIG_IGN);
	for (int fd = LISTENER; fd <= ANSWER; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || !configure(&pod, sysctls))
		_exit(2);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_SETMASK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	pause_pid = pause_start(&pod, text, sizeof(text));
	if (signals < 0 || pause_pid < 0) {
		n = snprintf(reply, sizeof(reply), "error %s", text);
		_exit(write(ANSWER, reply, (size_t)n) == n ? 1 : 2);
	}
	n = snprintf(reply, sizeof(reply), "ok %d", pause_pid);
	if (write(ANSWER, reply, (size_t)n) != n)
		_exit(2);
	close(ANSWER);
	loop(signals);
}

__attribute__((constructor)) static void take_over(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "monitor") == 0) {
		monitor();
		_exit(0);
	}
	/* What follows is Go, for some milliseconds. Its runtime's watchdog sleeps
	 * 20 microseconds at a time, which costs a tenth of all processor time
	 * here; coarse timers make it patient. main.go takes this back for what
	 * runs inside a container. */
	prctl(PR_SET_TIMERSLACK, 1000000);
}
