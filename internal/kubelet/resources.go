// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"kaji/internal/kubelet/admit"
	"kaji/internal/kubelet/compose"
	"kaji/internal/kubelet/cpumanager"
	"kaji/internal/kubelet/devicemanager"
	"kaji/internal/kubelet/hardware"
	"kaji/internal/kubelet/memorymanager"
	memorystate "kaji/internal/kubelet/memorymanager/state"
	"kaji/internal/kubelet/podresources"
	"kaji/internal/kubelet/podrun"
	"kaji/internal/kubelet/status"
	"kaji/internal/kubelet/topologymanager"
)

// resources makes the managers of what containers get for themselves.
func (k *Kubelet) resources() (err error) {
	layout, err := hardware.Read("/sys")
	if err != nil {
		k.log.Warn("the machine's layout was not read: all of it is one place", "err", err)
		layout = &hardware.Layout{Nodes: []hardware.Node{{}}}
	}
	cpus := k.cfg.Reserved[corev1.ResourceCPU]
	k.rebind = make(chan struct{}, 1)
	k.cpus, err = cpumanager.New(cpumanager.Config{Policy: k.cfg.CPUManagerPolicy, Options: k.cfg.CPUManagerOptions, Layout: layout, Reserved: k.cfg.ReservedCPUs,
		Count: int(cpus.Value()), Path: filepath.Join(k.cfg.RootDir, "cpu_manager_state"), Logger: k.log, Changed: func() {
			select {
			case k.rebind <- struct{}{}:
			default:
			}
		}, Pinned: k.meter.PinnedCPUs})
	if err != nil {
		return fmt.Errorf("cpu manager: %w", err)
	}
	k.memories, err = memorymanager.New(memorymanager.Config{Policy: k.cfg.MemoryManagerPolicy, Layout: layout, Reserved: k.cfg.ReservedMemory,
		NodeReserved: reserved(k.cfg), Path: filepath.Join(k.cfg.RootDir, "memory_manager_state"), Logger: k.log, Pinned: k.meter.PinnedMemory})
	if err != nil {
		return fmt.Errorf("memory manager: %w", err)
	}
	k.devices = devicemanager.New(devicemanager.Config{Dir: filepath.Join(k.cfg.RootDir, "device-plugins"), Nodes: layout.NodeIDs(), Logger: k.log,
		Changed: func() { k.node.Wake() }, Health: func(uid types.UID) { k.pool.Wake(uid) },
		Registered: func(resource string) { k.meter.Plugins.WithLabelValues(resource).Inc() },
		Took: func(resource string, took time.Duration) {
			k.meter.DeviceTime.WithLabelValues(resource).Observe(took.Seconds())
		}})
	k.topology, err = topologymanager.New(topologymanager.Config{Policy: k.cfg.TopologyPolicy, Scope: k.cfg.TopologyScope, Options: k.cfg.TopologyOptions,
		Nodes: layout.Nodes, Providers: []topologymanager.Provider{k.devices, k.cpus, k.memories}, Aligned: k.meter.Aligned})
	if err != nil {
		return fmt.Errorf("topology manager: %w", err)
	}
	return nil
}

// bindEvery is how often containers are looked at that run on other processors
// than they should.
const bindEvery = 10 * time.Second

// bind moves running containers to the processors that they are to share, when
// those change, until ctx ends.
func (k *Kubelet) bind(ctx context.Context) error {
	if !k.cpus.Active() {
		return nil
	}
	tick := time.NewTicker(k.cfg.Rebind)
	defer tick.Stop()
	bound := map[string]string{} // by the container's id
	for {
		seen := map[string]string{}
		for _, pod := range k.activePods() {
			s, _ := k.statuses.Get(pod.UID)
			for _, c := range append(slices.Clone(s.InitContainerStatuses), s.ContainerStatuses...) {
				id, set := status.BareID(c.ContainerID), k.cpus.Set(pod.UID, c.Name)
				if c.State.Running == nil || set == "" {
					continue
				}
				if bound[id] != set {
					_, err := k.cfg.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id,
						Linux: &runtimeapi.LinuxContainerResources{CpusetCpus: set}})
					if err != nil { // it may have ended; if not, the next look tries again
						k.log.Warn("a container runs on other processors than it should", "pod", pod.Namespace+"/"+pod.Name, "container", c.Name, "err", err)
						continue
					}
				}
				seen[id] = set
			}
		}
		bound = seen
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-k.rebind:
		}
	}
}

// allocate gives a pod the devices that it asks for, at its admission.
func (k *Kubelet) allocate(pod *corev1.Pod) *admit.Rejection {
	begun := time.Now()
	k.meter.TopologyRequests.Inc()
	r := k.topology.Admit(context.Background(), pod)
	k.meter.TopologyTime.Observe(float64(time.Since(begun).Microseconds()) / 1000)
	if r != nil {
		k.meter.TopologyErrors.Inc()
		return &admit.Rejection{Reason: r.Reason, Message: r.Message}
	}
	return nil
}

// release takes back what a pod that is over was given.
func (k *Kubelet) release(uid types.UID) {
	k.devices.Release(uid)
	k.cpus.Release(uid)
	k.memories.Release(uid)
}

// keepResources takes back what pods were given that no source knows.
func (k *Kubelet) keepResources(ctx context.Context) {
	known := func(uid types.UID) bool {
		_, known := k.pool.State(uid)
		return known
	}
	k.devices.Keep(known)
	k.cpus.Keep(known)
	k.memories.Keep(known)
	k.claims.Keep(ctx, known)
}

// prepareClaims has drivers prepare the claims of a pod, whose names may stand only
// in the status that the API server has.
func (k *Kubelet) prepareClaims(ctx context.Context, pod *corev1.Pod) error {
	begun := time.Now()
	err := k.claims.Prepare(ctx, k.withClaims(pod))
	k.countClaims("PrepareResources", pod, begun, err)
	return err
}

// withClaims shows a pod with the names of its claims.
func (k *Kubelet) withClaims(pod *corev1.Pod) *corev1.Pod {
	api := k.apiPod(pod.UID)
	if api == nil || len(pod.Spec.ResourceClaims) == 0 && api.Status.ExtendedResourceClaimStatus == nil {
		return pod
	}
	shown := *pod
	shown.Status.ResourceClaimStatuses, shown.Status.ExtendedResourceClaimStatus = api.Status.ResourceClaimStatuses, api.Status.ExtendedResourceClaimStatus
	return &shown
}

// devicesOf adds what the devices of a container need to what it is given.
func (k *Kubelet) devicesOf(ctx context.Context, pod *corev1.Pod, c *corev1.Container, o *podrun.Options) error {
	o.CPUs, o.Memories = k.cpus.Set(pod.UID, c.Name), k.memories.Starts(pod, c)
	d, err := k.devices.Start(ctx, pod, c)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.Envs)) {
		if !slices.ContainsFunc(o.Env, func(v compose.Variable) bool { return v.Name == name }) {
			o.Env = append(o.Env, compose.Variable{Name: name, Value: d.Envs[name]})
		}
	}
	for _, m := range d.Mounts {
		o.Mounts = append(o.Mounts, &runtimeapi.Mount{HostPath: m.HostPath, ContainerPath: m.ContainerPath, Readonly: m.ReadOnly})
	}
	for _, s := range d.Devices {
		o.Devices = append(o.Devices, &runtimeapi.Device{HostPath: s.HostPath, ContainerPath: s.ContainerPath, Permissions: s.Permissions})
	}
	for _, name := range d.CDIDevices {
		o.CDIDevices = append(o.CDIDevices, &runtimeapi.CDIDevice{Name: name})
	}
	for _, claimed := range k.claims.Devices(k.withClaims(pod), c) {
		for _, d := range claimed.Devices {
			for _, name := range d.CDI {
				if !slices.ContainsFunc(o.CDIDevices, func(has *runtimeapi.CDIDevice) bool { return has.Name == name }) {
					o.CDIDevices = append(o.CDIDevices, &runtimeapi.CDIDevice{Name: name})
				}
			}
		}
	}
	if o.Annotations == nil {
		o.Annotations = map[string]string{}
	}
	maps.Copy(o.Annotations, d.Annotations)
	return nil
}

// deviceStatus tells the health of the devices of a pod's containers.
func (k *Kubelet) deviceStatus(uid types.UID, s *corev1.PodStatus) {
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses} {
		for i := range list {
			list[i].AllocatedResourcesStatus = k.devices.Status(uid, list[i].Name)
		}
	}
}

// allocated is a Kubelet as those see it who ask what containers have.
type allocated Kubelet

var _ podresources.Host = (*allocated)(nil)

// ActivePods implements podresources.Host.
func (a *allocated) ActivePods() []*corev1.Pod { return (*Kubelet)(a).others("") }

// ContainerResources implements podresources.Host.
func (a *allocated) ContainerResources(pod *corev1.Pod, c *corev1.Container) *podresourcesv1.ContainerResources {
	out := &podresourcesv1.ContainerResources{Devices: devicesShown(a.devices.Devices(pod.UID, c.Name)), CpuIds: numbers(a.cpus.Exclusive(pod.UID, c.Name)),
		Memory: memoryShown(a.memories.Blocks(pod.UID, c.Name))}
	for _, claimed := range a.claims.Devices((*Kubelet)(a).withClaims(pod), c) {
		one := &podresourcesv1.DynamicResource{ClaimName: claimed.Name, ClaimNamespace: claimed.Namespace}
		for _, d := range claimed.Devices {
			r := &podresourcesv1.ClaimResource{DriverName: d.Driver, PoolName: d.Pool, DeviceName: d.Device}
			if d.Share != "" {
				r.ShareId = &d.Share
			}
			for _, name := range d.CDI {
				r.CdiDevices = append(r.CdiDevices, &podresourcesv1.CDIDevice{Name: name})
			}
			one.ClaimResources = append(one.ClaimResources, r)
		}
		out.DynamicResources = append(out.DynamicResources, one)
	}
	return out
}

// AllocatableResources implements podresources.Host.
func (a *allocated) AllocatableResources() *podresourcesv1.AllocatableResourcesResponse {
	return &podresourcesv1.AllocatableResourcesResponse{Devices: devicesShown(a.devices.Allocatable()), CpuIds: numbers(a.cpus.Allocatable()),
		Memory: memoryShown(a.memories.Allocatable())}
}

func memoryShown(blocks []memorystate.Block) []*podresourcesv1.ContainerMemory {
	var out []*podresourcesv1.ContainerMemory
	for _, b := range blocks {
		one := &podresourcesv1.ContainerMemory{MemoryType: string(b.Type), Size: b.Size, Topology: &podresourcesv1.TopologyInfo{}}
		for _, id := range b.NUMAAffinity {
			one.Topology.Nodes = append(one.Topology.Nodes, &podresourcesv1.NUMANode{ID: int64(id)})
		}
		out = append(out, one)
	}
	return out
}

func numbers(list []int) []int64 {
	out := make([]int64, 0, len(list))
	for _, n := range list {
		out = append(out, int64(n))
	}
	return out
}

// devicesShown writes each device once for every node that it is near to.
func devicesShown(devices []devicemanager.Device) []*podresourcesv1.ContainerDevices {
	var out []*podresourcesv1.ContainerDevices
	for _, d := range devices {
		if len(d.Nodes) == 0 {
			out = append(out, &podresourcesv1.ContainerDevices{ResourceName: d.Resource, DeviceIds: []string{d.ID}})
		}
		for _, n := range d.Nodes {
			out = append(out, &podresourcesv1.ContainerDevices{ResourceName: d.Resource, DeviceIds: []string{d.ID},
				Topology: &podresourcesv1.TopologyInfo{Nodes: []*podresourcesv1.NUMANode{{ID: n}}}})
		}
	}
	return out
}
