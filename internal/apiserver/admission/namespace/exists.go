// SPDX-License-Identifier: Apache-2.0

package namespace

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver/admission"
	"kaji/internal/client"
)

// The names that the plug-ins are enabled by.
const (
	ExistsName        = "NamespaceExists"
	AutoProvisionName = "NamespaceAutoProvision"
)

// Exists is the admission plug-in NamespaceExists. It is safe for concurrent
// use.
type Exists struct{ read admission.Reader }

var _ admission.Validator = (*Exists)(nil)

// NewExists returns the plug-in; it reads namespaces from read.
func NewExists(read admission.Reader) *Exists { return &Exists{read: read} }

// Name implements admission.Plugin.
func (e *Exists) Name() string { return ExistsName }

// Handles implements admission.Plugin.
func (e *Exists) Handles(op admission.Operation) bool { return op != admission.Connect }

// Validate implements admission.Validator.
func (e *Exists) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Namespace == "" || isNamespace(a) {
		return nil
	}
	_, err := find(ctx, e.read, a.Namespace)
	return err
}

// AutoProvision is the admission plug-in NamespaceAutoProvision. It is safe for
// concurrent use.
type AutoProvision struct {
	read   admission.Reader
	client client.Verbs
}

var _ admission.Mutator = (*AutoProvision)(nil)

// NewAutoProvision returns the plug-in; it reads namespaces from read and
// creates them by verbs.
func NewAutoProvision(read admission.Reader, verbs client.Verbs) *AutoProvision {
	return &AutoProvision{read: read, client: verbs}
}

// Name implements admission.Plugin.
func (p *AutoProvision) Name() string { return AutoProvisionName }

// Handles implements admission.Plugin.
func (p *AutoProvision) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (p *AutoProvision) Mutate(ctx context.Context, a *admission.Attributes) error {
	if a.DryRun || a.Namespace == "" || isNamespace(a) {
		return nil
	}
	if _, err := find(ctx, p.read, a.Namespace); !apierrors.IsNotFound(err) {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.Namespace}}
	r := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("namespaces")}
	if _, err := p.client.Create(ctx, r, "", ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return a.Forbidden(err)
	}
	return nil
}
