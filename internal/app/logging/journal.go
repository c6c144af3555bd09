// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// journalSocket is where systemd's journal takes messages, each a datagram of
// fields (systemd's "Native Journal Protocol").
const journalSocket = "/run/systemd/journal/socket"

// The limits of one message: its bytes, well below what a datagram holds, and how
// long a journal that does not read may hold up the process.
const (
	journalBytes = 48 << 10
	journalWait  = 100 * time.Millisecond
)

// journal sends records to systemd's journal. Handlers derived from one another
// share the connection; what the journal does not take is lost, as the log itself
// has it.
type journal struct {
	slog.Handler // writes into the buffer
	*journalConn
}

type journalConn struct {
	mu   sync.Mutex // guards the buffer and the connection
	line bytes.Buffer
	conn net.Conn
	// head are the fields that all messages have.
	head string
}

// newJournal returns a handler for a journal's socket, whose messages are found
// under a unit besides the process's own.
func newJournal(socket, unit string, level slog.Level) (slog.Handler, error) {
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return nil, err
	}
	j := &journalConn{conn: conn, head: "SYSLOG_IDENTIFIER=" + filepath.Base(os.Args[0]) + "\nOBJECT_SYSTEMD_UNIT=" + unit + "\n"}
	return journal{slog.NewTextHandler(&j.line, &slog.HandlerOptions{Level: level, ReplaceAttr: j.strip}), j}, nil
}

// strip leaves out what the journal notes itself.
func (*journalConn) strip(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// Handle implements slog.Handler.
func (j journal) Handle(ctx context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.line.Reset()
	if err := j.Handler.Handle(ctx, r); err != nil {
		return err
	}
	message := j.line.Bytes()
	message = bytes.TrimSuffix(message[:min(len(message), journalBytes)], []byte("\n"))
	// One line: the handler quotes the ends of others.
	out := append([]byte(j.head+"PRIORITY="+priority(r.Level)+"\nMESSAGE="), append(message, '\n')...)
	if err := j.conn.SetWriteDeadline(time.Now().Add(journalWait)); err != nil {
		return err
	}
	_, err := j.conn.Write(out)
	return err
}

// priority is the level as syslog has it.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "3"
	case l >= slog.LevelWarn:
		return "4"
	case l >= slog.LevelInfo:
		return "6"
	}
	return "7"
}

// WithAttrs implements slog.Handler.
func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return journal{j.Handler.WithAttrs(attrs), j.journalConn}
}

// WithGroup implements slog.Handler.
func (j journal) WithGroup(name string) slog.Handler {
	return journal{j.Handler.WithGroup(name), j.journalConn}
}

// both hands records to two handlers; the first decides which.
type both struct {
	slog.Handler
	second slog.Handler
}

// Handle implements slog.Handler.
func (b both) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(b.Handler.Handle(ctx, r), b.second.Handle(ctx, r.Clone()))
}

// WithAttrs implements slog.Handler.
func (b both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{b.Handler.WithAttrs(attrs), b.second.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (b both) WithGroup(name string) slog.Handler {
	return both{b.Handler.WithGroup(name), b.second.WithGroup(name)}
}
