// SPDX-License-Identifier: Apache-2.0

// Package depot lets the verb image work on a runtime's images: those of a
// running one by a socket beside its state, which only root may use, or those
// of a stopped one in its directory. The Container Runtime Interface can pull,
// list and remove images, but neither push, tag, import nor export them.
package depot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"kaji/internal/container/image"
)

// Socket is where the runtime with this state directory offers its images.
func Socket(state string) string { return filepath.Join(state, "image.sock") }

// Lock names the file that a runtime with this root directory holds with package
// daemon, so that its images are not worked on in two processes.
func Lock(root string) string { return filepath.Join(root, "runtime.pid") }

// authHeader carries credentials for a registry.
const authHeader = "X-Registry-Auth"

// Server offers one store.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Serve listens on a socket; one that an earlier process left is replaced.
func Serve(path string, store *image.Store) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening for image commands: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return newServer(l, store), nil
}

func newServer(l net.Listener, store *image.Store) *Server {
	return &Server{l, &http.Server{Handler: handler(store), ReadHeaderTimeout: 10 * time.Second}}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = s.http.Close() })()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func handler(store *image.Store) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images", func(w http.ResponseWriter, _ *http.Request) { answer(w, store.List(), nil) })
	mux.HandleFunc("DELETE /images", func(w http.ResponseWriter, r *http.Request) {
		img, err := store.Get(r.FormValue("image"))
		if err == nil {
			err = store.Remove(r.FormValue("image"))
		}
		answer(w, []*image.Image{img}, err)
	})
	mux.HandleFunc("POST /pull", func(w http.ResponseWriter, r *http.Request) {
		auth, err := credentials(r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		pull(w, r, store, auth)
	})
	mux.HandleFunc("POST /push", func(w http.ResponseWriter, r *http.Request) {
		auth, err := credentials(r)
		if err == nil {
			err = store.Push(r.Context(), r.FormValue("image"), auth)
		}
		answer(w, nil, err)
	})
	mux.HandleFunc("POST /tag", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, store.Tag(r.FormValue("image"), r.FormValue("as")))
	})
	mux.HandleFunc("POST /import", func(w http.ResponseWriter, r *http.Request) {
		images, err := store.Import(r.Context(), r.Body)
		answer(w, images, err)
	})
	mux.HandleFunc("GET /export", func(w http.ResponseWriter, r *http.Request) { export(w, r, store) })
	return mux
}

// message is one line of the answer to a pull: how far a layer is, or at the
// end the image or what went wrong.
type message struct {
	Layer *image.LayerProgress `json:"layer,omitempty"`
	Image *image.Image         `json:"image,omitempty"`
	Error string               `json:"error,omitempty"`
}

// pull streams messages.
func pull(w http.ResponseWriter, r *http.Request, store *image.Store, auth image.Auth) {
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	say := func(m message) {
		_ = out.Encode(m) // an error is that of a client that has left,
		_ = flush.Flush() // whose context ends the pull
	}
	img, err := store.Pull(r.Context(), r.FormValue("image"), auth, func(p image.LayerProgress) { say(message{Layer: &p}) })
	if err != nil {
		say(message{Error: err.Error()})
		return
	}
	say(message{Image: img})
}

// export streams an archive; an error after its beginning ends the connection,
// so that half an archive is not taken for a whole one.
func export(w http.ResponseWriter, r *http.Request, store *image.Store) {
	names := r.URL.Query()["image"]
	for _, name := range names {
		if _, err := store.Get(name); err != nil {
			answer(w, nil, err)
			return
		}
	}
	if err := store.Export(r.Context(), w, image.Format(r.FormValue("format")), names...); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func credentials(r *http.Request) (image.Auth, error) {
	var auth image.Auth
	if text := r.Header.Get(authHeader); text != "" {
		if err := json.Unmarshal([]byte(text), &auth); err != nil {
			return auth, errors.New("the credentials are not readable")
		}
	}
	return auth, nil
}

func answer(w http.ResponseWriter, images []*image.Image, err error) {
	if err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, image.ErrNotFound) {
			code = http.StatusNotFound
		}
		http.Error(w, err.Error(), code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(images) // the client has left
}

// failure reads the error of an answer.
func failure(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is
	if len(text) == 0 {
		return errors.New(resp.Status)
	}
	err := errors.New(string(text[:len(text)-1]))
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%w%w", err, notFound{})
	}
	return err
}

// notFound makes an error known as image.ErrNotFound without its text twice.
type notFound struct{}

func (notFound) Error() string   { return "" }
func (notFound) Is(e error) bool { return e == image.ErrNotFound }
