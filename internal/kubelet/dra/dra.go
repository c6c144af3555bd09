// SPDX-License-Identifier: Apache-2.0

// Package dra has the drivers of dynamic resource allocation prepare on the node
// what ResourceClaims were given (KEP-4381): drivers register (v1 and v1beta1), are
// asked before a pod's containers start and after its end, and name the CDI devices
// that containers get. What is prepared is kept in a file, so that it is taken back
// after a restart too. The agent's root wires it. It allocates nothing: the scheduler
// does.
package dra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	drav1 "k8s.io/kubelet/pkg/apis/dra/v1"

	"kaji/internal/client"
	"kaji/internal/kubelet/checkpoint"
	"kaji/internal/kubelet/plugin"
)

// patience bounds what a driver may take to answer.
const patience = 45 * time.Second

// services are what drivers may speak, the newest first. Their messages are the
// same on the wire.
func services() []string { return []string{"v1.DRAPlugin", "v1beta1.DRAPlugin"} }

// Device is one that a driver has prepared.
type Device struct {
	Driver, Pool, Device string
	// Requests are those of the claim that it is for; none means all.
	Requests []string `json:",omitempty"`
	CDI      []string `json:",omitempty"`
	Share    string   `json:",omitempty"`
}

// claim is a ResourceClaim that is prepared, or may be in part.
type claim struct {
	Namespace, Name string
	UID             types.UID
	Pods            []types.UID
	Drivers         []string
	Devices         []Device
	Prepared        bool
}

// Config is what a Manager needs.
type Config struct {
	Client client.Interface
	// Path is "<root>/dra_manager_state.json".
	Path   string
	Logger *slog.Logger
	// Took is told of each call of a driver.
	Took plugin.Took
}

// Manager prepares claims. It is safe for concurrent use.
type Manager struct {
	cfg Config

	// working serializes what drivers are asked.
	working sync.Mutex

	mu      sync.Mutex
	drivers map[string]*driver
	claims  map[string]*claim // by namespace and name
}

// driver is one that is connected. It does not change.
type driver struct {
	conn    *grpc.ClientConn
	service string
}

// New returns a Manager that knows what an earlier one prepared.
func New(cfg Config) *Manager {
	m := &Manager{cfg: cfg, drivers: map[string]*driver{}, claims: map[string]*claim{}}
	if _, err := checkpoint.Read(cfg.Path, &m.claims); err != nil {
		cfg.Logger.Error("what was prepared for claims is not known", "err", err)
		m.claims = map[string]*claim{}
	}
	return m
}

var _ plugin.Handler = (*Manager)(nil)

// Register implements plugin.Handler.
func (m *Manager) Register(_ context.Context, name, endpoint string, versions []string) error {
	at := slices.IndexFunc(services(), func(s string) bool { return slices.Contains(versions, s) })
	if at < 0 {
		return fmt.Errorf("DRA driver %s supports none of the gRPC services %v: %v", name, services(), versions)
	}
	conn, err := plugin.DialCounted(endpoint, name, m.cfg.Took)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.drivers[name]; old != nil {
		_ = old.conn.Close() // the new one takes over
	}
	m.drivers[name] = &driver{conn, services()[at]}
	return nil
}

// Deregister implements plugin.Handler.
func (m *Manager) Deregister(_ context.Context, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.drivers[name]; d != nil {
		_ = d.conn.Close() // nobody asks it any more
		delete(m.drivers, name)
	}
}

// call asks a driver.
func (m *Manager) call(ctx context.Context, name, method string, in, out any) error {
	m.mu.Lock()
	d := m.drivers[name]
	m.mu.Unlock()
	if d == nil {
		return fmt.Errorf("DRA driver %s is not registered", name)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return d.conn.Invoke(ctx, "/k8s.io.kubelet.pkg.apis.dra."+d.service+"/"+method, in, out)
}

// names are the claims of a pod by the name of the pod's entry; "" is the name of
// the one that its extended resources come by. A claim that is not there yet is an
// error.
func names(pod *corev1.Pod) (map[string]string, error) {
	out := map[string]string{}
	for _, c := range pod.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			out[c.Name] = *c.ResourceClaimName
			continue
		}
		at := slices.IndexFunc(pod.Status.ResourceClaimStatuses, func(s corev1.PodResourceClaimStatus) bool { return s.Name == c.Name })
		if at < 0 {
			return nil, fmt.Errorf("prepare dynamic resources: pod %q: ResourceClaim %q: ResourceClaim not created yet", pod.Namespace+"/"+pod.Name, c.Name)
		}
		if made := pod.Status.ResourceClaimStatuses[at].ResourceClaimName; made != nil { // nil: none was needed
			out[c.Name] = *made
		}
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		out[""] = s.ResourceClaimName
	}
	return out, nil
}

// Uses says whether a pod has claims at all.
func Uses(pod *corev1.Pod) bool {
	return len(pod.Spec.ResourceClaims) > 0 || pod.Status.ExtendedResourceClaimStatus != nil
}

// Prepare has drivers prepare the claims of a pod; nothing happens where they are.
func (m *Manager) Prepare(ctx context.Context, pod *corev1.Pod) error {
	if !Uses(pod) {
		return nil
	}
	all, err := names(pod)
	if err != nil {
		return err
	}
	m.working.Lock()
	defer m.working.Unlock()
	for _, entry := range slices.Sorted(maps.Keys(all)) {
		if err := m.prepare(ctx, pod, all[entry]); err != nil {
			return fmt.Errorf("prepare dynamic resources: %w", err)
		}
	}
	return nil
}

func (m *Manager) prepare(ctx context.Context, pod *corev1.Pod, name string) error {
	key := pod.Namespace + "/" + name
	m.mu.Lock()
	known := m.claims[key]
	ready := known != nil && known.Prepared && slices.Contains(known.Pods, pod.UID)
	m.mu.Unlock()
	if ready {
		return nil
	}
	rc, err := client.For[*resourcev1.ResourceClaim](m.cfg.Client).Get(ctx, pod.Namespace, name)
	if err != nil {
		return fmt.Errorf("fetch ResourceClaim %s: %w", name, err)
	}
	if !slices.ContainsFunc(rc.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == pod.UID }) {
		return fmt.Errorf("pod %s (%s) is not allowed to use ResourceClaim %s (%s)", pod.Name, pod.UID, name, rc.UID)
	}
	if rc.Status.Allocation == nil {
		return fmt.Errorf("ResourceClaim %s: claim is not allocated", name)
	}
	if known != nil && known.UID != rc.UID {
		return fmt.Errorf("old ResourceClaim with same name %s and different UID %s still exists (previous pod force-deleted?!)", name, known.UID)
	}
	next := &claim{Namespace: pod.Namespace, Name: name, UID: rc.UID}
	if known != nil {
		*next = *known
		next.Pods = slices.Clone(known.Pods)
	}
	if !slices.Contains(next.Pods, pod.UID) {
		next.Pods = append(next.Pods, pod.UID)
	}
	if !next.Prepared {
		next.Drivers, next.Devices = nil, nil
		for _, r := range rc.Status.Allocation.Devices.Results {
			if !slices.Contains(next.Drivers, r.Driver) {
				next.Drivers = append(next.Drivers, r.Driver)
			}
		}
	}
	if err := m.note(key, next); err != nil || next.Prepared { // before drivers act: they must be told of the end
		return err
	}
	done := *next
	for _, d := range next.Drivers {
		devices, err := m.ask(ctx, d, next)
		if err != nil {
			return err
		}
		done.Devices = append(done.Devices, devices...)
	}
	done.Prepared = true
	return m.note(key, &done)
}

// ask has one driver prepare a claim.
func (m *Manager) ask(ctx context.Context, name string, c *claim) ([]Device, error) {
	in, out := &drav1.NodePrepareResourcesRequest{Claims: []*drav1.Claim{{Namespace: c.Namespace, Name: c.Name, Uid: string(c.UID)}}}, &drav1.NodePrepareResourcesResponse{}
	if err := m.call(ctx, name, "NodePrepareResources", in, out); err != nil {
		return nil, fmt.Errorf("NodePrepareResources: %w", err)
	}
	answer, ok := out.GetClaims()[string(c.UID)]
	switch {
	case !ok:
		return nil, fmt.Errorf("NodePrepareResources skipped %d ResourceClaims", 1)
	case answer.GetError() != "":
		return nil, fmt.Errorf("NodePrepareResources failed for ResourceClaim %s: %s", c.Name, answer.GetError())
	}
	var devices []Device
	for _, d := range answer.GetDevices() {
		devices = append(devices, Device{Driver: name, Pool: d.GetPoolName(), Device: d.GetDeviceName(), Requests: d.GetRequestNames(), CDI: d.GetCdiDeviceIds(), Share: d.GetShareId()})
	}
	return devices, nil
}

// note keeps what is known of a claim, nil forgets it. Entries are replaced, never
// changed.
func (m *Manager) note(key string, c *claim) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c == nil {
		delete(m.claims, key)
	} else {
		m.claims[key] = c
	}
	if err := checkpoint.Write(m.cfg.Path, m.claims); err != nil {
		return fmt.Errorf("checkpoint ResourceClaim state: %w", err)
	}
	return nil
}

// Unprepare takes back what was prepared for a pod that is over, unless others use
// it.
func (m *Manager) Unprepare(ctx context.Context, uid types.UID) error {
	m.mu.Lock()
	mine := map[string]*claim{}
	for key, c := range m.claims {
		if slices.Contains(c.Pods, uid) {
			mine[key] = c
		}
	}
	m.mu.Unlock()
	if len(mine) == 0 {
		return nil
	}
	m.working.Lock()
	defer m.working.Unlock()
	var errs []error
	for key, c := range mine {
		m.mu.Lock()
		c = m.claims[key] // as it is now that it is our turn
		m.mu.Unlock()
		if c == nil {
			continue
		}
		next := *c
		next.Pods = slices.DeleteFunc(slices.Clone(c.Pods), func(p types.UID) bool { return p == uid })
		if len(next.Pods) > 0 {
			errs = append(errs, m.note(key, &next))
			continue
		}
		if err := m.unprepare(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("unprepare dynamic resources: %w", err))
			continue
		}
		errs = append(errs, m.note(key, nil))
	}
	return errors.Join(errs...)
}

func (m *Manager) unprepare(ctx context.Context, c *claim) error {
	in := &drav1.NodeUnprepareResourcesRequest{Claims: []*drav1.Claim{{Namespace: c.Namespace, Name: c.Name, Uid: string(c.UID)}}}
	for _, name := range c.Drivers {
		out := &drav1.NodeUnprepareResourcesResponse{}
		if err := m.call(ctx, name, "NodeUnprepareResources", in, out); err != nil {
			return fmt.Errorf("NodeUnprepareResources: %w", err)
		}
		answer, ok := out.GetClaims()[string(c.UID)]
		switch {
		case !ok:
			return fmt.Errorf("NodeUnprepareResources skipped %d ResourceClaims", 1)
		case answer.GetError() != "":
			return fmt.Errorf("NodeUnprepareResources failed for ResourceClaim %s: %s", c.Name, answer.GetError())
		}
	}
	return nil
}

// Keep takes back what was prepared for all pods but some.
func (m *Manager) Keep(ctx context.Context, known func(types.UID) bool) {
	m.mu.Lock()
	over := map[types.UID]bool{}
	for _, c := range m.claims {
		for _, uid := range c.Pods {
			if !known(uid) {
				over[uid] = true
			}
		}
	}
	m.mu.Unlock()
	for uid := range over {
		if err := m.Unprepare(ctx, uid); err != nil {
			m.cfg.Logger.Warn("what was prepared for a pod that is gone is still there", "pod", uid, "err", err)
		}
	}
}

// Claimed is what a container has of one claim.
type Claimed struct {
	Namespace, Name string
	Devices         []Device
}

// Devices are those of a container, by claim.
func (m *Manager) Devices(pod *corev1.Pod, c *corev1.Container) []Claimed {
	if !Uses(pod) {
		return nil
	}
	all, err := names(pod)
	if err != nil {
		return nil
	}
	var out []Claimed
	add := func(entry, request string) {
		m.mu.Lock()
		known := m.claims[pod.Namespace+"/"+all[entry]]
		m.mu.Unlock()
		if known == nil || !known.Prepared {
			return
		}
		one := Claimed{Namespace: known.Namespace, Name: known.Name}
		for _, d := range known.Devices {
			if request == "" || len(d.Requests) == 0 || slices.ContainsFunc(d.Requests, func(r string) bool { return r == request || strings.HasPrefix(r, request+"/") }) {
				one.Devices = append(one.Devices, d)
			}
		}
		out = append(out, one)
	}
	for _, r := range c.Resources.Claims {
		if _, ok := all[r.Name]; ok {
			add(r.Name, r.Request)
		}
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		for _, r := range s.RequestMappings {
			if r.ContainerName == c.Name {
				add("", r.RequestName)
			}
		}
	}
	return out
}
