// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	upstream "k8s.io/apiserver/pkg/admission"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"

	"kaji/internal/apiserver/admission"
)

// attributes are ours as upstream's plug-ins see them. Annotations go to the
// audit event of the request.
type attributes struct {
	upstream.Attributes
	ctx context.Context
}

func attributesOf(ctx context.Context, a *admission.Attributes) upstream.Attributes {
	// A nil of a concrete type would not be nil to the plug-ins.
	var object, old runtime.Object
	if a.Object != nil {
		object = a.Object
	}
	if a.Old != nil {
		old = a.Old
	}
	return &attributes{ctx: ctx, Attributes: upstream.NewAttributesRecord(
		object, old, a.Kind, a.Namespace, a.Name, a.Resource, a.Subresource,
		upstream.Operation(a.Operation), a.Options, a.DryRun, a.User,
	)}
}

// AddAnnotation implements upstream's admission.Attributes.
func (a *attributes) AddAnnotation(key, value string) error {
	return a.AddAnnotationWithLevel(key, value, auditinternal.LevelMetadata)
}

// AddAnnotationWithLevel implements upstream's admission.Attributes.
func (a *attributes) AddAnnotationWithLevel(key, value string, level auditinternal.Level) error {
	if err := a.Attributes.AddAnnotationWithLevel(key, value, level); err != nil {
		return err
	}
	if event := audit.AuditContextFrom(a.ctx); event != nil && event.GetEventLevel().GreaterOrEqual(level) {
		audit.AddAuditAnnotation(a.ctx, key, value)
	}
	return nil
}

type attributesKey struct{}

// withAttributes remembers our attributes for plug-ins that are run again.
func withAttributes(ctx context.Context, a *admission.Attributes) context.Context {
	return context.WithValue(ctx, attributesKey{}, a)
}

func attributesFrom(ctx context.Context) *admission.Attributes {
	a, _ := ctx.Value(attributesKey{}).(*admission.Attributes)
	return a
}
