// SPDX-License-Identifier: Apache-2.0

// Package devicemanager gives containers the devices that plug-ins offer (the
// device plug-in API v1beta1): plug-ins register (register.go), tell which devices
// there are and how they fare, and say what a container needs to use those that it
// is given (allocate.go). What was given is kept in a file, so that containers keep
// their devices when the agent restarts. The agent's root wires it: the topology
// manager has it allocate at admission, a container's start asks what to add, and
// the node's status what there is. It never touches a device itself.
package devicemanager

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"kaji/internal/kubelet/devicemanager/checkpoint"
)

const (
	checkpointFile = "kubelet_internal_checkpoint"
	// stopGrace is how long the devices of a plug-in that went are still shown.
	stopGrace = 5 * time.Minute
	// patience bounds what a plug-in may take to answer.
	patience = time.Minute
	// nowhere is the NUMA node of devices that have none.
	nowhere = -1
)

// Config is what a Manager needs.
type Config struct {
	// Dir is "<root>/device-plugins".
	Dir string
	// Nodes are the machine's NUMA nodes.
	Nodes []int
	// Changed is called when there are other devices than before, Health when
	// the health of a pod's devices changed.
	Changed func()
	Health  func(types.UID)
	// Registered is told of each plug-in that comes, by its resource, Took of how long
	// an allocation took; nil tells nobody.
	Registered func(resource string)
	Took       func(resource string, took time.Duration)
	Logger     *slog.Logger
}

// Manager manages devices. It is safe for concurrent use; allocations take turns.
type Manager struct {
	cfg   Config
	fresh bool // no file was there: the node is new

	allocating sync.Mutex
	tasks      sync.WaitGroup // what listens to plug-ins

	mu     sync.Mutex
	closed bool
	pools  map[string]*pool                           // by resource
	gone   map[string]bool                            // resources whose plug-ins stayed away
	grants map[types.UID]map[string]map[string]*grant // by pod, container and resource
}

// pool is what there is of a resource.
type pool struct {
	plugins []*endpoint // the newest is asked
	stopped time.Time   // when the last one went; zero while there is one
	devices map[string]*pluginapi.Device
	healthy map[string]bool
}

// grant is what a container was given of a resource. It does not change.
type grant struct {
	devices  checkpoint.DevicesPerNUMA
	response *pluginapi.ContainerAllocateResponse
}

func (g *grant) ids() []string {
	all := map[string]bool{}
	for _, list := range g.devices {
		for _, id := range list {
			all[id] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// New returns a Manager that knows what an earlier one gave.
func New(cfg Config) *Manager {
	m := &Manager{cfg: cfg, pools: map[string]*pool{}, gone: map[string]bool{}, grants: map[types.UID]map[string]map[string]*grant{}}
	entries, registered, found, err := checkpoint.Read(filepath.Join(cfg.Dir, checkpointFile))
	if err != nil {
		cfg.Logger.Error("what devices pods have is not known", "err", err)
	}
	m.fresh = !found && err == nil
	for _, e := range entries {
		response := &pluginapi.ContainerAllocateResponse{}
		if err := proto.Unmarshal(e.AllocResp, response); err != nil {
			cfg.Logger.Error("the devices of a container are not known", "pod", e.PodUID, "container", e.ContainerName, "err", err)
			continue
		}
		m.give(types.UID(e.PodUID), e.ContainerName, e.ResourceName, &grant{e.DeviceIDs, response})
	}
	for name := range registered { // nothing is there before the plug-in says so
		m.pools[name] = &pool{stopped: time.Now(), devices: map[string]*pluginapi.Device{}, healthy: map[string]bool{}}
	}
	return m
}

func (m *Manager) give(uid types.UID, container, name string, g *grant) {
	if m.grants[uid] == nil {
		m.grants[uid] = map[string]map[string]*grant{}
	}
	if m.grants[uid][container] == nil {
		m.grants[uid][container] = map[string]*grant{}
	}
	m.grants[uid][container][name] = g
}

// save writes the file; the caller holds the lock.
func (m *Manager) save() error {
	var entries []checkpoint.PodDevicesEntry
	for uid, containers := range m.grants {
		for container, resources := range containers {
			for name, g := range resources {
				response, err := proto.Marshal(g.response)
				if err != nil {
					return fmt.Errorf("marshal what a plug-in answered: %w", err)
				}
				entries = append(entries, checkpoint.PodDevicesEntry{PodUID: string(uid), ContainerName: container, ResourceName: name, DeviceIDs: g.devices, AllocResp: response})
			}
		}
	}
	registered := map[string][]string{}
	for name, p := range m.pools {
		registered[name] = p.usable()
	}
	return checkpoint.Write(filepath.Join(m.cfg.Dir, checkpointFile), entries, registered)
}

// usable are the healthy devices.
func (p *pool) usable() []string {
	ids := []string{}
	for id, ok := range p.healthy {
		if ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Resources are what there is of each resource, and what of it is healthy. A
// resource whose plug-in stays away drops to zero.
func (m *Manager) Resources() (capacity, allocatable corev1.ResourceList) {
	m.mu.Lock()
	defer m.mu.Unlock()
	capacity, allocatable = corev1.ResourceList{}, corev1.ResourceList{}
	set := func(name string, all, usable int) {
		capacity[corev1.ResourceName(name)] = *resource.NewQuantity(int64(all), resource.DecimalSI)
		allocatable[corev1.ResourceName(name)] = *resource.NewQuantity(int64(usable), resource.DecimalSI)
	}
	changed := false
	for name, p := range m.pools {
		if !p.stopped.IsZero() && time.Since(p.stopped) > stopGrace {
			delete(m.pools, name)
			m.gone[name], changed = true, true
			continue
		}
		set(name, len(p.devices), len(p.usable()))
	}
	for name := range m.gone {
		set(name, 0, 0)
	}
	if changed {
		if err := m.save(); err != nil {
			m.cfg.Logger.Error("devices were not written down", "err", err)
		}
	}
	return capacity, allocatable
}

// Fresh says that the agent has never run here, so that what the node shows of
// extended resources is another machine's.
func (m *Manager) Fresh() bool { return m.fresh }

// Manages says whether a resource is one of devices.
func (m *Manager) Manages(name corev1.ResourceName) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.manages(string(name))
}

func (m *Manager) manages(name string) bool {
	return m.pools[name] != nil || len(m.given(name)) > 0
}

// Given counts what a pod was given of each resource, as the least that the node
// must be thought to have of it; none for a pod that has nothing.
func (m *Manager) Given(uid types.UID) corev1.ResourceList {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.grants[uid] == nil {
		return nil
	}
	out := corev1.ResourceList{}
	for _, containers := range m.grants {
		for _, resources := range containers {
			for name := range resources {
				out[corev1.ResourceName(name)] = *resource.NewQuantity(int64(len(m.given(name))), resource.DecimalSI)
			}
		}
	}
	return out
}

// given are all devices of a resource that some container has.
func (m *Manager) given(name string) map[string]bool {
	out := map[string]bool{}
	for _, containers := range m.grants {
		for _, resources := range containers {
			if g := resources[name]; g != nil {
				for _, id := range g.ids() {
					out[id] = true
				}
			}
		}
	}
	return out
}

// Release takes back what a pod was given.
func (m *Manager) Release(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.grants[uid] == nil {
		return
	}
	delete(m.grants, uid)
	if err := m.save(); err != nil {
		m.cfg.Logger.Error("devices were not written down", "err", err)
	}
}

// Keep takes back what all pods but some were given.
func (m *Manager) Keep(known func(types.UID) bool) {
	m.mu.Lock()
	var over []types.UID
	for uid := range m.grants {
		if !known(uid) {
			over = append(over, uid)
		}
	}
	m.mu.Unlock()
	for _, uid := range over {
		m.Release(uid)
	}
}

// Device is one that a container has or could have.
type Device struct {
	Resource, ID string
	// Nodes are the NUMA nodes it is near to; none where it does not tell.
	Nodes []int64
}

// Devices are those of a container.
func (m *Manager) Devices(uid types.UID, container string) []Device {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Device
	resources := m.grants[uid][container]
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		for _, id := range resources[name].ids() {
			d := Device{Resource: name, ID: id}
			for node, list := range resources[name].devices {
				if node != nowhere && slices.Contains(list, id) {
					d.Nodes = append(d.Nodes, node)
				}
			}
			slices.Sort(d.Nodes)
			out = append(out, d)
		}
	}
	return out
}

// Allocatable are all healthy devices.
func (m *Manager) Allocatable() []Device {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Device
	for _, name := range slices.Sorted(maps.Keys(m.pools)) {
		for _, id := range m.pools[name].usable() {
			d := Device{Resource: name, ID: id}
			for _, node := range m.pools[name].devices[id].GetTopology().GetNodes() {
				d.Nodes = append(d.Nodes, node.GetID())
			}
			out = append(out, d)
		}
	}
	return out
}

// Status tells the health of a container's devices.
func (m *Manager) Status(uid types.UID, container string) []corev1.ResourceStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	resources := m.grants[uid][container]
	var out []corev1.ResourceStatus
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		s := corev1.ResourceStatus{Name: corev1.ResourceName(name)}
		for _, id := range resources[name].ids() {
			health := corev1.ResourceHealthStatusHealthy
			if p := m.pools[name]; p != nil && p.devices[id] != nil && p.devices[id].Health != pluginapi.Healthy {
				health = corev1.ResourceHealthStatusUnhealthy
			}
			s.Resources = append(s.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: health})
		}
		out = append(out, s)
	}
	return out
}

// call bounds a plug-in's answer.
func call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, patience)
}
