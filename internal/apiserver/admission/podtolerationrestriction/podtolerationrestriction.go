// SPDX-License-Identifier: Apache-2.0

// Package podtolerationrestriction is the admission plug-in
// PodTolerationRestriction: pods get the tolerations that their namespace, or the
// configuration, names, and may have no others than those allowed there.
//
// The API server's admission chain calls it.
package podtolerationrestriction

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/podspec"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/admission/toleration"
)

// Name is what the plug-in is enabled and configured by.
const Name = "PodTolerationRestriction"

// The annotations of namespaces.
const (
	givenAnnotation   = "scheduler.alpha.kubernetes.io/defaultTolerations"
	allowedAnnotation = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

// configuration is what holds for namespaces that do not say.
type configuration struct {
	metav1.TypeMeta `json:",inline"`
	Default         []corev1.Toleration `json:"default,omitempty"`
	Whitelist       []corev1.Toleration `json:"whitelist,omitempty"`
}

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct {
	read    admission.Reader
	cluster configuration
}

var (
	_ admission.Mutator   = (*Plugin)(nil)
	_ admission.Validator = (*Plugin)(nil)
)

// New returns the plug-in; it reads namespaces from read. given is a
// Configuration of podtolerationrestriction.admission.k8s.io/v1alpha1 or empty.
func New(read admission.Reader, given []byte) (*Plugin, error) {
	p := &Plugin{read: read}
	if len(given) == 0 {
		return p, nil
	}
	if err := admission.Configuration(given, "podtolerationrestriction.admission.k8s.io/v1alpha1", "Configuration", &p.cluster); err != nil {
		return nil, err
	}
	path := field.NewPath("podtolerationrestriction")
	errs := podspec.ValidateTolerations(p.cluster.Default, path.Child("default"))
	errs = append(errs, podspec.ValidateTolerations(p.cluster.Whitelist, path.Child("whitelist"))...)
	if len(errs) > 0 {
		return nil, fmt.Errorf("invalid config: %v", errs)
	}
	return p, nil
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	pod := a.Pod()
	if pod == nil {
		return nil
	}
	var extra []corev1.Toleration
	if a.Operation == admission.Create {
		given, said, err := p.ofNamespace(ctx, a.Namespace, givenAnnotation)
		if err != nil {
			return err
		}
		if !said {
			given = p.cluster.Default
		}
		extra = append(extra, given...)
	}
	if podspec.QOSClass(pod) != corev1.PodQOSBestEffort {
		extra = append(extra, corev1.Toleration{
			Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule,
		})
	}
	if len(extra) > 0 {
		pod.Spec.Tolerations = toleration.Merge(pod.Spec.Tolerations, extra)
	}
	return p.Validate(ctx, a)
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	pod := a.Pod()
	if pod == nil || len(pod.Spec.Tolerations) == 0 {
		return nil
	}
	scope := "namespace"
	allowed, said, err := p.ofNamespace(ctx, a.Namespace, allowedAnnotation)
	if err != nil {
		return err
	}
	if !said {
		scope, allowed = "cluster", p.cluster.Whitelist
	}
	if !toleration.Within(pod.Spec.Tolerations, allowed) {
		return fmt.Errorf("pod tolerations (possibly merged with namespace default tolerations) conflict with its %s whitelist", scope)
	}
	return nil
}

// ofNamespace returns the tolerations of a namespace's annotation; said is false
// when it has none.
func (p *Plugin) ofNamespace(ctx context.Context, name, annotation string) (list []corev1.Toleration, said bool, err error) {
	ns, found, err := admission.Find[*corev1.Namespace](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Namespace"), "", name)
	if err != nil {
		return nil, false, apierrors.NewInternalError(err)
	}
	if !found {
		return nil, false, apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	}
	text, said := ns.Annotations[annotation]
	if text == "" {
		return nil, said, nil
	}
	err = json.Unmarshal([]byte(text), &list)
	return list, true, err
}
