// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"kaji/internal/client"
)

// Expander is a Driver whose volumes may have to be told on the node that they
// have grown.
type Expander interface {
	// Expand makes a mounted volume use a size. It succeeds where the driver has
	// nothing to do.
	Expand(ctx context.Context, r Request, size resource.Quantity) error
}

// Resize looks whether volumes of a pod have grown, and has their drivers use the
// new size. What failed is tried again at the next call.
func (m *Manager) Resize(ctx context.Context, pod *corev1.Pod) error {
	m.mu.Lock()
	sources := maps.Clone(m.mu.sources[pod.UID])
	m.mu.Unlock()
	var errs []error
	for _, s := range sources {
		if d := m.expander(s); d == nil {
			continue
		}
		claim, err := client.For[*corev1.PersistentVolumeClaim](m.cfg.Client).Get(ctx, s.Claim.Namespace, s.Claim.Name)
		if err != nil || claim.UID != s.Claim.UID || !grows(claim) {
			errs = append(errs, err)
			continue
		}
		s.Claim = claim
		if s.Persistent, err = client.For[*corev1.PersistentVolume](m.cfg.Client).Get(ctx, "", s.Persistent.Name); err == nil {
			err = m.expand(ctx, pod, s)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// grows says whether a claim asks for more than its volume is known to have.
func grows(claim *corev1.PersistentVolumeClaim) bool {
	wanted, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	return wanted.Cmp(has) > 0 && claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage] != corev1.PersistentVolumeClaimNodeResizeInfeasible
}

func (m *Manager) expander(s Source) Expander {
	if s.Claim == nil || s.Persistent == nil || s.ReadOnly {
		return nil
	}
	for _, d := range m.cfg.Drivers {
		if d.Handles(s) {
			e, _ := d.(Expander)
			return e
		}
	}
	return nil
}

// expand has a volume use the size that it has by now, and notes that it does.
func (m *Manager) expand(ctx context.Context, pod *corev1.Pod, s Source) error {
	e := m.expander(s)
	if e == nil || !grows(s.Claim) {
		return nil
	}
	size, known := s.Persistent.Spec.Capacity[corev1.ResourceStorage], s.Claim.Status.Capacity[corev1.ResourceStorage]
	if size.Cmp(known) <= 0 {
		return nil // the storage itself has not grown yet
	}
	d, _ := e.(Driver)
	err := e.Expand(ctx, Request{Pod: pod, Source: s, Dir: m.Dir(pod.UID, d.Name(), s.Persistent.Name)}, size)
	if err == nil {
		err = m.resized(ctx, s.Claim, size)
	}
	if m.cfg.Resized != nil {
		m.cfg.Resized(pod, s.Claim, s.Persistent.Name, err)
	}
	return err
}

// resized writes the size that a volume has now to the status of its claim.
func (m *Manager) resized(ctx context.Context, claim *corev1.PersistentVolumeClaim, size resource.Quantity) error {
	conditions := []corev1.PersistentVolumeClaimCondition{}
	for _, c := range claim.Status.Conditions {
		switch c.Type {
		case corev1.PersistentVolumeClaimResizing, corev1.PersistentVolumeClaimFileSystemResizePending,
			corev1.PersistentVolumeClaimControllerResizeError, corev1.PersistentVolumeClaimNodeResizeError:
		default:
			conditions = append(conditions, c)
		}
	}
	status := map[string]any{"capacity": map[string]any{"storage": size.String()}, "conditions": conditions}
	if len(claim.Status.AllocatedResourceStatuses) > 0 {
		status["allocatedResourceStatuses"] = map[string]any{"storage": nil}
	}
	_, err := client.For[*corev1.PersistentVolumeClaim](m.cfg.Client).MergePatch(ctx, claim.Namespace, claim.Name, map[string]any{"status": status}, "status")
	if err != nil {
		return fmt.Errorf("mountVolume.NodeExpandVolume update pvc status failed: %w", err)
	}
	return nil
}
