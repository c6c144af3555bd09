// SPDX-License-Identifier: Apache-2.0

// Package logs reads what containers wrote, as container runtimes keep it: a
// line of the file is time, stream, tag and content, where the tag says whether
// the content goes on in the next line ("P") or is complete ("F").
package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
)

// maxLine bounds one line of a file; runtimes split at 16 KB.
const maxLine = 1 << 20

// Options say what of a log is wanted.
type Options struct {
	// Since leaves out what is older; zero for everything.
	Since time.Time
	// Tail is the number of lines from the end, negative for all.
	Tail int64
	// Limit bounds the bytes written; zero is no bound.
	Limit      int64
	Timestamps bool
	// Stdout and Stderr choose the streams.
	Stdout, Stderr bool
	Follow         bool
	// Running says whether the container may still write; a follower ends
	// some time after it says no. Needed with Follow.
	Running func(context.Context) bool
}

// From turns an API request's options into these.
func From(o *corev1.PodLogOptions, now time.Time) Options {
	out := Options{Tail: -1, Timestamps: o.Timestamps, Follow: o.Follow, Stdout: true, Stderr: true}
	if o.TailLines != nil {
		out.Tail = *o.TailLines
	}
	if o.LimitBytes != nil {
		out.Limit = *o.LimitBytes
	}
	if o.SinceSeconds != nil {
		out.Since = now.Add(-time.Duration(*o.SinceSeconds) * time.Second)
	}
	if o.SinceTime != nil {
		out.Since = o.SinceTime.Time
	}
	if o.Stream != nil {
		out.Stdout = *o.Stream != corev1.LogStreamStderr
		out.Stderr = *o.Stream != corev1.LogStreamStdout
	}
	return out
}

// record is one line of a file.
type record struct {
	at      time.Time
	stamp   []byte
	stream  string
	partial bool
	content []byte
}

// parse reads one line, without its end.
func parse(line []byte) (record, error) {
	var r record
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return r, fmt.Errorf("timestamp is not found")
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return r, fmt.Errorf("unexpected timestamp format %q: %w", stamp, err)
	}
	stream, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return r, fmt.Errorf("stream type is not found")
	}
	r.at, r.stamp, r.stream = at, stamp, string(stream)
	if r.stream != "stdout" && r.stream != "stderr" {
		return r, fmt.Errorf("unexpected stream type %q", stream)
	}
	tags, content, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return r, fmt.Errorf("log tag is not found")
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	r.partial, r.content = string(tag) == "P", content
	return r, nil
}

// Read writes a container's log to stdout and stderr, which may be the same.
func Read(ctx context.Context, path string, o Options, stdout, stderr io.Writer) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("failed to try resolving symlinks in path %q: %w", path, err)
	}
	f, err := os.Open(real)
	if err != nil {
		return fmt.Errorf("failed to open log file %q: %w", real, err)
	}
	defer func() { f.Close() }()
	start, err := tailStart(f, o.Tail)
	if err != nil {
		return fmt.Errorf("failed to tail %d lines of log file %q: %w", o.Tail, real, err)
	}
	if _, err := f.Seek(start, io.SeekStart); err != nil {
		return fmt.Errorf("failed to seek in log file %q: %w", real, err)
	}
	w := &writer{o: o, stdout: stdout, stderr: stderr, left: o.Limit}
	in := &lines{r: bufio.NewReaderSize(f, 32<<10)}
	var news *fsnotify.Watcher
	if o.Follow {
		if news, err = fsnotify.NewWatcher(); err != nil {
			return fmt.Errorf("watch log file %q: %w", real, err)
		}
		defer news.Close()
		if err := news.Add(filepath.Dir(real)); err != nil {
			return fmt.Errorf("watch log file %q: %w", real, err)
		}
	}
	ended := false
	for {
		line, complete, err := in.next()
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("failed to read log file %q: %w", real, err)
		case complete:
			if err := w.write(line); err != nil {
				if errors.Is(err, errLimit) {
					return nil
				}
				return err
			}
			continue
		case !o.Follow || ended:
			if len(line) > 0 {
				if err := w.write(line); err != nil && !errors.Is(err, errLimit) {
					return err
				}
			}
			return nil
		}
		rotated, running, err := wait(ctx, news, real, f, o)
		if err != nil {
			return nil // whoever reads has left
		}
		ended = !running
		if rotated {
			fresh, err := os.Open(real)
			if err != nil {
				continue
			}
			// What was written before the rotation comes first.
			for {
				line, complete, err := in.next()
				if err != nil || !complete {
					break
				}
				if err := w.write(line); err != nil {
					fresh.Close()
					return nil
				}
			}
			f.Close()
			f, in = fresh, &lines{r: bufio.NewReaderSize(fresh, 32<<10)}
		}
	}
}

// wait returns when a log may have grown.
func wait(ctx context.Context, news *fsnotify.Watcher, path string, f *os.File, o Options) (rotated, running bool, err error) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, false, ctx.Err()
		case e := <-news.Events:
			if e.Name != path {
				continue
			}
			if e.Op&fsnotify.Create != 0 {
				return true, true, nil
			}
			if e.Op&fsnotify.Write != 0 {
				return false, true, nil
			}
		case err := <-news.Errors:
			return false, false, err
		case <-timer.C:
			return !sameFile(path, f), o.Running(ctx), nil
		}
	}
}

func sameFile(path string, f *os.File) bool {
	now, err := os.Stat(path)
	if err != nil {
		return true // between two files; look again
	}
	open, err := f.Stat()
	return err == nil && os.SameFile(now, open)
}

// lines reads lines and keeps the beginning of one that is not yet complete.
type lines struct {
	r    *bufio.Reader
	part []byte
}

// next returns the next line without its end; complete is false where the
// file ends before the line does.
func (l *lines) next() (line []byte, complete bool, err error) {
	for {
		chunk, err := l.r.ReadSlice('\n')
		if len(l.part)+len(chunk) > maxLine {
			return nil, false, fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
		l.part = append(l.part, chunk...)
		switch {
		case err == nil:
			line = l.part[:len(l.part)-1]
			l.part = nil
			return line, true, nil
		case errors.Is(err, bufio.ErrBufferFull):
		default:
			return l.part, false, err
		}
	}
}

var errLimit = errors.New("limit reached")

type writer struct {
	o              Options
	stdout, stderr io.Writer
	left           int64
	mid            bool // the last line written goes on
}

func (w *writer) write(line []byte) error {
	r, err := parse(line)
	if err != nil {
		return nil // not the runtime's; upstream passes over such lines too
	}
	if r.at.Before(w.o.Since) {
		return nil
	}
	out := w.stdout
	if r.stream == "stderr" {
		out = w.stderr
	}
	if r.stream == "stdout" && !w.o.Stdout || r.stream == "stderr" && !w.o.Stderr || out == nil {
		return nil
	}
	text := make([]byte, 0, len(line)+2)
	if w.o.Timestamps && !w.mid {
		text = append(append(text, r.stamp...), ' ')
	}
	text = append(text, r.content...)
	if w.mid = r.partial; !r.partial {
		text = append(text, '\n')
	}
	limited := false
	if w.o.Limit > 0 {
		if int64(len(text)) >= w.left {
			text, limited = text[:w.left], true
		}
		w.left -= int64(len(text))
	}
	if _, err := out.Write(text); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	if limited {
		return errLimit
	}
	return nil
}

// tailStart finds where the last n lines of a file begin; the parts of a line
// that was split count as lines, as they do upstream.
func tailStart(f *os.File, n int64) (int64, error) {
	if n < 0 {
		return 0, nil
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return size, nil
	}
	const block = 16 << 10
	buffer := make([]byte, block)
	count := int64(0)
	for end := size; end > 0; {
		begin := max(end-block, 0)
		chunk := buffer[:end-begin]
		if _, err := f.ReadAt(chunk, begin); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := len(chunk) - 1; i >= 0; i-- {
			if chunk[i] != '\n' || begin+int64(i) == size-1 {
				continue
			}
			if count++; count == n {
				return begin + int64(i) + 1, nil
			}
		}
		end = begin
	}
	return 0, nil
}

// Tail returns the end of a log, at most so many lines and bytes.
func Tail(path string, count, limit int64) ([]byte, error) {
	var b bytes.Buffer
	if path == "" {
		return nil, nil
	}
	if err := Read(context.Background(), path, Options{Tail: count, Stdout: true, Stderr: true}, &b, &b); err != nil {
		return nil, err
	}
	out := b.Bytes()
	if int64(len(out)) > limit {
		out = out[int64(len(out))-limit:]
	}
	return out, nil
}
