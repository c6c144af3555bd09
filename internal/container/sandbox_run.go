// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/oci"
	"kaji/internal/container/spec"
	"kaji/internal/podnet"
)

// RunPodSandbox makes the namespaces, the control group and the network of a pod.
func (r *Runtime) RunPodSandbox(ctx context.Context, req *runtimeapi.RunPodSandboxRequest) (_ *runtimeapi.RunPodSandboxResponse, err error) {
	config := req.GetConfig()
	if config.GetMetadata().GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "sandbox config must include metadata")
	}
	if h := req.GetRuntimeHandler(); h != "" && !slices.Contains(r.cfg.Handlers, h) {
		return nil, status.Errorf(codes.InvalidArgument, "failed to get sandbox runtime: no runtime for %q is configured", h)
	}
	if mode := namespaceOptions(config).GetUsernsOptions().GetMode(); mode == runtimeapi.NamespaceMode_CONTAINER || mode == runtimeapi.NamespaceMode_TARGET {
		return nil, status.Errorf(codes.InvalidArgument, "unsupported user namespace mode: %q", mode)
	}
	id := newID()
	s := &sandbox{}
	hostname, err := sandboxHostname(config)
	if err != nil {
		return nil, err
	}
	s.record.Store(&sandboxRecord{
		ID: id, Config: message[*runtimeapi.PodSandboxConfig]{config}, Handler: req.GetRuntimeHandler(), Created: time.Now(),
		Hostname: hostname, Cgroup: r.cgroups.Path(config.GetLinux().GetCgroupParent(), id),
	})
	s.op.Lock()
	defer s.op.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, r.undoSandbox(context.WithoutCancel(ctx), s))
		}
	}()
	if err := r.prepareSandbox(s); err != nil {
		return nil, err
	}
	if err := r.startMonitor(ctx, s); err != nil {
		return nil, err
	}
	if err := r.connectSandbox(ctx, s); err != nil {
		return nil, err
	}
	if err := r.updateSandbox(s, func(rec *sandboxRecord) { rec.Ready, rec.Complete = true, true }); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.sandboxes[id] = s
	r.mu.Unlock()
	r.follow(s)
	r.emitSandbox(s, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	r.emitSandbox(s, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func sandboxHostname(config *runtimeapi.PodSandboxConfig) (string, error) {
	if config.GetHostname() != "" && !hostNetwork(config) {
		return config.GetHostname(), nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("asking for the host name: %w", err)
	}
	return name, nil
}

func namespaceOptions(config *runtimeapi.PodSandboxConfig) *runtimeapi.NamespaceOption {
	return config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func hostNetwork(config *runtimeapi.PodSandboxConfig) bool {
	return namespaceOptions(config).GetNetwork() == runtimeapi.NamespaceMode_NODE
}

// prepareSandbox makes the directories and files of a sandbox.
func (r *Runtime) prepareSandbox(s *sandbox) error {
	rec := s.record.Load()
	root, state := r.sandboxRoot(rec.ID), r.sandboxState(rec.ID)
	for _, dir := range []string{root, state} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if err := r.updateSandbox(s, func(*sandboxRecord) {}); err != nil {
		return err
	}
	config := rec.Config.value
	if err := os.WriteFile(filepath.Join(root, "hostname"), []byte(rec.Hostname+"\n"), 0o644); err != nil {
		return err
	}
	resolv, err := resolvConf(config.GetDnsConfig())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "resolv.conf"), resolv, 0o644); err != nil {
		return err
	}
	if namespaceOptions(config).GetIpc() == runtimeapi.NamespaceMode_NODE {
		return nil
	}
	return mountShm(filepath.Join(state, "shm"), config)
}

// resolvConf is the pod's resolver configuration, or the host's where the pod
// has none.
func resolvConf(dns *runtimeapi.DNSConfig) ([]byte, error) {
	if len(dns.GetServers())+len(dns.GetSearches())+len(dns.GetOptions()) == 0 {
		raw, err := os.ReadFile("/etc/resolv.conf")
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return raw, err
	}
	var b strings.Builder
	if len(dns.GetSearches()) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(dns.GetSearches(), " "))
	}
	for _, server := range dns.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if len(dns.GetOptions()) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(dns.GetOptions(), " "))
	}
	return []byte(b.String()), nil
}

func mountShm(dir string, config *runtimeapi.PodSandboxConfig) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	options := "mode=1777,size=67108864"
	if uids, gids := rootMapping(config); uids >= 0 {
		options += fmt.Sprintf(",uid=%d,gid=%d", uids, gids)
	}
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mounting the pod's shared memory: %w", err)
	}
	return nil
}

// rootMapping is who root of the pod's user namespace is on the host, or -1.
func rootMapping(config *runtimeapi.PodSandboxConfig) (uid, gid int64) {
	userns := spec.UserNamespace(namespaceOptions(config))
	uid, gid = -1, -1
	for _, m := range userns.GetUids() {
		if m.GetContainerId() == 0 {
			uid = int64(m.GetHostId())
		}
	}
	for _, m := range userns.GetGids() {
		if m.GetContainerId() == 0 {
			gid = int64(m.GetHostId())
		}
	}
	return uid, gid
}

// startMonitor starts the monitor, which makes the namespaces.
func (r *Runtime) startMonitor(ctx context.Context, s *sandbox) error {
	rec := s.record.Load()
	config := rec.Config.value
	pod := oci.Pod{
		Hostname: rec.Hostname, Sysctls: map[string]string{},
		JoinCgroup: func(pid int) error { return r.cgroups.Join(rec.Cgroup, pid) },
	}
	modes := namespaceOptions(config)
	if userns := spec.UserNamespace(modes); userns != nil {
		pod.Namespaces |= unix.CLONE_NEWUSER
		pod.UIDMap, pod.GIDMap = mapLines(userns.GetUids()), mapLines(userns.GetGids())
	}
	if modes.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		pod.Namespaces |= unix.CLONE_NEWNET | unix.CLONE_NEWUTS
		if pod.Namespaces&unix.CLONE_NEWUSER == 0 {
			pod.Sysctls["net.ipv4.ip_unprivileged_port_start"] = "0"
			pod.Sysctls["net.ipv4.ping_group_range"] = "0 2147483647"
		}
	}
	if modes.GetIpc() != runtimeapi.NamespaceMode_NODE {
		pod.Namespaces |= unix.CLONE_NEWIPC
	}
	if modes.GetPid() == runtimeapi.NamespaceMode_POD {
		pod.Namespaces |= unix.CLONE_NEWPID
	}
	for name, value := range config.GetLinux().GetSysctls() {
		pod.Sysctls[strings.ReplaceAll(name, "/", ".")] = value
	}
	m, err := r.helper.StartMonitor(ctx, r.sandboxState(rec.ID), pod)
	if err != nil {
		return err
	}
	s.connect(m)
	return r.updateSandbox(s, func(rec *sandboxRecord) {
		rec.MonitorPid, rec.PausePid = newProcess(m.Pid), newProcess(m.PausePid)
	})
}

func mapLines(ids []*runtimeapi.IDMapping) string {
	var b strings.Builder
	for _, m := range ids {
		fmt.Fprintf(&b, "%d %d %d\n", m.GetContainerId(), m.GetHostId(), m.GetLength())
	}
	return b.String()
}

// connectSandbox pins the network namespace and connects it.
func (r *Runtime) connectSandbox(ctx context.Context, s *sandbox) error {
	rec := s.record.Load()
	if hostNetwork(rec.Config.value) {
		return nil
	}
	path := r.netns(rec.ID)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	source := fmt.Sprintf("/proc/%d/ns/net", rec.PausePid.Pid)
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("keeping the pod's network namespace: %w", err)
	}
	if r.cfg.Network == nil {
		return nil
	}
	if err := r.updateSandbox(s, func(rec *sandboxRecord) { rec.Networked = true }); err != nil {
		return err
	}
	result, err := r.cfg.Network.Setup(ctx, r.networkSandbox(rec))
	if err != nil {
		return fmt.Errorf("failed to setup network for sandbox %q: %w", rec.ID, err)
	}
	var ips []string
	for _, ip := range result.IPs {
		ips = append(ips, ip.String())
	}
	return r.updateSandbox(s, func(rec *sandboxRecord) { rec.IPs = ips })
}

// networkSandbox describes a sandbox to the pod network.
func (r *Runtime) networkSandbox(rec *sandboxRecord) podnet.Sandbox {
	config := rec.Config.value
	out := podnet.Sandbox{
		ID: rec.ID, Namespace: config.GetMetadata().GetNamespace(), Name: config.GetMetadata().GetName(),
		UID: config.GetMetadata().GetUid(), Netns: r.netns(rec.ID), Annotations: config.GetAnnotations(),
		IngressBandwidth: bandwidth(config, "kubernetes.io/ingress-bandwidth"),
		EgressBandwidth:  bandwidth(config, "kubernetes.io/egress-bandwidth"),
	}
	for _, p := range config.GetPortMappings() {
		if p.GetHostPort() <= 0 {
			continue
		}
		out.Ports = append(out.Ports, podnet.PortMapping{
			Protocol: p.GetProtocol().String(), HostIP: p.GetHostIp(), HostPort: p.GetHostPort(), ContainerPort: p.GetContainerPort(),
		})
	}
	return out
}

func bandwidth(config *runtimeapi.PodSandboxConfig, annotation string) int64 {
	q, err := resource.ParseQuantity(config.GetAnnotations()[annotation])
	if err != nil {
		return 0
	}
	return q.Value()
}

// undoSandbox takes back what RunPodSandbox has done so far. What cannot be taken
// back now stays as a stopped sandbox, to be stopped and removed again later.
func (r *Runtime) undoSandbox(ctx context.Context, s *sandbox) error {
	err := r.stopSandbox(ctx, s)
	if err == nil {
		return r.deleteSandbox(s)
	}
	err = errors.Join(err, r.updateSandbox(s, func(rec *sandboxRecord) { rec.Complete = true }))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes[s.record.Load().ID] = s
	return err
}
