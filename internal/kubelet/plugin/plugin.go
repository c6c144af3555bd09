// SPDX-License-Identifier: Apache-2.0

// Package plugin finds the plug-ins of the node agent: programs that put a
// socket into a directory and answer there who they are (the registration API
// v1). Whoever wants plug-ins of a type is told when one comes and when it goes.
// The agent's root runs it; it knows nothing of what plug-ins do.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	registrationv1 "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Handler takes the plug-ins of a type. Calls never overlap.
type Handler interface {
	// Register takes a plug-in that answers at an endpoint; its error is told
	// the plug-in, and it is tried again.
	Register(ctx context.Context, name, endpoint string, versions []string) error
	// Deregister forgets it.
	Deregister(ctx context.Context, name string)
}

// Watcher watches a directory.
type Watcher struct {
	// Dir is "<root>/plugins_registry".
	Dir string
	// Handlers are by the plug-ins' type, registrationv1.CSIPlugin and others.
	Handlers map[string]Handler
	Logger   *slog.Logger

	known map[string]registered // by the socket's path; belongs to Run
}

type registered struct {
	kind, name string
	socket     fs.FileInfo
}

const (
	// again is how long a plug-in that could not be registered waits.
	again = 5 * time.Second
	// patience bounds what a plug-in may take to answer.
	patience = 10 * time.Second
)

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	w.known = map[string]registered{}
	if err := os.MkdirAll(w.Dir, 0o750); err != nil {
		return fmt.Errorf("make the directory of plug-ins: %w", err)
	}
	changes, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch plug-ins: %w", err)
	}
	defer changes.Close()
	if err := changes.Add(w.Dir); err != nil {
		return fmt.Errorf("watch plug-ins: %w", err)
	}
	for {
		var retry <-chan time.Time
		if !w.look(ctx, changes) {
			retry = time.After(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changes.Events:
		case err := <-changes.Errors:
			w.Logger.Warn("changes of plug-ins may have been missed", "err", err)
		case <-retry:
		}
	}
}

// look compares the sockets that are there with those that are known; false says
// that one should be tried again.
func (w *Watcher) look(ctx context.Context, changes *fsnotify.Watcher) bool {
	found, all := map[string]fs.FileInfo{}, true
	err := filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it went away while we looked
		}
		if d.IsDir() {
			return changes.Add(path)
		}
		if info, err := d.Info(); err == nil && info.Mode()&fs.ModeSocket != 0 && d.Name()[0] != '.' {
			found[path] = info
		}
		return nil
	})
	if err != nil {
		w.Logger.Warn("plug-ins were not looked for", "err", err)
		return false
	}
	for path, r := range w.known {
		if info, ok := found[path]; ok && os.SameFile(info, r.socket) && info.ModTime().Equal(r.socket.ModTime()) {
			continue
		}
		w.Handlers[r.kind].Deregister(ctx, r.name)
		delete(w.known, path)
	}
	for path, info := range found {
		if _, ok := w.known[path]; ok {
			continue
		}
		if err := w.register(ctx, path, info); err != nil {
			w.Logger.Warn("a plug-in was not registered, it is tried again", "socket", path, "err", err)
			all = false
		}
	}
	return all
}

func (w *Watcher) register(ctx context.Context, path string, info fs.FileInfo) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := Dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	api := registrationv1.NewRegistrationClient(conn)
	who, err := api.GetInfo(ctx, &registrationv1.InfoRequest{})
	if err != nil {
		return fmt.Errorf("failed to get plugin info using RPC GetInfo at socket %s: %w", path, err)
	}
	endpoint := who.Endpoint
	if endpoint == "" {
		endpoint = path
	}
	handler, ok := w.Handlers[who.Type]
	if !ok {
		err = fmt.Errorf("no handler registered for plugin type: %s at socket %s", who.Type, path)
	} else {
		err = handler.Register(ctx, who.Name, endpoint, who.SupportedVersions)
	}
	status := &registrationv1.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		status.Error = fmt.Sprintf("RegisterPlugin error -- plugin registration failed with err: %v", err)
	}
	if _, told := api.NotifyRegistrationStatus(ctx, status); told != nil {
		err = errors.Join(err, fmt.Errorf("failed to send registration status to socket %s: %w", path, told))
	}
	if err == nil {
		w.known[path] = registered{who.Type, who.Name, info}
		w.Logger.Info("plug-in registered", "type", who.Type, "name", who.Name, "endpoint", endpoint)
	}
	return err
}

// Took is told how long a call of a driver took; method is the full one, code that of
// gRPC: "OK". Nil is told nothing.
type Took func(driver, method, code string, took time.Duration)

// Dial connects to a plug-in's socket; the connection is made at the first call.
func Dial(path string) (*grpc.ClientConn, error) { return DialCounted(path, "", nil) }

// DialCounted is Dial for a driver whose calls are counted.
func DialCounted(path, driver string, took Took) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if took != nil {
		options = append(options, grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			begun := time.Now()
			err := invoke(ctx, method, req, reply, conn, opts...)
			took(driver, method, grpcstatus.Code(err).String(), time.Since(begun))
			return err
		}))
	}
	return grpc.NewClient("unix://"+path, options...)
}
