// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/kubelet/podspec"
)

// ManagerConfig is what a Manager needs.
type ManagerConfig struct {
	// PodsDir is "<root>/pods".
	PodsDir string
	Drivers []Driver
	// Resized is told how it went when a volume of a pod had grown; nil tells nobody.
	Resized func(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, name string, err error)
	// Label is the SELinux label of files; nil where the machine has no SELinux.
	Label func(*corev1.SELinuxOptions) (string, error)
	// Took is told how long it took a driver to make a volume ready that was not, or to
	// take it away ("volume_mount", "volume_unmount"), and how it went; nil tells nobody.
	Took func(driver, operation string, took time.Duration, err error)
	// Client reads claims and persistent volumes, and writes the sizes of claims.
	Client client.Interface
	Logger *slog.Logger
	// Warn sends an event about a pod; nil sends none.
	Warn func(pod *corev1.Pod, reason, message string)
}

// Manager makes volumes ready. Its methods are safe for concurrent use for
// different pods.
type Manager struct {
	cfg ManagerConfig
	mu  struct {
		sync.Mutex
		mounted map[types.UID]map[string]Mounted
		// ready are volumes that were made ready, whatever became of the pod's others.
		ready map[types.UID]map[string]bool
		// sources are the claims of volumes that are mounted: they stay bound.
		sources map[types.UID]map[string]Source
	}
}

// NewManager returns a manager.
func NewManager(cfg ManagerConfig) *Manager {
	m := &Manager{cfg: cfg}
	m.mu.mounted = map[types.UID]map[string]Mounted{}
	m.mu.ready = map[types.UID]map[string]bool{}
	m.mu.sources = map[types.UID]map[string]Source{}
	return m
}

// Dir is where a volume of a driver lies.
func (m *Manager) Dir(uid types.UID, driver, name string) string {
	return filepath.Join(m.cfg.PodsDir, string(uid), "volumes", escape(driver), name)
}

func escape(driver string) string   { return strings.ReplaceAll(driver, "/", "~") }
func unescape(folder string) string { return strings.ReplaceAll(folder, "~", "/") }

// Setup makes all volumes of a pod ready that its containers use. It may be
// called again at any time and brings contents up to date.
func (m *Manager) Setup(ctx context.Context, pod *corev1.Pod) error {
	used := usedVolumes(pod)
	mounted := make(map[string]Mounted, len(pod.Spec.Volumes))
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if !used[v.Name] {
			continue
		}
		one, err := m.setup(ctx, pod, v)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		mounted[v.Name] = one
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.mounted[pod.UID] = mounted
	return nil
}

func usedVolumes(pod *corev1.Pod) map[string]bool {
	used := map[string]bool{}
	for _, c := range podspec.Containers(pod) {
		for _, mount := range c.VolumeMounts {
			used[mount.Name] = true
		}
		for _, device := range c.VolumeDevices {
			used[device.Name] = true
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil {
				used[e.ValueFrom.FileKeyRef.VolumeName] = true
			}
		}
	}
	return used
}

// unmounted are the names of the volumes that a pod waits for.
func (m *Manager) unmounted(pod *corev1.Pod) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Collect(maps.Keys(usedVolumes(pod)))
	names = slices.DeleteFunc(names, func(name string) bool {
		_, ok := m.mu.mounted[pod.UID][name]
		return ok
	})
	slices.Sort(names)
	return names
}

func (m *Manager) setup(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (Mounted, error) {
	m.mu.Lock()
	source, kept := m.mu.sources[pod.UID][v.Name]
	m.mu.Unlock()
	var err error
	if !kept {
		source, err = m.resolve(ctx, pod, v)
	}
	if err != nil {
		return Mounted{}, &Error{"FailedMount", fmt.Sprintf("Unable to attach or mount volumes: unmounted volumes=%v, unattached volumes=[], failed to process volumes=[%s]: %v",
			m.unmounted(pod), v.Name, err)}
	}
	for _, d := range m.cfg.Drivers {
		if !d.Handles(source) {
			continue
		}
		name := v.Name
		if source.Persistent != nil {
			name = source.Persistent.Name
		}
		r := Request{Pod: pod, Source: source, Dir: m.Dir(pod.UID, d.Name(), name)}
		r.Label = m.cfg.Label
		if m.cfg.Warn != nil {
			r.Warn = func(reason, message string) { m.cfg.Warn(pod, reason, message) }
		}
		if s := pod.Spec.SecurityContext; s != nil {
			r.FSGroup = s.FSGroup
		}
		begun := time.Now()
		mounted, err := d.Setup(ctx, r)
		if m.cfg.Took != nil && m.first(pod.UID, v.Name, err) {
			m.cfg.Took(d.Name(), "volume_mount", time.Since(begun), err)
		}
		if err != nil {
			var shown *Error
			if errors.As(err, &shown) && shown.Reason == AttachLimit {
				return mounted, &Error{AttachLimit, fmt.Sprintf("Node has reached its volume attachment limit, rejecting pod. unmounted volumes=%v, unattached volumes=[%s], failed to process volumes=[]: %s",
					m.unmounted(pod), v.Name, shown.Message)}
			}
			if shown != nil {
				return mounted, shown
			}
			if source.Block() {
				return mounted, &Error{"FailedMapVolume", fmt.Sprintf("MapVolume.SetUpDevice failed for volume %q : %v", name, err)}
			}
			return mounted, &Error{"FailedMount", fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", name, err)}
		}
		if source.Persistent != nil && !kept {
			m.mu.Lock()
			if m.mu.sources[pod.UID] == nil {
				m.mu.sources[pod.UID] = map[string]Source{}
			}
			m.mu.sources[pod.UID][v.Name] = source
			m.mu.Unlock()
			if err := m.expand(ctx, pod, source); err != nil {
				m.cfg.Logger.Warn("a volume does not use its new size yet", "volume", name, "err", err)
			}
		}
		mounted.Driver = d.Name()
		return mounted, nil
	}
	return Mounted{}, &Error{"FailedMount", fmt.Sprintf("MountVolume.SetUp failed for volume %q : no volume plugin matched", v.Name)}
}

// resolve follows a claim to its persistent volume.
func (m *Manager) resolve(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (Source, error) {
	s := Source{Name: v.Name, Volume: v}
	claim := ""
	switch {
	case v.PersistentVolumeClaim != nil:
		claim, s.ReadOnly = v.PersistentVolumeClaim.ClaimName, v.PersistentVolumeClaim.ReadOnly
	case v.Ephemeral != nil:
		claim = pod.Name + "-" + v.Name
	default:
		return s, nil
	}
	pvc, err := client.For[*corev1.PersistentVolumeClaim](m.cfg.Client).Get(ctx, pod.Namespace, claim)
	if err != nil {
		return s, fmt.Errorf("error processing PVC %s/%s: failed to fetch PVC from API server: %w", pod.Namespace, claim, err)
	}
	if v.Ephemeral != nil && !metav1.IsControlledBy(pvc, pod) {
		return s, fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", pvc.Namespace, pvc.Name, pod.Namespace, pod.Name)
	}
	if pvc.DeletionTimestamp != nil {
		return s, fmt.Errorf("error processing PVC %s/%s: PVC is being deleted", pvc.Namespace, pvc.Name)
	}
	if pvc.Status.Phase != corev1.ClaimBound || pvc.Spec.VolumeName == "" {
		return s, fmt.Errorf("error processing PVC %s/%s: PVC is not bound", pvc.Namespace, pvc.Name)
	}
	pv, err := client.For[*corev1.PersistentVolume](m.cfg.Client).Get(ctx, "", pvc.Spec.VolumeName)
	if err != nil {
		return s, fmt.Errorf("failed to fetch PV %s from API server: %w", pvc.Spec.VolumeName, err)
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != pvc.UID {
		return s, fmt.Errorf("PVC %s/%s: bound volume %q is claimed by another PVC", pvc.Namespace, pvc.Name, pv.Name)
	}
	s.Claim, s.Persistent = pvc, pv
	return s, nil
}

// Mounted returns where a volume of a pod is, once Setup has succeeded.
func (m *Manager) Mounted(uid types.UID, name string) (Mounted, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one, ok := m.mu.mounted[uid][name]
	return one, ok
}

// Again is when a pod's volumes are to be looked at again; zero is never.
func (m *Manager) Again(uid types.UID) (at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.mu.mounted[uid] {
		if at.IsZero() || !one.Again.IsZero() && one.Again.Before(at) {
			at = one.Again
		}
	}
	return at
}

// Teardown takes away all volumes of a pod, as its directory shows them.
func (m *Manager) Teardown(ctx context.Context, uid types.UID) error {
	m.mu.Lock()
	delete(m.mu.mounted, uid)
	delete(m.mu.ready, uid)
	delete(m.mu.sources, uid)
	m.mu.Unlock()
	root := filepath.Join(m.cfg.PodsDir, string(uid), "volumes")
	folders, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the volumes of pod %s: %w", uid, err)
	}
	var errs []error
	for _, folder := range folders {
		d := m.driver(unescape(folder.Name()))
		names, err := os.ReadDir(filepath.Join(root, folder.Name()))
		if err != nil {
			return fmt.Errorf("read the volumes of pod %s: %w", uid, err)
		}
		if d == nil && len(names) > 0 {
			// What is mounted there must not be taken for files of the pod.
			errs = append(errs, fmt.Errorf("pod %s has volumes of the unknown driver %s", uid, folder.Name()))
			continue
		}
		for _, name := range names {
			dir := filepath.Join(root, folder.Name(), name.Name())
			begun := time.Now()
			err := d.Teardown(ctx, dir, string(uid), name.Name())
			if m.cfg.Took != nil {
				m.cfg.Took(d.Name(), "volume_unmount", time.Since(begun), err)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("UnmountVolume.TearDown failed for volume %q: %w", name.Name(), err))
			}
		}
	}
	return errors.Join(errs...)
}

// first says whether a volume was not ready before, and notes that it is if err is nil.
func (m *Manager) first(uid types.UID, name string, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.ready[uid][name] {
		return false
	}
	if err == nil {
		if m.mu.ready[uid] == nil {
			m.mu.ready[uid] = map[string]bool{}
		}
		m.mu.ready[uid][name] = true
	}
	return true
}

// Count is how many volumes are mounted, by their driver.
func (m *Manager) Count() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]int{}
	for _, volumes := range m.mu.mounted {
		for _, one := range volumes {
			out[one.Driver]++
		}
	}
	return out
}

func (m *Manager) driver(name string) Driver {
	for _, d := range m.cfg.Drivers {
		if d.Name() == name {
			return d
		}
	}
	return nil
}
