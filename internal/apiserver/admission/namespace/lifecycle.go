// SPDX-License-Identifier: Apache-2.0

// Package namespace is the admission plug-ins about the namespace of a request:
// NamespaceLifecycle keeps new objects out of namespaces that do not exist or
// are being deleted, and three namespaces from being deleted at all;
// NamespaceExists asks for the namespace on every write; NamespaceAutoProvision
// makes it when it is missing.
//
// The API server's admission chain calls them.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver/admission"
)

// LifecycleName is what the plug-in Lifecycle is enabled by.
const LifecycleName = "NamespaceLifecycle"

// doubtful is how long the cache is not believed about a namespace that was
// deleted.
const doubtful = 30 * time.Second

// Lifecycle is the admission plug-in NamespaceLifecycle. It is safe for
// concurrent use.
type Lifecycle struct {
	read admission.Reader

	mu      sync.Mutex
	deleted map[string]time.Time // when deletions were asked for, by name
}

var _ admission.Mutator = (*Lifecycle)(nil)

// NewLifecycle returns the plug-in; it reads namespaces from read.
func NewLifecycle(read admission.Reader) *Lifecycle {
	return &Lifecycle{read: read, deleted: map[string]time.Time{}}
}

// Name implements admission.Plugin.
func (l *Lifecycle) Name() string { return LifecycleName }

// Handles implements admission.Plugin. Connections are let through: what they
// lead to exists in a namespace.
func (l *Lifecycle) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Delete
}

// Mutate implements admission.Mutator. It changes nothing, but refuses before
// other plug-ins work on what cannot be.
func (l *Lifecycle) Mutate(ctx context.Context, a *admission.Attributes) error {
	if isNamespace(a) {
		if a.Operation == admission.Delete && a.Subresource == "" {
			return l.deleting(a)
		}
		return nil
	}
	if a.Namespace == "" || a.Operation != admission.Create || a.Is("authorization.k8s.io", "localsubjectaccessreviews", "") {
		return nil
	}
	if l.inDoubt(a.Namespace) {
		if _, err := l.read.Cache.WaitNewest(ctx); err != nil {
			return apierrors.NewInternalError(err)
		}
	}
	ns, err := find(ctx, l.read, a.Namespace)
	if err != nil || ns.Status.Phase != corev1.NamespaceTerminating {
		return err
	}
	err = a.Forbidden(fmt.Errorf("unable to create new content in namespace %s because it is being terminated", a.Namespace))
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{
			Type:    corev1.NamespaceTerminatingCause,
			Message: fmt.Sprintf("namespace %s is being terminated", a.Namespace),
			Field:   "metadata.namespace",
		})
	}
	return err
}

func isNamespace(a *admission.Attributes) bool {
	return a.Resource.Resource == "namespaces" && a.Resource.Group == ""
}

// deleting refuses to delete what a cluster cannot be without.
func (l *Lifecycle) deleting(a *admission.Attributes) error {
	switch a.Name {
	case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
		return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, errors.New("this namespace may not be deleted"))
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, at := range l.deleted {
		if now.Sub(at) > doubtful {
			delete(l.deleted, name)
		}
	}
	l.deleted[a.Name] = now
	return nil
}

func (l *Lifecycle) inDoubt(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.deleted[name]
	return ok && time.Since(at) <= doubtful
}

// find returns a namespace, shared, or NotFound.
func find(ctx context.Context, read admission.Reader, name string) (*corev1.Namespace, error) {
	ns, found, err := admission.Find[*corev1.Namespace](ctx, read, corev1.SchemeGroupVersion.WithKind("Namespace"), "", name)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if !found {
		return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	}
	return ns, nil
}
