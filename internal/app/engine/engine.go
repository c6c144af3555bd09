// SPDX-License-Identifier: Apache-2.0

// Package engine runs the container runtime alone and serves the Container
// Runtime Interface on a socket, for a node agent in another process and for
// crictl: the verb runtime. Package node runs the same runtime in process.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"

	"kaji/internal/app/daemon"
	"kaji/internal/app/depot"
	"kaji/internal/app/image"
	"kaji/internal/cni/plugin"
	"kaji/internal/cni/veth"
	"kaji/internal/container"
	"kaji/internal/cri/serve"
	"kaji/internal/lifecycle"
	"kaji/internal/podnet"
)

// Config says where the runtime keeps its things and how pods are connected.
type Config struct {
	// Listen is the CRI's socket, "unix:///path" or a path.
	Listen string
	// Root survives a reboot, State need not; see package container.
	Root, State string
	// PodCIDRs, one a family, make the embedded network; without them the
	// plug-ins configured in CNIConfDir connect pods.
	PodCIDRs               []netip.Prefix
	CNIConfDir             string
	CNIBinDirs             []string
	CgroupDriver           string
	CgroupRoot             string
	SeccompRoot            string
	CDIDirs                []string
	StreamAddress          string
	HostsDir, DockerConfig string
	Handlers               []string
	Version                string
	Logger                 *slog.Logger
}

// Run serves until ctx ends. Containers run on after it.
func Run(ctx context.Context, c Config) error {
	path := strings.TrimPrefix(c.Listen, "unix://")
	if !filepath.IsAbs(path) {
		return fmt.Errorf("--listen %q: want unix:// and an absolute path", c.Listen)
	}
	release, err := daemon.Hold(depot.Lock(c.Root))
	if errors.Is(err, daemon.ErrRunning) {
		return fmt.Errorf("a runtime runs already with the data in %s", c.Root)
	}
	if err != nil {
		return err
	}
	defer release()
	network, err := connect(ctx, c)
	if err != nil {
		return err
	}
	r, err := container.New(container.Config{
		Root: c.Root, State: c.State, Network: network, CgroupDriver: c.CgroupDriver, CgroupRoot: c.CgroupRoot, SeccompRoot: c.SeccompRoot, CDIDirs: c.CDIDirs,
		StreamAddress: c.StreamAddress, HostsDir: c.HostsDir, DockerConfig: c.DockerConfig, PinnedImages: []string{image.Name},
		Handlers: c.Handlers, Version: c.Version, Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	group := lifecycle.New(ctx, c.Logger)
	group.Go("runtime", r.Run)
	if err := start(ctx, c, path, r, group); err != nil {
		group.Stop()
		return errors.Join(err, group.Wait())
	}
	return group.Wait()
}

// start serves what the runtime offers, once the image that is always there is.
func start(ctx context.Context, c Config, path string, r *container.Runtime, group *lifecycle.Group) error {
	if err := Import(ctx, r); err != nil {
		return err
	}
	images, err := depot.Serve(depot.Socket(c.State), r.Images())
	if err != nil {
		return err
	}
	group.Go("images", images.Run)
	server, err := serve.New(serve.Config{Path: path, Runtime: r, Images: r})
	if err != nil {
		return err
	}
	group.Go("cri", server.Run)
	c.Logger.Info("serving the Container Runtime Interface", "socket", path)
	return nil
}

// connect makes the pods' network.
func connect(ctx context.Context, c Config) (podnet.Network, error) {
	if len(c.PodCIDRs) == 0 {
		return plugin.New(plugin.Config{ConfDir: c.CNIConfDir, BinDirs: c.CNIBinDirs, CacheDir: filepath.Join(c.Root, "cni")}), nil
	}
	n := veth.New(veth.Config{ClusterCIDRs: c.PodCIDRs, Logger: c.Logger})
	if err := n.SetPodCIDRs(ctx, c.PodCIDRs); err != nil {
		return nil, fmt.Errorf("--pod-cidr: %w", err)
	}
	return n, nil
}

// Import gives the runtime the image localhost/kaji.
func Import(ctx context.Context, r *container.Runtime) error {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(image.Write(writer)) }()
	_, err := r.ImportImage(ctx, reader)
	// The writer must not hang when the import ends early.
	reader.CloseWithError(err)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("importing %s: %w", image.Name, err)
	}
	return nil
}
