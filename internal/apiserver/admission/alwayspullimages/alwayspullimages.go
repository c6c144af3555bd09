// SPDX-License-Identifier: Apache-2.0

// Package alwayspullimages is the admission plug-in AlwaysPullImages: images are
// pulled whenever a container starts, so that whoever uses an image that a node
// has already shows that he may.
//
// The API server's admission chain calls it. A pod that runs keeps its policy as
// long as its images stay the same.
package alwayspullimages

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "AlwaysPullImages"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{}

var (
	_ admission.Mutator   = Plugin{}
	_ admission.Validator = Plugin{}
)

// Name implements admission.Plugin.
func (Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Mutate implements admission.Mutator.
func (Plugin) Mutate(_ context.Context, a *admission.Attributes) error {
	pod := a.Pod()
	if pod == nil || sameImages(a, pod) {
		return nil
	}
	for _, c := range admission.Containers(pod) {
		c.ImagePullPolicy = corev1.PullAlways
	}
	for i := range pod.Spec.Volumes {
		if image := pod.Spec.Volumes[i].Image; image != nil {
			image.PullPolicy = corev1.PullAlways
		}
	}
	return nil
}

// Validate implements admission.Validator: plug-ins behind may have changed it.
func (Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	pod := a.Pod()
	if pod == nil || sameImages(a, pod) {
		return nil
	}
	var errs []error
	judge := func(path *field.Path, policy corev1.PullPolicy) {
		if policy != corev1.PullAlways {
			errs = append(errs, a.Forbidden(field.NotSupported(path, policy, []string{string(corev1.PullAlways)})))
		}
	}
	for path, c := range admission.Containers(pod) {
		judge(path.Child("imagePullPolicy"), c.ImagePullPolicy)
	}
	for i := range pod.Spec.Volumes {
		if image := pod.Spec.Volumes[i].Image; image != nil {
			judge(field.NewPath("spec", "volumes").Index(i).Child("image", "pullPolicy"), image.PullPolicy)
		}
	}
	return utilerrors.NewAggregate(errs)
}

// sameImages says whether an update names no image that the pod had not.
func sameImages(a *admission.Attributes, pod *corev1.Pod) bool {
	old, ok := a.Old.(*corev1.Pod)
	if a.Operation != admission.Update || !ok {
		return false
	}
	had := map[string]bool{}
	for _, c := range admission.Containers(old) {
		had[c.Image] = true
	}
	for _, c := range admission.Containers(pod) {
		if !had[c.Image] {
			return false
		}
	}
	return true
}
