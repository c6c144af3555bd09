/* SPDX-License-Identifier: Apache-2.0 */

#ifndef KAJI_MONITOR_H
#define KAJI_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* One end of a client's attachment: what the container writes is copied there. */
struct sink {
	int fd;
	char *pending; /* what the client has not taken yet */
	size_t pending_len;
	struct sink *next;
};

/* One output stream of a container: a pipe's read end, or a terminal's master. */
struct stream {
	int fd; /* -1 when ended */
	const char *name; /* "stdout" or "stderr" */
	char *line; /* the start of an unfinished line */
	size_t line_len;
	struct sink *sinks;
};

struct container {
	char *id;
	char *log_path;
	char *exit_path;
	pid_t pid;
	bool exited;
	int status; /* of waitpid, once exited */
	int input; /* write end of stdin, or the terminal's master; -1 for none */
	int log_fd;
	int gate; /* the fifo that a created one waits on, while it is being started; else -1 */
	struct stream out, err;
	struct container *next;
};

/* What a pod's namespaces shall be; filled from the configuration pipe. */
struct pod {
	unsigned long namespaces; /* CLONE_NEW* flags */
	const char *hostname, *domainname;
	const char *uid_map, *gid_map; /* for a user namespace, else NULL */
	const char *root; /* an empty directory to become the pause process's root */
	const char *const *sysctls; /* "path below /proc/sys" "=" "value", NULL at the end */
};

/* Starts the process that holds the pod's namespaces. Returns its pid, or -1
 * with the reason in message. */
pid_t pause_start(const struct pod *pod, char *message, size_t size);

/* Opens (or opens anew) the container's log. */
int log_open(struct container *c);

/* Reads once from a stream: logs and copies. Returns false when nothing more
 * can be read now. */
bool stream_read(struct container *c, struct stream *s);

/* Hands pending bytes on; true when a sink of the stream still lags. */
bool stream_flush(struct stream *s);

/* Ends a stream and its attachments. */
void stream_close(struct container *c, struct stream *s);

/* Adds an attachment, taking over fd. */
void stream_attach(struct stream *s, int fd);

#endif
