// SPDX-License-Identifier: Apache-2.0

package devicemanager

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"kaji/internal/kubelet/devicemanager/checkpoint"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/topologymanager"
)

var _ topologymanager.Provider = (*Manager)(nil)

// Allocate implements topologymanager.Provider.
func (m *Manager) Allocate(ctx context.Context, pod *corev1.Pod, c *corev1.Container, from topologymanager.Hint) error {
	m.allocating.Lock()
	defer m.allocating.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
		quantity := c.Resources.Limits[name]
		count := int(quantity.Value())
		if count == 0 || !m.Manages(name) || claimed(pod, c, name) {
			continue
		}
		if err := m.allocate(ctx, pod, c, string(name), count, from); err != nil {
			return err
		}
	}
	return nil
}

// claimed says whether a resource of a container comes by a claim instead (KEP-5004).
func claimed(pod *corev1.Pod, c *corev1.Container, name corev1.ResourceName) bool {
	s := pod.Status.ExtendedResourceClaimStatus
	return s != nil && slices.ContainsFunc(s.RequestMappings, func(m corev1.ContainerExtendedResourceRequest) bool {
		return m.ContainerName == c.Name && m.ResourceName == string(name)
	})
}

// allocate gives a container some devices of a resource, unless it has them.
func (m *Manager) allocate(ctx context.Context, pod *corev1.Pod, c *corev1.Container, name string, count int, from topologymanager.Hint) error {
	ids, e, err := m.choose(ctx, pod, c, name, count, from)
	if err != nil || len(ids) == 0 {
		return err
	}
	ctx, cancel := call(ctx)
	defer cancel()
	begun := time.Now()
	answer, err := e.api.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}}})
	if m.cfg.Took != nil {
		m.cfg.Took(name, time.Since(begun))
	}
	if err != nil {
		return err
	}
	if len(answer.ContainerResponses) == 0 {
		return fmt.Errorf("no containers return in allocation response %v", answer)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	g := &grant{checkpoint.DevicesPerNUMA{}, answer.ContainerResponses[0]}
	for _, id := range ids {
		nodes := []*pluginapi.NUMANode{{ID: nowhere}}
		if p := m.pools[name]; p != nil && len(p.devices[id].GetTopology().GetNodes()) > 0 {
			nodes = p.devices[id].Topology.Nodes
		}
		for _, n := range nodes {
			g.devices[n.ID] = append(g.devices[n.ID], id)
		}
	}
	m.give(pod.UID, c.Name, name, g)
	return m.save()
}

// choose finds devices for a container; none where it has them. The plug-in may
// say which it likes best.
func (m *Manager) choose(ctx context.Context, pod *corev1.Pod, c *corev1.Container, name string, count int, from topologymanager.Hint) ([]string, *endpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pools[name]
	had := m.grants[pod.UID][c.Name][name]
	if had != nil && len(had.ids()) != count {
		return nil, nil, fmt.Errorf("pod %q container %q changed request for resource %q from %d to %d", pod.UID, c.Name, name, len(had.ids()), count)
	}
	if p == nil {
		return nil, nil, fmt.Errorf("cannot allocate unregistered device %s", name)
	}
	usable := p.usable()
	if len(usable) == 0 {
		return nil, nil, fmt.Errorf("no healthy devices present; cannot allocate unhealthy devices %s", name)
	}
	if had != nil {
		if slices.ContainsFunc(had.ids(), func(id string) bool { return !p.healthy[id] }) {
			return nil, nil, fmt.Errorf("previously allocated devices are no longer healthy; cannot allocate unhealthy devices %s", name)
		}
		return nil, nil, nil
	}
	if len(p.plugins) == 0 {
		return nil, nil, fmt.Errorf("unknown Device Plugin %s", name)
	}
	e := p.plugins[len(p.plugins)-1]
	chosen := first(m.reusable(pod, c, name), count)
	if len(chosen) == count {
		return chosen, e, nil
	}
	given := m.given(name)
	available := slices.DeleteFunc(usable, func(id string) bool { return given[id] })
	if missing := count - len(chosen); len(available) < missing {
		return nil, nil, fmt.Errorf("requested number of devices unavailable for %s. Requested: %d, Available: %d", name, missing, len(available))
	}
	near, far, apart := p.sort(available, from.Affinity)
	if count-len(chosen) >= len(near) { // all that are near are taken in any case
		chosen = append(chosen, near...)
		near = append(far, apart...)
	}
	if count == len(chosen) {
		return chosen, e, nil
	}
	preferred, err := m.prefer(ctx, e, near, chosen, count)
	if err != nil {
		return nil, nil, err
	}
	return append(chosen, first(append(preferred, without(near, preferred)...), count-len(chosen))...), e, nil
}

// first are at most the first of some.
func first(ids []string, count int) []string { return ids[:min(count, len(ids))] }

// without are the ones of a list that another does not have.
func without(ids, those []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(those, id) })
}

// prefer asks a plug-in which devices it would like to be taken; the lock is
// given up meanwhile.
func (m *Manager) prefer(ctx context.Context, e *endpoint, available, must []string, count int) ([]string, error) {
	if !e.options.GetGetPreferredAllocationAvailable() {
		return nil, nil
	}
	m.mu.Unlock()
	defer m.mu.Lock()
	ctx, cancel := call(ctx)
	defer cancel()
	answer, err := e.api.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{
		AvailableDeviceIDs: append(slices.Clone(available), must...), MustIncludeDeviceIDs: must, AllocationSize: int32(count)}}}) //nolint:gosec // no more than there are
	if err != nil {
		return nil, fmt.Errorf("device plugin GetPreferredAllocation rpc failed with err: %w", err)
	}
	var out []string
	if len(answer.ContainerResponses) > 0 {
		for _, id := range answer.ContainerResponses[0].DeviceIDs {
			if slices.Contains(available, id) && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out, nil
}

// reusable are the devices of init containers that end before the container
// starts, and that no other container of the pod has.
func (m *Manager) reusable(pod *corev1.Pod, c *corev1.Container, name string) []string {
	free, held := map[string]bool{}, map[string]bool{}
	containers := m.grants[pod.UID]
	for i := range pod.Spec.InitContainers {
		init := &pod.Spec.InitContainers[i]
		if init.Name == c.Name {
			break
		}
		if g := containers[init.Name][name]; g != nil {
			for _, id := range g.ids() {
				free[id] = true
				held[id] = held[id] || podspec.Sidecar(init)
			}
		}
	}
	for i := range pod.Spec.Containers {
		if g := containers[pod.Spec.Containers[i].Name][name]; g != nil {
			for _, id := range g.ids() {
				held[id] = true
			}
		}
	}
	maps.DeleteFunc(free, func(id string, _ bool) bool { return held[id] })
	return slices.Sorted(maps.Keys(free))
}

// sort parts devices into those near to some nodes, those near to others and
// those that do not tell. Without wanted nodes all are apart. Nodes with few
// devices come first.
func (p *pool) sort(ids []string, nodes topologymanager.Mask) (near, far, apart []string) {
	if nodes == 0 || !p.places() {
		return nil, nil, ids
	}
	crowd := map[int64]int{}
	for _, id := range ids {
		for _, n := range p.devices[id].GetTopology().GetNodes() {
			crowd[n.ID]++
		}
	}
	least := map[string]int{}
	for _, id := range ids {
		all := p.devices[id].GetTopology().GetNodes()
		wanted := slices.DeleteFunc(slices.Clone(all), func(n *pluginapi.NUMANode) bool { return !nodes.Has(int(n.ID)) })
		switch {
		case len(all) == 0:
			apart = append(apart, id)
			continue
		case len(wanted) > 0:
			near = append(near, id)
		default:
			far, wanted = append(far, id), all
		}
		least[id] = crowd[slices.MinFunc(wanted, func(a, b *pluginapi.NUMANode) int { return crowd[a.ID] - crowd[b.ID] }).ID]
	}
	for _, list := range [][]string{near, far} {
		slices.SortStableFunc(list, func(a, b string) int { return cmp.Compare(least[a], least[b]) })
	}
	return near, far, apart
}

// places says whether any device tells where it is.
func (p *pool) places() bool {
	for _, d := range p.devices {
		if len(d.GetTopology().GetNodes()) > 0 {
			return true
		}
	}
	return false
}

// Hints implements topologymanager.Provider.
func (m *Manager) Hints(pod *corev1.Pod, c *corev1.Container) map[string][]topologymanager.Hint {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]topologymanager.Hint{}
	for name, count := range m.requests(pod, c) {
		p := m.pools[name]
		if p == nil || !p.places() {
			out[name] = nil
			continue
		}
		if had := m.had(pod.UID, c, name); len(had) > 0 {
			out[name] = []topologymanager.Hint{}
			if len(had) == count {
				out[name] = p.hints(m.cfg.Nodes, had, nil, count)
			}
			continue
		}
		given := m.given(name)
		available := slices.DeleteFunc(p.usable(), func(id string) bool { return given[id] })
		var reusable []string
		if c != nil {
			reusable = m.reusable(pod, c, name)
		}
		out[name] = []topologymanager.Hint{}
		if len(available)+len(reusable) >= count {
			out[name] = p.hints(m.cfg.Nodes, available, reusable, count)
		}
	}
	return out
}

// requests are the devices that a container asks for, or all of a pod: its init
// containers one after the other, with sidecars beside all that follows.
func (m *Manager) requests(pod *corev1.Pod, c *corev1.Container) map[string]int {
	out := map[string]int{}
	of := func(c *corev1.Container) map[string]int {
		counts := map[string]int{}
		for name, quantity := range c.Resources.Limits {
			if m.manages(string(name)) {
				counts[string(name)] = int(quantity.Value())
			}
		}
		return counts
	}
	if c != nil {
		return of(c)
	}
	for i := range pod.Spec.Containers {
		for name, n := range of(&pod.Spec.Containers[i]) {
			out[name] += n
		}
	}
	beside, most := map[string]int{}, map[string]int{}
	for i := range pod.Spec.InitContainers {
		init := &pod.Spec.InitContainers[i]
		for name, n := range of(init) {
			most[name] = max(most[name], beside[name]+n)
			if podspec.Sidecar(init) {
				beside[name] += n
			}
		}
	}
	for name, n := range beside {
		out[name] += n
	}
	for name, n := range most {
		out[name] = max(out[name], n)
	}
	return out
}

// had are the devices that a container, or a pod, was given before.
func (m *Manager) had(uid types.UID, c *corev1.Container, name string) []string {
	all := map[string]bool{}
	for container, resources := range m.grants[uid] {
		if g := resources[name]; g != nil && (c == nil || c.Name == container) {
			for _, id := range g.ids() {
				all[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// hints are the sets of nodes that have enough devices; those as small as any
// set could be are preferred.
func (p *pool) hints(machine []int, available, reusable []string, count int) []topologymanager.Hint {
	mask := func(id string) topologymanager.Mask {
		m := topologymanager.Mask(0)
		for _, n := range p.devices[id].GetTopology().GetNodes() {
			m |= topologymanager.MaskOf(int(n.ID))
		}
		return m
	}
	within := topologymanager.Mask(0)
	for id := range p.devices {
		within |= mask(id)
	}
	nodes := (within & topologymanager.MaskOf(machine...)).Nodes()
	if len(nodes) == 0 {
		nodes = machine
	}
	least := len(nodes)
	hints := []topologymanager.Hint{}
	topologymanager.EachMask(nodes, func(set topologymanager.Mask) {
		all, matching := 0, 0
		for id := range p.devices {
			if mask(id)&set != 0 {
				all++
			}
		}
		if all >= count {
			least = min(least, set.Count())
		}
		for _, id := range reusable {
			if own := mask(id); own != 0 && own&set == 0 {
				return
			} else if own != 0 {
				matching++
			}
		}
		for _, id := range available {
			if mask(id)&set != 0 {
				matching++
			}
		}
		if matching >= count {
			hints = append(hints, topologymanager.Hint{Affinity: set})
		}
	})
	for i := range hints {
		hints[i].Preferred = hints[i].Affinity.Count() == least
	}
	return hints
}

// Options is what a container needs for its devices.
type Options struct {
	Envs, Annotations map[string]string
	Devices           []*pluginapi.DeviceSpec
	Mounts            []*pluginapi.Mount
	CDIDevices        []string
}

// Start tells the plug-ins of a container's devices that it is about to start,
// and what to add to it. A container without devices that wants some gets them now.
func (m *Manager) Start(ctx context.Context, pod *corev1.Pod, c *corev1.Container) (*Options, error) {
	missing := false
	for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
		quantity := c.Resources.Limits[name]
		if quantity.Value() == 0 || !m.Manages(name) || claimed(pod, c, name) {
			continue
		}
		m.mu.Lock()
		var e *endpoint
		if p := m.pools[string(name)]; p != nil && len(p.plugins) > 0 {
			e = p.plugins[len(p.plugins)-1]
		}
		had := m.had(pod.UID, c, string(name))
		m.mu.Unlock()
		missing = missing || len(had) == 0
		if e == nil || !e.options.GetPreStartRequired() || len(had) == 0 {
			continue
		}
		if err := m.preStart(ctx, e, had); err != nil {
			return nil, err
		}
	}
	if missing {
		if err := m.Allocate(ctx, pod, c, topologymanager.Hint{}); err != nil {
			return nil, err
		}
	}
	return m.options(pod.UID, c.Name), nil
}

func (m *Manager) preStart(ctx context.Context, e *endpoint, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, pluginapi.KubeletPreStartContainerRPCTimeoutInSecs*1e9)
	defer cancel()
	if _, err := e.api.PreStartContainer(ctx, &pluginapi.PreStartContainerRequest{DevicesIds: ids}); err != nil {
		return fmt.Errorf("device plugin PreStartContainer rpc failed with err: %w", err)
	}
	return nil
}

// options puts the answers of the plug-ins together; of two that disagree the
// first by the resource's name counts.
func (m *Manager) options(uid types.UID, container string) *Options {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := &Options{Envs: map[string]string{}, Annotations: map[string]string{}}
	resources := m.grants[uid][container]
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		r := resources[name].response
		for k, v := range r.Envs {
			if _, ok := o.Envs[k]; !ok {
				o.Envs[k] = v
			}
		}
		for k, v := range r.Annotations {
			if _, ok := o.Annotations[k]; !ok {
				o.Annotations[k] = v
			}
		}
		for _, d := range r.Devices {
			if !slices.ContainsFunc(o.Devices, func(h *pluginapi.DeviceSpec) bool { return h.ContainerPath == d.ContainerPath }) {
				o.Devices = append(o.Devices, d)
			}
		}
		for _, mount := range r.Mounts {
			if !slices.ContainsFunc(o.Mounts, func(h *pluginapi.Mount) bool { return h.ContainerPath == mount.ContainerPath }) {
				o.Mounts = append(o.Mounts, mount)
			}
		}
		for _, d := range r.CdiDevices {
			if !slices.Contains(o.CDIDevices, d.Name) {
				o.CDIDevices = append(o.CDIDevices, d.Name)
			}
		}
	}
	return o
}
