// SPDX-License-Identifier: Apache-2.0

package devicemanager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"kaji/internal/kubelet/plugin"
)

// endpoint is a plug-in that is connected. It does not change.
type endpoint struct {
	socket  string
	conn    *grpc.ClientConn
	api     pluginapi.DevicePluginClient
	options *pluginapi.DevicePluginOptions
}

// Run serves registrations on kubelet.sock until ctx ends. The sockets of plug-ins
// go before: they see the new kubelet.sock and register again.
func (m *Manager) Run(ctx context.Context) error {
	if err := m.clear(); err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(m.cfg.Dir, "kubelet.sock"))
	if err != nil {
		return fmt.Errorf("listen for device plug-ins: %w", err)
	}
	s := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(s, registration{m: m})
	stopped := context.AfterFunc(ctx, s.Stop)
	defer stopped()
	err = s.Serve(l)
	m.close()
	m.tasks.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve device plug-ins: %w", err)
}

func (m *Manager) clear() error {
	if err := os.MkdirAll(m.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("make the directory of device plug-ins: %w", err)
	}
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return fmt.Errorf("read the directory of device plug-ins: %w", err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeSocket != 0 {
			if err := os.Remove(filepath.Join(m.cfg.Dir, e.Name())); err != nil {
				return fmt.Errorf("remove a former socket: %w", err)
			}
		}
	}
	return nil
}

func (m *Manager) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, p := range m.pools {
		for _, e := range p.plugins {
			_ = e.conn.Close() // ends what listens to it
		}
	}
}

// registration serves plug-ins that come to kubelet.sock.
type registration struct {
	pluginapi.UnsafeRegistrationServer
	m *Manager
}

// Register implements pluginapi.RegistrationServer.
func (r registration) Register(ctx context.Context, q *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	if !slices.Contains(pluginapi.SupportedVersions[:], q.Version) {
		return &pluginapi.Empty{}, fmt.Errorf("requested API version %q is not supported by kubelet. Supported version is %q", q.Version, pluginapi.SupportedVersions)
	}
	if filepath.Base(q.Endpoint) != q.Endpoint {
		return &pluginapi.Empty{}, fmt.Errorf("bad socket path: %q", q.Endpoint)
	}
	if r.m.cfg.Registered != nil {
		r.m.cfg.Registered(q.ResourceName)
	}
	return &pluginapi.Empty{}, r.m.connect(ctx, q.ResourceName, filepath.Join(r.m.cfg.Dir, q.Endpoint))
}

var _ plugin.Handler = (*Manager)(nil)

// Register implements plugin.Handler, for plug-ins that put their sockets where
// all kinds of plug-ins do.
func (m *Manager) Register(ctx context.Context, name, endpoint string, versions []string) error {
	if !slices.ContainsFunc(versions, func(v string) bool { return slices.Contains(pluginapi.SupportedVersions[:], v) }) {
		return fmt.Errorf("requested API version %q is not supported by kubelet. Supported version is %q", versions, pluginapi.SupportedVersions)
	}
	if m.cfg.Registered != nil {
		m.cfg.Registered(name)
	}
	return m.connect(ctx, name, endpoint)
}

// Deregister implements plugin.Handler.
func (m *Manager) Deregister(_ context.Context, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pools[name]; p != nil {
		for _, e := range p.plugins {
			_ = e.conn.Close() // ends what listens to it, which notes the rest
		}
	}
}

// extended says whether a name is that of an extended resource.
func extended(name string) bool {
	domain, _, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(domain, "kubernetes.io") || strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0
}

// connect asks a plug-in for its options and listens to it from then on.
func (m *Manager) connect(ctx context.Context, name, socket string) error {
	if !extended(name) {
		return fmt.Errorf("the ResourceName %q is invalid", name)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := plugin.Dial(socket)
	if err != nil {
		return fmt.Errorf("failed to dial device plugin: %w", err)
	}
	e := &endpoint{socket: socket, conn: conn, api: pluginapi.NewDevicePluginClient(conn)}
	if e.options, err = e.api.GetDevicePluginOptions(ctx, &pluginapi.Empty{}, grpc.WaitForReady(true)); err != nil {
		return errors.Join(fmt.Errorf("failed to get device plugin options: %w", err), conn.Close())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pools[name]
	if p == nil {
		p = &pool{devices: map[string]*pluginapi.Device{}, healthy: map[string]bool{}}
	}
	if m.closed || slices.ContainsFunc(p.plugins, func(o *endpoint) bool { return o.socket == socket }) {
		return errors.Join(fmt.Errorf("device plugin already connected: %s", socket), conn.Close())
	}
	p.plugins, p.stopped = append(p.plugins, e), time.Time{}
	m.pools[name] = p
	delete(m.gone, name)
	m.cfg.Logger.Info("device plug-in registered", "resource", name, "socket", socket)
	m.tasks.Go(func() { m.listen(name, e) })
	return nil
}

// listen takes what a plug-in says of its devices until it goes.
func (m *Manager) listen(name string, e *endpoint) {
	stream, err := e.api.ListAndWatch(context.Background(), &pluginapi.Empty{}) // the connection's end ends it
	for err == nil {
		var answer *pluginapi.ListAndWatchResponse
		if answer, err = stream.Recv(); err == nil {
			m.update(name, answer.Devices)
		}
	}
	_ = e.conn.Close() // it may be closed
	m.mu.Lock()
	p := m.pools[name]
	p.plugins = slices.DeleteFunc(p.plugins, func(o *endpoint) bool { return o == e })
	if len(p.plugins) == 0 {
		p.stopped = time.Now()
		for id := range p.healthy {
			p.healthy[id] = false
		}
	}
	closed := m.closed
	m.mu.Unlock()
	if closed {
		return
	}
	m.cfg.Logger.Warn("device plug-in went", "resource", name, "socket", e.socket, "err", err)
	m.cfg.Changed()
	// Long gone, its devices are nobody's: the node's status is looked at often
	// enough to see that.
}

// update notes the devices of a resource.
func (m *Manager) update(name string, devices []*pluginapi.Device) {
	m.mu.Lock()
	p := m.pools[name]
	before := p.devices
	p.devices, p.healthy = map[string]*pluginapi.Device{}, map[string]bool{}
	turned := map[string]bool{}
	for _, d := range devices {
		p.devices[d.ID], p.healthy[d.ID] = d, d.Health == pluginapi.Healthy
		turned[d.ID] = before[d.ID] == nil || before[d.ID].Health != d.Health
	}
	var touched []types.UID
	for uid, containers := range m.grants {
		for _, resources := range containers {
			if g := resources[name]; g != nil && slices.ContainsFunc(g.ids(), func(id string) bool { return turned[id] }) {
				touched = append(touched, uid)
			}
		}
	}
	if err := m.save(); err != nil {
		m.cfg.Logger.Error("devices were not written down", "err", err)
	}
	m.mu.Unlock()
	for _, uid := range touched {
		m.cfg.Health(uid)
	}
	m.cfg.Changed()
}
