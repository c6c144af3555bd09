// SPDX-License-Identifier: Apache-2.0

package noderestriction

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	kubelet "k8s.io/kubelet/pkg/apis"

	"kaji/internal/apiserver/admission"
)

func judgeNode(a *admission.Attributes, name string) error {
	if a.Name != name {
		return fmt.Errorf("node %q is not allowed to modify node %q", name, a.Name)
	}
	switch a.Operation {
	case admission.Create:
		node, ok := a.Object.(*corev1.Node)
		if !ok {
			return unexpected(a.Object)
		}
		if node.Spec.ConfigSource != nil {
			return fmt.Errorf("node %q is not allowed to create pods with a non-nil configSource", name)
		}
		if bad := forbidden(changed(node.Labels, nil)); len(bad) > 0 {
			return fmt.Errorf("node %q is not allowed to set the following labels: %s", name, strings.Join(bad, ", "))
		}
	case admission.Update:
		node, ok := a.Object.(*corev1.Node)
		if !ok {
			return unexpected(a.Object)
		}
		old, ok := a.Old.(*corev1.Node)
		if !ok {
			return unexpected(a.Old)
		}
		return judgeNodeUpdate(node, old, name)
	}
	return nil
}

func judgeNodeUpdate(node, old *corev1.Node, name string) error {
	if node.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(node.Spec.ConfigSource, old.Spec.ConfigSource) {
		return fmt.Errorf("node %q is not allowed to update configSource to a new non-nil configSource", name)
	}
	if !equality.Semantic.DeepEqual(node.Spec.Taints, old.Spec.Taints) {
		return fmt.Errorf("node %q is not allowed to modify taints", name)
	}
	// A node that gives itself an owner decides when it is collected.
	if !equality.Semantic.DeepEqual(node.OwnerReferences, old.OwnerReferences) {
		return fmt.Errorf("node %q is not allowed to modify ownerReferences", name)
	}
	if bad := forbidden(changed(node.Labels, old.Labels)); len(bad) > 0 {
		return fmt.Errorf("is not allowed to modify labels: %s", strings.Join(bad, ", "))
	}
	return nil
}

// changed returns the labels that differ.
func changed(now, old map[string]string) (keys []string) {
	for key, value := range now {
		if was, had := old[key]; !had || was != value {
			keys = append(keys, key)
		}
	}
	for key := range old {
		if _, has := now[key]; !has {
			keys = append(keys, key)
		}
	}
	return keys
}

// forbidden returns the labels that no kubelet may touch: those that are
// reserved for administrators, and Kubernetes' own but for what kubelets report.
func forbidden(keys []string) (bad []string) {
	for _, key := range keys {
		domain, _, ok := strings.Cut(key, "/")
		if !ok {
			continue
		}
		if within(domain, corev1.LabelNamespaceNodeRestriction) ||
			(within(domain, "kubernetes.io") || within(domain, "k8s.io")) && !kubelet.IsKubeletLabel(key) {
			bad = append(bad, key)
		}
	}
	slices.Sort(bad)
	return bad
}

func within(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

// judgeClaimStatus lets a node report how far a volume was grown, nothing else.
func judgeClaimStatus(a *admission.Attributes, node string) error {
	if a.Operation != admission.Update {
		return fmt.Errorf("unexpected operation %q", a.Operation)
	}
	old, ok := a.Old.(*corev1.PersistentVolumeClaim)
	if !ok {
		return unexpected(a.Old)
	}
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok {
		return unexpected(a.Object)
	}
	old, claim = rest(old), rest(claim)
	if !equality.Semantic.DeepEqual(old, claim) {
		return fmt.Errorf("node %q is not allowed to update fields other than status.quantity and status.conditions: %v", node, diff.Diff(old, claim))
	}
	return nil
}

// rest is a claim without what a node may change.
func rest(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	c := claim.DeepCopy()
	c.ResourceVersion, c.ManagedFields = "", nil
	c.Status.Capacity, c.Status.Conditions = nil, nil
	c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
	return c
}

// judgeSlice leaves updates to the node authorizer: a slice never changes its
// node.
func judgeSlice(a *admission.Attributes, node string) error {
	switch a.Operation {
	case admission.Create:
		slice, ok := a.Object.(*resourcev1.ResourceSlice)
		if !ok {
			return unexpected(a.Object)
		}
		if slice.Spec.NodeName == nil || *slice.Spec.NodeName != node {
			return errors.New("can only create ResourceSlice with the same NodeName as the requesting node")
		}
	case admission.Delete:
		slice, ok := a.Old.(*resourcev1.ResourceSlice)
		if !ok {
			return unexpected(a.Old)
		}
		if slice.Spec.NodeName == nil || *slice.Spec.NodeName != node {
			return errors.New("can only delete ResourceSlice with the same NodeName as the requesting node")
		}
	}
	return nil
}
