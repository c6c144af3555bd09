/* SPDX-License-Identifier: Apache-2.0 */

/* Output of containers: the log in the format of the CRI, and attached clients. */

#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A longer line is logged in parts, tagged P. */
enum { LINE_MAX_BYTES = 16384, CHUNK = 32768 };

static char chunk[CHUNK];

int log_open(struct container *c)
{
	int fd;

	if (c->log_path[0] == '\0')
		return 0;
	fd = open(c->log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0)
		return -1;
	if (c->log_fd >= 0)
		close(c->log_fd);
	c->log_fd = fd;
	return 0;
}

/* A full disk loses log lines, not the container. */
static void write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
	}
}

/* Collects log lines so that a burst of short ones is one write. */
struct batch {
	int fd;
	size_t len;
	char data[2 * CHUNK];
};

static struct batch batch;

static void batch_flush(void)
{
	if (batch.len > 0 && batch.fd >= 0)
		write_all(batch.fd, batch.data, batch.len);
	batch.len = 0;
}

static void batch_add(const char *data, size_t len)
{
	if (batch.len + len > sizeof(batch.data))
		batch_flush();
	memcpy(batch.data + batch.len, data, len);
	batch.len += len;
}

/* 2006-01-02T15:04:05.000000000Z stdout F */
static void batch_line(const struct stream *s, const char *stamp, size_t stamp_len, char tag,
		       const char *text, size_t len)
{
	char head[16];
	int n = snprintf(head, sizeof(head), " %s %c ", s->name, tag);

	batch_add(stamp, stamp_len);
	batch_add(head, (size_t)n);
	batch_add(s->line, s->line_len);
	batch_add(text, len);
	batch_add("\n", 1);
}

static size_t now_text(char *text, size_t size)
{
	struct timespec now;
	struct tm tm;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &tm);
	return len + (size_t)snprintf(text + len, size - len, ".%09ldZ", now.tv_nsec);
}

static void log_write(struct container *c, struct stream *s, const char *data, size_t len)
{
	char stamp[48];
	size_t stamp_len;

	if (c->log_fd < 0)
		return;
	stamp_len = now_text(stamp, sizeof(stamp));
	batch.fd = c->log_fd;
	while (len > 0) {
		const char *end = memchr(data, '\n', len);
		size_t part = end ? (size_t)(end - data) : len;
		size_t room = LINE_MAX_BYTES - s->line_len;

		if (part > room) {
			batch_line(s, stamp, stamp_len, 'P', data, room);
			s->line_len = 0;
			data += room;
			len -= room;
			continue;
		}
		if (end) {
			batch_line(s, stamp, stamp_len, 'F', data, part);
			s->line_len = 0;
			data += part + 1;
			len -= part + 1;
			continue;
		}
		if (!s->line)
			s->line = malloc(LINE_MAX_BYTES);
		if (!s->line) /* out of memory: log what there is */
			batch_line(s, stamp, stamp_len, 'P', data, part);
		else {
			memcpy(s->line + s->line_len, data, part);
			s->line_len += part;
		}
		break;
	}
	batch_flush();
	if (s->line_len == 0) {
		free(s->line);
		s->line = NULL;
	}
}

static void sink_free(struct sink *k)
{
	close(k->fd);
	free(k->pending);
	free(k);
}

/* Returns the bytes taken, or -1 when the client is gone. */
static ssize_t sink_write(struct sink *k, const char *data, size_t len)
{
	ssize_t n = write(k->fd, data, len);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n;
}

static void sinks_write(struct stream *s, const char *data, size_t len)
{
	struct sink **at = &s->sinks;

	while (*at) {
		struct sink *k = *at;
		ssize_t n = sink_write(k, data, len);

		if (n >= 0 && (size_t)n < len) {
			k->pending = malloc(len - (size_t)n);
			if (k->pending) {
				k->pending_len = len - (size_t)n;
				memcpy(k->pending, data + n, k->pending_len);
			} else {
				n = -1;
			}
		}
		if (n < 0) {
			*at = k->next;
			sink_free(k);
		} else {
			at = &k->next;
		}
	}
}

bool stream_flush(struct stream *s)
{
	struct sink **at = &s->sinks;
	bool lags = false;

	while (*at) {
		struct sink *k = *at;
		struct pollfd p = { .fd = k->fd };
		ssize_t n = 0;

		if (k->pending_len > 0)
			n = sink_write(k, k->pending, k->pending_len);
		else if (poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLNVAL)))
			n = -1;
		if (n < 0) {
			*at = k->next;
			sink_free(k);
			continue;
		}
		k->pending_len -= (size_t)n;
		if (k->pending_len > 0) {
			memmove(k->pending, k->pending + n, k->pending_len);
			lags = true;
		} else {
			free(k->pending);
			k->pending = NULL;
		}
		at = &k->next;
	}
	return lags;
}

void stream_attach(struct stream *s, int fd)
{
	struct sink *k = calloc(1, sizeof(*k));

	if (!k || s->fd < 0) { /* an ended stream shows its end at once */
		free(k);
		close(fd);
		return;
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	k->fd = fd;
	k->next = s->sinks;
	s->sinks = k;
}

void stream_close(struct container *c, struct stream *s)
{
	if (s->line_len > 0 && c->log_fd >= 0) {
		char stamp[48];
		size_t len = now_text(stamp, sizeof(stamp));

		batch.fd = c->log_fd;
		batch_line(s, stamp, len, 'P', "", 0);
		batch_flush();
	}
	free(s->line);
	s->line = NULL;
	s->line_len = 0;
	while (s->sinks) {
		struct sink *k = s->sinks;

		s->sinks = k->next;
		sink_free(k);
	}
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

bool stream_read(struct container *c, struct stream *s)
{
	ssize_t n;

	if (s->fd < 0)
		return false;
	n = read(s->fd, chunk, sizeof(chunk));
	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) { /* the end; a terminal says EIO */
		stream_close(c, s);
		return false;
	}
	log_write(c, s, chunk, (size_t)n);
	sinks_write(s, chunk, (size_t)n);
	return true;
}
