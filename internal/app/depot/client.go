// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"kaji/internal/app/daemon"
	"kaji/internal/container/image"
)

// Client works on a runtime's images. It is safe for concurrent use.
type Client struct {
	http  *http.Client
	close func() error
}

// Dial reaches the images of the running runtime with this state directory.
func Dial(state string) (*Client, error) {
	path := Socket(state)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("no runtime runs with its state in %s: start one, or give --root for the images of a stopped one", state)
	}
	return newClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}, func() error { return nil }), nil
}

// Open works on the images of a stopped runtime in its root directory.
func Open(root, hostsDir string) (*Client, error) {
	release, err := daemon.Hold(Lock(root))
	if errors.Is(err, daemon.ErrRunning) {
		return nil, fmt.Errorf("a runtime runs with the data in %s: give --state instead of --root", root)
	}
	if err != nil {
		return nil, err
	}
	store, err := image.Open(image.Config{Root: filepath.Join(root, "images"), HostsDir: hostsDir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		release()
		return nil, err
	}
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- newServer(l, store).Run(ctx) }()
	return newClient(l.dial, func() error {
		cancel()
		err := <-done
		release()
		return err
	}), nil
}

func newClient(dial func(context.Context) (net.Conn, error), close func() error) *Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	return &Client{&http.Client{Transport: transport}, func() error { transport.CloseIdleConnections(); return close() }}
}

// Close ends the client.
func (c *Client) Close() error { return c.close() }

// pipes is a listener within the process.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; the server calls it once.
func (p *pipes) Close() error { close(p.closed); return nil }

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

func (c *Client) do(ctx context.Context, method, path string, query url.Values, auth image.Auth, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://images"+path+"?"+query.Encode(), body)
	if err != nil {
		return nil, err
	}
	if auth != (image.Auth{}) {
		text, err := json.Marshal(auth)
		if err != nil {
			return nil, err
		}
		req.Header.Set(authHeader, string(text))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, failure(resp)
	}
	return resp, nil
}

// images does a request whose answer is a list of images.
func (c *Client) images(ctx context.Context, method, path string, query url.Values, auth image.Auth, body io.Reader) ([]*image.Image, error) {
	resp, err := c.do(ctx, method, path, query, auth, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var list []*image.Image
	return list, json.NewDecoder(resp.Body).Decode(&list)
}

// List lists all images.
func (c *Client) List(ctx context.Context) ([]*image.Image, error) {
	return c.images(ctx, http.MethodGet, "/images", nil, image.Auth{}, nil)
}

// Pull brings an image from its registry; tell hears how far its layers are.
func (c *Client) Pull(ctx context.Context, name string, auth image.Auth, tell func(image.LayerProgress)) (*image.Image, error) {
	resp, err := c.do(ctx, http.MethodPost, "/pull", url.Values{"image": {name}}, auth, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	for in := json.NewDecoder(resp.Body); ; {
		var m message
		switch err := in.Decode(&m); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errors.New("the runtime ended during the pull")
		case err != nil:
			return nil, err
		case m.Error != "":
			return nil, errors.New(m.Error)
		case m.Image != nil:
			return m.Image, nil
		case m.Layer != nil:
			tell(*m.Layer)
		}
	}
}

// Push brings an image to the registry that its name says.
func (c *Client) Push(ctx context.Context, name string, auth image.Auth) error {
	_, err := c.images(ctx, http.MethodPost, "/push", url.Values{"image": {name}}, auth, nil)
	return err
}

// Tag gives an image one more name.
func (c *Client) Tag(ctx context.Context, name, as string) error {
	_, err := c.images(ctx, http.MethodPost, "/tag", url.Values{"image": {name}, "as": {as}}, image.Auth{}, nil)
	return err
}

// Remove removes an image with all its names; image.ErrNotFound when there is
// none.
func (c *Client) Remove(ctx context.Context, name string) error {
	_, err := c.images(ctx, http.MethodDelete, "/images", url.Values{"image": {name}}, image.Auth{}, nil)
	return err
}

// Import stores the images of an archive.
func (c *Client) Import(ctx context.Context, archive io.Reader) ([]*image.Image, error) {
	return c.images(ctx, http.MethodPost, "/import", nil, image.Auth{}, archive)
}

// Export writes images as one archive.
func (c *Client) Export(ctx context.Context, w io.Writer, format image.Format, names ...string) error {
	resp, err := c.do(ctx, http.MethodGet, "/export", url.Values{"image": names, "format": {string(format)}}, image.Auth{}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}
