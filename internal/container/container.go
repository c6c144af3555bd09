// SPDX-License-Identifier: Apache-2.0

// Package container is the embedded container runtime: the messages of the
// Container Runtime Interface carried out with libcontainer (package oci), image
// layers on overlayfs (package image) and the pod network behind podnet. The
// node agent calls it in process, other agents through internal/cri/serve.
//
// Containers do not depend on this process: each pod has a monitor of its own
// (cmd/kaji-init) that keeps logs flowing and exit codes. All state is on disk;
// New finds again what an earlier process left, or cleans it.
//
//	Root   images/            see package image
//	       sandboxes/<id>/    record.json, files mounted into the pod
//	       containers/<id>/   record.json, config.json, process.json, exit, upper/, work/
//	State  sandboxes/<id>/    the monitor's socket, shm/
//	       containers/<id>/   rootfs/ (mounted while it runs)
//	       oci/<id>/          libcontainer's state
//	       netns/<id>         the pod's network namespace
//	       bin/               the helper executable
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"kaji/internal/container/cgroup"
	"kaji/internal/container/image"
	"kaji/internal/container/oci"
	"kaji/internal/container/spec"
	"kaji/internal/cri"
	"kaji/internal/podnet"
)

// Config configures a Runtime.
type Config struct {
	// Root holds images and records and survives a reboot, such as
	// /var/lib/kaji/container.
	Root string
	// State holds sockets and mounts and should be on a tmpfs, such as
	// /run/kaji/container.
	State string
	// Network connects pods; nil leaves them with their loopback.
	Network podnet.Network
	// CgroupDriver is "cgroupfs" (the default) or "systemd".
	CgroupDriver string
	// CgroupRoot is the parent of sandboxes that name none; "/kaji" by default.
	CgroupRoot string
	// SeccompRoot is where relative localhost profiles are looked for.
	SeccompRoot string
	// CDIDirs hold the specifications of the Container Device Interface;
	// /etc/cdi and /var/run/cdi by default.
	CDIDirs []string
	// Handlers are names of runtime handlers besides the default "". All of
	// them run with libcontainer.
	Handlers []string
	// StreamAddress is where exec, attach and port-forward are served;
	// 127.0.0.1 and a free port by default.
	StreamAddress string
	// HostsDir and DockerConfig say how to reach registries; see package image.
	HostsDir, DockerConfig string
	// PinnedImages are never garbage collected.
	PinnedImages []string
	// Version of kaji, for the CRI's Version.
	Version string
	Logger  *slog.Logger
}

// Runtime runs pods. It is safe for concurrent use.
type Runtime struct {
	cfg     Config
	log     *slog.Logger
	node    spec.Node
	cgroups cgroup.Driver
	helper  *oci.Helper
	images  *image.Store
	events  hub
	streams *streamServer

	// watchers follow the monitors; Run waits for them.
	watching sync.WaitGroup
	stop     context.CancelFunc
	ctx      context.Context

	// confinement is the AppArmor profile of containers that name none.
	confinement func() string

	mu         sync.RWMutex // guards the maps
	sandboxes  map[string]*sandbox
	containers map[string]*container
}

var (
	_ cri.Runtime     = (*Runtime)(nil)
	_ cri.Metrics     = (*Runtime)(nil)
	_ cri.Checkpoints = (*Runtime)(nil)
	_ cri.Images      = (*Runtime)(nil)
)

// sandbox is one pod sandbox.
type sandbox struct {
	op     sync.Mutex // serializes the verbs on the sandbox
	write  sync.Mutex // serializes changes of the record
	record atomic.Pointer[sandboxRecord]

	monitorMu sync.Mutex
	monitor   *oci.Monitor // nil when it is gone
}

// container is one container.
type container struct {
	op      sync.Mutex // serializes create, start, stop and remove
	record  atomic.Pointer[containerRecord]
	sandbox *sandbox
	// ended is closed when the container has exited.
	ended     chan struct{}
	endedOnce sync.Once
	release   func()     // of the image's layers
	write     sync.Mutex // serializes changes of the record
	exiting   sync.Mutex // serializes exited
	fsUsage   usageCache
}

// New opens the runtime, finds the sandboxes and containers that an earlier
// process left and follows them.
func New(cfg Config) (*Runtime, error) {
	if cfg.CgroupRoot == "" {
		cfg.CgroupRoot = "/kaji"
	}
	if cfg.StreamAddress == "" {
		cfg.StreamAddress = "127.0.0.1:0"
	}
	if len(cfg.CDIDirs) == 0 {
		cfg.CDIDirs = []string{"/etc/cdi", "/var/run/cdi"}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{"sandboxes", "containers"} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, dir), 0o711); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{"sandboxes", "containers", "oci", "netns"} {
		if err := os.MkdirAll(filepath.Join(cfg.State, dir), 0o711); err != nil {
			return nil, err
		}
	}
	// Not below State: many a machine runs nothing from /run.
	helper, err := oci.Install(filepath.Join(cfg.Root, "bin"))
	if err != nil {
		return nil, err
	}
	images, err := image.Open(image.Config{
		Root: filepath.Join(cfg.Root, "images"), HostsDir: cfg.HostsDir, DockerConfig: cfg.DockerConfig,
		Pinned: cfg.PinnedImages, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, helper.Close())
	}
	node, err := probeNode()
	if err != nil {
		return nil, errors.Join(err, helper.Close())
	}
	node.CDIDirs = cfg.CDIDirs
	ctx, stop := context.WithCancel(context.Background())
	r := &Runtime{
		cfg: cfg, log: cfg.Logger, node: node, helper: helper, images: images, ctx: ctx, stop: stop,
		cgroups:   cgroup.Driver{Systemd: cfg.CgroupDriver == "systemd", Root: cfg.CgroupRoot},
		sandboxes: map[string]*sandbox{}, containers: map[string]*container{},
	}
	r.confinement = sync.OnceValue(r.defaultConfinement)
	if r.streams, err = newStreamServer(r, cfg.StreamAddress); err != nil {
		stop()
		return nil, errors.Join(err, helper.Close())
	}
	if err := r.adopt(); err != nil {
		return nil, errors.Join(fmt.Errorf("finding containers again: %w", err), r.close())
	}
	r.collect()
	return r, nil
}

// collectTimeout bounds how long the network may hold up the start.
const collectTimeout = 10 * time.Second

// collect lets the network forget sandboxes that are not here any more. Those that
// stopped without having left the network count: they will still.
func (r *Runtime) collect() {
	network, ok := r.cfg.Network.(podnet.Collector)
	if !ok {
		return
	}
	var known []podnet.Sandbox
	for _, s := range r.sandboxes {
		if rec := s.record.Load(); rec.Networked {
			known = append(known, r.networkSandbox(rec))
		}
	}
	ctx, cancel := context.WithTimeout(r.ctx, collectTimeout)
	defer cancel()
	if err := network.Collect(ctx, known); err != nil {
		r.log.Warn("the network keeps something of sandboxes that are gone", "err", err)
	}
}

// Run serves exec, attach and port-forward until ctx ends. Sandboxes and
// containers go on after it.
func (r *Runtime) Run(ctx context.Context) error {
	err := r.streams.run(ctx)
	return errors.Join(err, r.close())
}

func (r *Runtime) close() error {
	r.stop()
	r.watching.Wait()
	r.events.close()
	errs := []error{r.streams.close(), r.helper.Close()}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.sandboxes {
		errs = append(errs, s.disconnect())
	}
	return errors.Join(errs...)
}

// ImportImage stores the images of an archive, in the format of docker or OCI.
func (r *Runtime) ImportImage(ctx context.Context, archive io.Reader) ([]*image.Image, error) {
	return r.images.Import(ctx, archive)
}

// Images is the store of the runtime's images.
func (r *Runtime) Images() *image.Store { return r.images }

func (r *Runtime) sandboxRoot(id string) string   { return filepath.Join(r.cfg.Root, "sandboxes", id) }
func (r *Runtime) sandboxState(id string) string  { return filepath.Join(r.cfg.State, "sandboxes", id) }
func (r *Runtime) containerRoot(id string) string { return filepath.Join(r.cfg.Root, "containers", id) }
func (r *Runtime) containerState(id string) string {
	return filepath.Join(r.cfg.State, "containers", id)
}
func (r *Runtime) ociRoot() string        { return filepath.Join(r.cfg.State, "oci") }
func (r *Runtime) netns(id string) string { return filepath.Join(r.cfg.State, "netns", id) }

// update replaces the record of a sandbox, on disk first.
func (r *Runtime) updateSandbox(s *sandbox, change func(*sandboxRecord)) error {
	s.write.Lock()
	defer s.write.Unlock()
	next := *s.record.Load()
	change(&next)
	err := writeRecord(filepath.Join(r.sandboxRoot(next.ID), "record.json"), &next)
	// What happened has happened, whether or not the disk takes it.
	s.record.Store(&next)
	return err
}

// updateContainer replaces the record of a container, on disk first.
func (r *Runtime) updateContainer(c *container, change func(*containerRecord)) error {
	c.write.Lock()
	defer c.write.Unlock()
	next := *c.record.Load()
	change(&next)
	err := writeRecord(filepath.Join(r.containerRoot(next.ID), "record.json"), &next)
	c.record.Store(&next)
	return err
}

// connection returns the monitor of a sandbox.
func (s *sandbox) connection() (*oci.Monitor, error) {
	s.monitorMu.Lock()
	defer s.monitorMu.Unlock()
	if s.monitor == nil {
		return nil, errors.New("sandbox is not running")
	}
	return s.monitor, nil
}

func (s *sandbox) connect(m *oci.Monitor) {
	s.monitorMu.Lock()
	defer s.monitorMu.Unlock()
	s.monitor = m
}

func (s *sandbox) disconnect() error {
	s.monitorMu.Lock()
	defer s.monitorMu.Unlock()
	if s.monitor == nil {
		return nil
	}
	err := s.monitor.Close()
	s.monitor = nil
	return err
}

func (c *container) markEnded() { c.endedOnce.Do(func() { close(c.ended) }) }

// containersOf lists the containers of a sandbox.
func (r *Runtime) containersOf(id string) (list []*container) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, c := range r.containers {
		if c.record.Load().Sandbox == id {
			list = append(list, c)
		}
	}
	return list
}

func (r *Runtime) findSandbox(id string) (*sandbox, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return find(r.sandboxes, id, "sandbox")
}

func (r *Runtime) findContainer(id string) (*container, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return find(r.containers, id, "container")
}
