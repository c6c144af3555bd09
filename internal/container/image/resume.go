// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// resumeTries is how often in a row a body is asked for again without a
	// resumeProgress of bytes having come in between.
	resumeTries    = 5
	resumeProgress = 1 << 20
	resumePause    = 200 * time.Millisecond
	// defaultStall is how long a registry may send nothing.
	defaultStall = time.Minute
)

// stalled tells that a registry has sent nothing for so long. It is a net.Error,
// as that of a broken connection.
type stalled time.Duration

func (s stalled) Error() string {
	return fmt.Sprintf("the registry has sent nothing for %v", time.Duration(s))
}
func (stalled) Timeout() bool   { return true }
func (stalled) Temporary() bool { return true }

// resuming is a transport for answers that take long. One that makes progress is
// never cut, however long it takes; a connection over which nothing comes for
// the time of stall is given up. A body survives a connection that breaks or is
// given up: the rest is asked for by a range request (RFC 9110, section 14) and
// read on from there. A server that knows no ranges leaves things as they are.
// What comes is not compared with what came before: the digests of layers see
// to that.
type resuming struct {
	next  http.RoundTripper
	stall time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t resuming) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		return t.next.RoundTrip(req)
	}
	answer, err := t.get(req)
	if err == nil && answer.StatusCode == http.StatusOK && answer.ContentLength > 0 && !answer.Uncompressed {
		answer.Body = &resumed{body: answer.Body, get: t.get, req: req, total: answer.ContentLength}
	}
	return answer, err
}

// get does a request; neither its answer nor a read of its body waits longer
// than the time of stall.
func (t resuming) get(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	b := &watched{stall: t.stall, ctx: ctx, cancel: cancel}
	b.timer = time.AfterFunc(t.stall, func() { cancel(stalled(t.stall)) })
	answer, err := t.next.RoundTrip(req.WithContext(ctx))
	b.timer.Stop()
	if err != nil {
		err = b.reason(err)
		cancel(nil)
		return nil, err
	}
	b.body, answer.Body = answer.Body, b
	return answer, nil
}

// watched is a body whose reads end when nothing comes.
type watched struct {
	body   io.ReadCloser
	stall  time.Duration
	timer  *time.Timer
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// Read implements io.Reader.
func (b *watched) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.body.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF {
		err = b.reason(err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *watched) Close() error {
	b.timer.Stop()
	defer b.cancel(nil)
	return b.body.Close()
}

// reason is why a request failed: what was cancelled here has stalled.
func (b *watched) reason(err error) error {
	if s, ok := errors.AsType[stalled](context.Cause(b.ctx)); ok {
		return s
	}
	return err
}

// resumed is a body of a known length. Like any body it has one reader; Close
// may be called while it reads.
type resumed struct {
	mu     sync.Mutex // of body and closed
	body   io.ReadCloser
	closed bool
	get    func(*http.Request) (*http.Response, error)
	req    *http.Request
	total  int64
	// at is how many bytes have come, since how many of them after the last
	// break, tries how many breaks there were without enough progress.
	at, since int64
	tries     int
}

// Close implements io.Closer.
func (b *resumed) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.body.Close()
}

// replace puts another body in place of the broken one, unless all is over.
func (b *resumed) replace(body io.ReadCloser) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		body.Close()
		return http.ErrBodyReadAfterClose
	}
	b.body.Close()
	b.body, b.since = body, 0
	return nil
}

// Read implements io.Reader.
func (b *resumed) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.at += int64(n)
	if b.since += int64(n); b.since >= resumeProgress {
		b.tries = 0
	}
	if err == nil || b.at >= b.total || !isBroken(err) || b.req.Context().Err() != nil {
		return n, err
	}
	for b.tries < resumeTries {
		b.tries++
		if again := b.reopen(b.req.Context()); again == nil {
			return n, nil
		} else if !isBroken(again) {
			break
		}
	}
	return n, err
}

// reopen asks for what has not come yet.
func (b *resumed) reopen(ctx context.Context) error {
	pause := time.NewTimer(time.Duration(b.tries-1) * resumePause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
	}
	req := b.req.Clone(ctx)
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.at))
	answer, err := b.get(req)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("bytes %d-%d/%d", b.at, b.total-1, b.total); answer.StatusCode != http.StatusPartialContent || answer.Header.Get("Content-Range") != want {
		answer.Body.Close()
		return fmt.Errorf("asked for %s, the registry answered %s with %q", want, answer.Status, answer.Header.Get("Content-Range"))
	}
	return b.replace(answer.Body)
}
