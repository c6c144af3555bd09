// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// The ways a request does not reach a backend.
var (
	ErrNoEndpoints = errors.New("the backend has no ready endpoints")
	ErrTimeout     = errors.New("the backend did not answer in time")
)

const (
	// tries bounds at how many endpoints a request knocks.
	tries = 3
	// idle is how long an unused connection is kept: less than most servers do.
	idle        = 55 * time.Second
	idlePerHost = 128
	// unbounded is how long a connection may take where nothing else is said.
	unbounded = 2 * time.Minute
)

// Call says where one request goes.
type Call struct {
	Pool       *Pool
	TLS, HTTP2 bool
	// Connect, SendTimeout and ReadTimeout bound the connection, the pauses in
	// the request and those in the answer; zero is no bound.
	Connect, SendTimeout, ReadTimeout time.Duration
	// Sticky is the ID of the endpoint to prefer.
	Sticky string
	// Chosen is the endpoint that answered.
	Chosen Endpoint
}

type callKey struct{}

// With gives a request's context its call.
func With(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// From returns the call of a request's context, or nil.
func From(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// Dial connects to a backend.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Transport sends requests by the call in their context.
type Transport struct {
	dial         Dial
	direct       *direct
	http1, http2 *http.Transport
}

// New returns a transport; dial is Guarded when nil.
func New(dial Dial) *Transport {
	if dial == nil {
		dial = Guarded
	}
	limited := func(ctx context.Context, network, address string) (net.Conn, error) {
		if c := From(ctx); c != nil && c.Connect > 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, c.Connect)
			defer stop()
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, &dialError{err}
		}
		return conn, nil
	}
	made := func(version2 bool) *http.Transport {
		p := new(http.Protocols)
		p.SetHTTP1(!version2)
		p.SetHTTP2(version2)
		p.SetUnencryptedHTTP2(version2)
		return &http.Transport{DialContext: limited, Protocols: p, DisableCompression: true, MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: idle,
			TLSHandshakeTimeout: 10 * time.Second, WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10,
			// As ingress-nginx: a pod's certificate names nothing that could be
			// checked; TLS to it keeps listeners out, no more.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	}
	return &Transport{dial: dial, direct: newDirect(limited), http1: made(false), http2: made(true)}
}

// Close closes the connections that are not in use.
func (t *Transport) Close() {
	t.direct.close()
	t.http1.CloseIdleConnections()
	t.http2.CloseIdleConnections()
}

// dialError is a connection that was not made: nothing was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// RoundTrip implements http.RoundTripper. Closing the request's body is left to
// the reverse proxy above: the next try may need it.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	call := From(req.Context())
	w := newWatch(req.Context(), call.ReadTimeout)
	var body *kept
	if req.Body != nil && req.Body != http.NoBody {
		w.limitTo(call.SendTimeout)
		body = &kept{ReadCloser: req.Body, watch: w, readTimeout: call.ReadTimeout}
	}
	send := t.http1.RoundTrip
	switch {
	case call.HTTP2:
		send = t.http2.RoundTrip
	case fits(req, call, body):
		send = t.direct.roundTrip
	}
	err := error(ErrNoEndpoints)
	var tried [tries]string
	for n := range tries {
		e, ok := call.Pool.pick(call.Sticky, tried[:n])
		if !ok {
			break
		}
		tried[n] = e.Address
		var answer *http.Response
		if answer, err = send(aim(req.WithContext(w.ctx), e, call.TLS, body)); err == nil {
			call.Chosen = e
			return w.follow(answer), nil
		}
		if w.ctx.Err() != nil || !repeatable(req, body, err) {
			break
		}
		w.again()
	}
	w.stop()
	if cause := context.Cause(w.ctx); errors.Is(cause, ErrTimeout) {
		err = ErrTimeout
	}
	return nil, err
}

// repeatable says whether a request that failed may go to another endpoint: when
// nothing of it was sent, or when sending it twice means the same as once, as
// nginx's proxy_next_upstream has it. A pod that ends takes the requests with it
// that it had accepted; this is how the clients of a rolling update are spared.
func repeatable(req *http.Request, body *kept, err error) bool {
	if body != nil && body.touched.Load() {
		return false
	}
	var d *dialError
	if errors.As(err, &d) {
		return true
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// Connect opens a connection to an endpoint of the pool, for what is no HTTP.
func (t *Transport) Connect(ctx context.Context, pool *Pool, limit time.Duration) (net.Conn, error) {
	err := error(ErrNoEndpoints)
	var tried [tries]string
	for n := range tries {
		e, ok := pool.pick("", tried[:n])
		if !ok {
			break
		}
		tried[n] = e.Address
		inner, stop := context.WithTimeout(ctx, cmp.Or(limit, unbounded))
		var conn net.Conn
		conn, err = t.dial(inner, "tcp", e.Address)
		stop()
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// aim returns the request for one endpoint; r is the caller's own.
func aim(r *http.Request, e Endpoint, secure bool, body *kept) *http.Request {
	url := *r.URL
	url.Scheme, url.Host = "http", e.Address
	if secure {
		url.Scheme = "https"
	}
	r.URL = &url
	if body != nil {
		r.Body = io.NopCloser(body)
	}
	return r
}

// kept is a request's body that outlives a try, as long as nobody read of it.
type kept struct {
	io.ReadCloser
	touched     atomic.Bool
	watch       *watch
	readTimeout time.Duration
}

func (k *kept) Read(p []byte) (int, error) {
	k.touched.Store(true)
	n, err := k.ReadCloser.Read(p)
	if err != nil {
		k.watch.limitTo(k.readTimeout)
	}
	k.watch.again()
	return n, err
}

// Guarded dials, but never to this machine's own loopback or link-local
// addresses: names and addresses of backends come from the cluster's users.
func Guarded(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if a := to.Addr().Unmap(); a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
			return fmt.Errorf("%s is no address of a backend", a)
		}
		return nil
	}}
	return d.DialContext(ctx, network, address)
}
