// SPDX-License-Identifier: Apache-2.0

package container

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/apparmor"
	"kaji/internal/container/cgroup"
	"kaji/internal/container/spec"
)

// Version tells the version of the runtime and of the interface.
func (r *Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version: "0.1.0", RuntimeName: "kaji", RuntimeVersion: cmp.Or(r.cfg.Version, "v0.0.0"), RuntimeApiVersion: "v1",
	}, nil
}

// Status tells whether pods can run and what the runtime can do.
func (r *Runtime) Status(ctx context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	network := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: true}
	if r.cfg.Network != nil {
		if err := r.cfg.Network.Ready(ctx); err != nil {
			network.Status, network.Reason = false, "NetworkPluginNotReady"
			network.Message = "Network plugin returns error: " + err.Error()
		}
	}
	out := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true}, network,
		}},
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, UserNamespacesHostNetwork: true, MountOptions: true},
	}
	for _, name := range append([]string{""}, r.cfg.Handlers...) {
		out.RuntimeHandlers = append(out.RuntimeHandlers, &runtimeapi.RuntimeHandler{
			Name: name, Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true},
		})
	}
	if req.GetVerbose() {
		config, err := json.Marshal(map[string]any{
			"root": r.cfg.Root, "state": r.cfg.State, "cgroupDriver": cmp.Or(r.cfg.CgroupDriver, "cgroupfs"), "node": r.node,
		})
		if err != nil {
			return nil, err
		}
		out.Info = map[string]string{"config": string(config)}
	}
	return out, nil
}

// RuntimeConfig tells the cgroup driver, which the kubelet must share.
func (r *Runtime) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if r.cgroups.Systemd {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}

// probeNode finds out what the machine can do.
func probeNode() (spec.Node, error) {
	caps, err := spec.HostCapabilities()
	if err != nil {
		return spec.Node{}, err
	}
	n := spec.Node{CgroupV2: cgroup.V2(), Hugetlb: cgroup.Hugetlb(), Capabilities: caps, OOMScoreAdjMin: -1000}
	if !slices.Contains(caps, "CAP_SYS_RESOURCE") {
		n.OOMScoreAdjMin = ownOOMScoreAdj()
	}
	if n.AppArmor = apparmor.Enabled(); n.AppArmor {
		n.AppArmorLoaded = apparmor.Loaded
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		n.SELinux = true
	}
	if n.CgroupV2 {
		swaps, _ := filepath.Glob("/sys/fs/cgroup/*/memory.swap.max")
		n.SwapAccounting = len(swaps) > 0
	} else if _, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"); err == nil {
		n.SwapAccounting = true
	}
	return n, nil
}

func sandboxState(rec *sandboxRecord) runtimeapi.PodSandboxState {
	if rec.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func sandboxStatus(rec *sandboxRecord) *runtimeapi.PodSandboxStatus {
	config := rec.Config.value
	out := &runtimeapi.PodSandboxStatus{
		Id: rec.ID, Metadata: config.GetMetadata(), State: sandboxState(rec), CreatedAt: rec.Created.UnixNano(),
		Network: &runtimeapi.PodSandboxNetworkStatus{}, Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
		RuntimeHandler: rec.Handler,
		Linux:          &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: namespaceOptions(config)}},
	}
	if len(rec.IPs) > 0 {
		out.Network.Ip = rec.IPs[0]
		for _, ip := range rec.IPs[1:] {
			out.Network.AdditionalIps = append(out.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip})
		}
	}
	return out
}

// PodSandboxStatus tells about one sandbox and its containers.
func (r *Runtime) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	s, err := r.findSandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	rec := s.record.Load()
	out := &runtimeapi.PodSandboxStatusResponse{Status: sandboxStatus(rec), Timestamp: time.Now().UnixNano()}
	for _, c := range r.containersOf(rec.ID) {
		out.ContainersStatuses = append(out.ContainersStatuses, containerStatus(c.record.Load()))
	}
	if req.GetVerbose() {
		info, err := json.Marshal(map[string]any{
			"pid": rec.PausePid.Pid, "monitorPid": rec.MonitorPid.Pid, "netns": r.netns(rec.ID), "cgroup": rec.Cgroup, "config": rec.Config,
		})
		if err != nil {
			return nil, err
		}
		out.Info = map[string]string{"info": string(info)}
	}
	return out, nil
}

// ListPodSandbox lists the sandboxes that fit the filter.
func (r *Runtime) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	f := req.GetFilter()
	out := &runtimeapi.ListPodSandboxResponse{}
	for _, rec := range r.sandboxRecords() {
		config := rec.Config.value
		if f.GetId() != "" && !strings.HasPrefix(rec.ID, f.GetId()) ||
			f.GetState() != nil && f.GetState().GetState() != sandboxState(rec) || !matches(config.GetLabels(), f.GetLabelSelector()) {
			continue
		}
		out.Items = append(out.Items, &runtimeapi.PodSandbox{
			Id: rec.ID, Metadata: config.GetMetadata(), State: sandboxState(rec), CreatedAt: rec.Created.UnixNano(),
			Labels: config.GetLabels(), Annotations: config.GetAnnotations(), RuntimeHandler: rec.Handler,
		})
	}
	return out, nil
}

// sandboxRecords are all sandboxes, the oldest first.
func (r *Runtime) sandboxRecords() []*sandboxRecord {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*sandboxRecord, 0, len(r.sandboxes))
	for _, s := range r.sandboxes {
		list = append(list, s.record.Load())
	}
	slices.SortFunc(list, func(a, b *sandboxRecord) int { return a.Created.Compare(b.Created) })
	return list
}

// containerRecords are all containers, the oldest first.
func (r *Runtime) containerRecords() []*containerRecord {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*containerRecord, 0, len(r.containers))
	for _, c := range r.containers {
		list = append(list, c.record.Load())
	}
	slices.SortFunc(list, func(a, b *containerRecord) int { return a.Created.Compare(b.Created) })
	return list
}

func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// ListContainers lists the containers that fit the filter.
func (r *Runtime) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f := req.GetFilter()
	out := &runtimeapi.ListContainersResponse{}
	for _, rec := range r.containerRecords() {
		config := rec.Config.value
		if f.GetId() != "" && !strings.HasPrefix(rec.ID, f.GetId()) ||
			f.GetPodSandboxId() != "" && !strings.HasPrefix(rec.Sandbox, f.GetPodSandboxId()) ||
			f.GetState() != nil && f.GetState().GetState() != rec.State || !matches(config.GetLabels(), f.GetLabelSelector()) {
			continue
		}
		out.Containers = append(out.Containers, &runtimeapi.Container{
			Id: rec.ID, PodSandboxId: rec.Sandbox, Metadata: config.GetMetadata(), Image: config.GetImage(), ImageRef: rec.ImageRef,
			ImageId: rec.ImageID, State: rec.State, CreatedAt: rec.Created.UnixNano(), Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
		})
	}
	return out, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func containerStatus(rec *containerRecord) *runtimeapi.ContainerStatus {
	config := rec.Config.value
	image := proto.Clone(config.GetImage()).(*runtimeapi.ImageSpec)
	if image.GetUserSpecifiedImage() != "" {
		image.Image = image.GetUserSpecifiedImage()
	}
	out := &runtimeapi.ContainerStatus{
		Id: rec.ID, Metadata: config.GetMetadata(), State: rec.State, CreatedAt: nanos(rec.Created), StartedAt: nanos(rec.Started),
		FinishedAt: nanos(rec.Finished), ExitCode: rec.ExitCode, Image: image, ImageRef: rec.ImageRef, ImageId: rec.ImageID,
		Reason: rec.Reason, Message: rec.Message, Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
		Mounts: config.GetMounts(), LogPath: rec.LogPath, User: rec.User.value,
		Resources: &runtimeapi.ContainerResources{Linux: config.GetLinux().GetResources()},
	}
	if s := stopSignalName(stopSignal(rec)); s != "" {
		out.StopSignal = runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+s])
	}
	return out
}

// ContainerStatus tells about one container.
func (r *Runtime) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	rec := c.record.Load()
	out := &runtimeapi.ContainerStatusResponse{Status: containerStatus(rec)}
	if req.GetVerbose() {
		raw, err := os.ReadFile(filepath.Join(r.containerRoot(rec.ID), "config.json"))
		if err != nil {
			return nil, err
		}
		info, err := json.Marshal(map[string]any{
			"sandboxID": rec.Sandbox, "pid": rec.Pid.Pid, "cgroup": rec.Cgroup, "runtimeSpec": json.RawMessage(raw), "config": rec.Config,
		})
		if err != nil {
			return nil, err
		}
		out.Info = map[string]string{"info": string(info)}
	}
	return out, nil
}

// setResources notes changed limits for ContainerStatus.
func setResources(rec *containerRecord, r *runtimeapi.LinuxContainerResources) {
	config := proto.Clone(rec.Config.value).(*runtimeapi.ContainerConfig)
	if config.Linux == nil {
		config.Linux = &runtimeapi.LinuxContainerConfig{}
	}
	old := config.Linux.Resources
	if old == nil {
		config.Linux.Resources = r
	} else {
		merged := proto.Clone(old).(*runtimeapi.LinuxContainerResources)
		proto.Merge(merged, r) // maps too
		if len(r.GetHugepageLimits()) > 0 {
			merged.HugepageLimits = r.GetHugepageLimits()
		}
		config.Linux.Resources = merged
	}
	rec.Config.value = config
}
