// SPDX-License-Identifier: Apache-2.0

// Package oom reads the kernel's log for processes that it ended because the
// machine was out of memory, and not because a control group was. The agent's root
// runs it and tells of them in events.
package oom

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// Watcher reads the log from where it is.
type Watcher struct {
	// Open opens the log, a record a read; nil is /dev/kmsg at its end.
	Open func() (io.ReadCloser, error)
	// Killed is told of a process that ended so.
	Killed func(process string, pid int)
}

// Run reads until ctx ends; the error says that the log cannot be read.
func (w *Watcher) Run(ctx context.Context) error {
	open := w.Open
	if open == nil {
		open = kernel
	}
	log, err := open()
	if err != nil {
		return fmt.Errorf("read the kernel's log: %w", err)
	}
	defer log.Close()
	stop := context.AfterFunc(ctx, func() { _ = log.Close() })
	defer stop()
	var p parser
	in := bufio.NewReaderSize(log, 16<<10)
	for {
		line, err := in.ReadString('\n')
		switch {
		case ctx.Err() != nil || errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, syscall.EPIPE): // records were overwritten before they were read
			continue
		case err != nil:
			return fmt.Errorf("read the kernel's log: %w", err)
		}
		_, message, ok := strings.Cut(line, ";")
		if !ok {
			continue // more of the record before
		}
		if process, pid, ok := p.line(strings.TrimSpace(message)); ok {
			w.Killed(process, pid)
		}
	}
}

func kernel() (io.ReadCloser, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// parser follows what the kernel says of one lack of memory.
type parser struct {
	// begun says that the kernel tells of one, group that the victim is of a control group.
	begun, group bool
}

var killed = regexp.MustCompile(`Killed process ([0-9]+),? \((.+)\)`)

// line takes one message; ok says that it names a process that ended for the
// machine's lack of memory.
func (p *parser) line(s string) (process string, pid int, ok bool) {
	if strings.Contains(s, "invoked oom-killer:") {
		*p = parser{begun: true}
		return "", 0, false
	}
	if !p.begun {
		return "", 0, false
	}
	if rest, found := strings.CutPrefix(s, "oom-kill:"); found {
		// Of a control group, whose limit it was, unless it is the topmost that the victim is in.
		p.group = strings.Contains(rest, "oom_memcg=") && !strings.Contains(rest, "task_memcg=/,")
		return "", 0, false
	}
	m := killed.FindStringSubmatch(s)
	if m == nil {
		return "", 0, false
	}
	group := p.group
	*p = parser{}
	pid, err := strconv.Atoi(m[1])
	return m[2], pid, err == nil && !group
}
