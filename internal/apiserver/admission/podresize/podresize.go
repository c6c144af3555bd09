// SPDX-License-Identifier: Apache-2.0

// Package podresize is the admission plug-in PodResizeValidator: a running pod
// is not given more than its node could ever have.
//
// The API server's admission chain calls it.
package podresize

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/resource"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "PodResizeValidator"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ read admission.Reader }

var _ admission.Validator = (*Plugin)(nil)

// New returns the plug-in; it reads nodes from read.
func New(read admission.Reader) *Plugin { return &Plugin{read: read} }

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op == admission.Update }

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if !a.Is("", "pods", "resize") {
		return nil
	}
	pod, is := a.Object.(*corev1.Pod)
	old, was := a.Old.(*corev1.Pod)
	if !is || !was || pod.Spec.NodeName == "" || pod.Generation == old.Generation {
		return nil
	}
	node, found, err := admission.Find[*corev1.Node](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Node"), "", pod.Spec.NodeName)
	if err != nil {
		return a.Forbidden(fmt.Errorf("failed to get node %q: %w", pod.Spec.NodeName, err))
	}
	if !found {
		return a.Forbidden(fmt.Errorf("node %q not found", pod.Spec.NodeName))
	}
	if os, said := node.Labels[corev1.LabelOSStable]; said && os != string(corev1.Linux) {
		return refusal(a, fmt.Errorf("pod resize is only supported on linux nodes, node %q is %q", node.Name, os), "UnsupportedPlatform")
	}
	if err := fits(pod, node.Status.Allocatable); err != nil {
		return refusal(a, err, "NodeCapacity")
	}
	return nil
}

// fits says what of a pod's requests is more than a node has.
func fits(pod *corev1.Pod, allocatable corev1.ResourceList) error {
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	var short []string
	if want, has := requests.Cpu(), allocatable.Cpu(); want.Cmp(*has) > 0 {
		short = append(short, fmt.Sprintf("cpu, requested: %d, allocatable: %d", want.MilliValue(), has.MilliValue()))
	}
	if want, has := requests.Memory(), allocatable.Memory(); want.Cmp(*has) > 0 {
		short = append(short, fmt.Sprintf("memory, requested: %d, allocatable: %d", want.Value(), has.Value()))
	}
	if len(short) == 0 {
		return nil
	}
	return fmt.Errorf("node didn't have enough allocatable resources: %s", strings.Join(short, "; "))
}

func refusal(a *admission.Attributes, why error, cause metav1.CauseType) error {
	err := a.Forbidden(why)
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	}
	return err
}
