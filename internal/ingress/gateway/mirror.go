// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"

	"kaji/internal/ingress/upstream"
)

// maxMirrored bounds the body of a request that is copied.
const maxMirrored = 1 << 20

// mirror sends copies of a request to the rule's mirrors, without waiting for
// their answers: at once where there is no body, else when the body has been
// read. It returns the request to go on with.
func (c *call) mirror(r *http.Request, now *snapshot) *http.Request {
	send := func(body []byte) {
		for _, m := range c.rule.Action.Mirrors {
			if m.Numerator < m.Denominator && rand.IntN(m.Denominator) >= m.Numerator {
				continue
			}
			copied := r.Clone(c.g.base)
			copied.RequestURI, copied.Body, copied.ContentLength = "", http.NoBody, 0
			if len(body) > 0 {
				copied.Body, copied.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
			copied.TransferEncoding = nil
			for _, name := range []string{"Connection", "Upgrade", "Te", "Trailer", "Transfer-Encoding", "Keep-Alive", "Proxy-Connection"} {
				copied.Header.Del(name)
			}
			c.rewriteMirrored(copied)
			pool := now.pools[m.Ref]
			c.g.copy(copied, &upstream.Call{Pool: pool, Connect: connectTimeout, HTTP2: c.rule.Action.GRPC || pool.Protocol() == appH2C})
		}
	}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		send(nil)
		return r
	}
	out := r.WithContext(r.Context())
	out.Body = &tee{ReadCloser: r.Body, done: send}
	return out
}

func (c *call) rewriteMirrored(out *http.Request) {
	c.rule.Action.Request.Apply(out.Header)
	if host := out.Header.Get("Host"); host != "" {
		out.Host = host
		out.Header.Del("Host")
	}
}

// copy sends a request whose answer nobody waits for. Too many at once are
// dropped.
func (g *Controller) copy(r *http.Request, to *upstream.Call) {
	select {
	case g.mirrors <- struct{}{}:
	default:
		return
	}
	g.running.Go(func() {
		defer func() { <-g.mirrors }()
		ctx, stop := context.WithTimeout(upstream.With(r.Context(), to), mirrorTimeout)
		defer stop()
		answer, err := g.c.Proxy.Transport().RoundTrip(r.WithContext(ctx))
		if err != nil {
			g.c.Logger.Debug("a request could not be mirrored", "host", r.Host, "err", err)
			return
		}
		defer answer.Body.Close()
		_, _ = io.CopyN(io.Discard, answer.Body, maxMirrored) // so that the connection can be used again
	})
}

// tee keeps what is read of a body, as long as it is not too much, and hands it
// over at its end.
type tee struct {
	io.ReadCloser
	kept []byte
	done func([]byte)
}

// Read implements io.Reader.
func (t *tee) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if t.done == nil {
		return n, err
	}
	if len(t.kept)+n > maxMirrored {
		t.kept, t.done = nil, nil
		return n, err
	}
	t.kept = append(t.kept, p[:n]...)
	if err == io.EOF {
		t.done(t.kept)
		t.done = nil
	}
	return n, err
}
