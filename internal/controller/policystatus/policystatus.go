// SPDX-License-Identifier: Apache-2.0

// Package policystatus checks the expressions of ValidatingAdmissionPolicies
// against the types they are about, and writes what does not fit, and which
// generation was checked, to their status. A policy works without it: it only
// tells its author of mistakes.
//
// The controller manager runs it. The checks are upstream's; schemas and
// resources are asked of the API server when a policy comes, and not kept.
package policystatus

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	applyv1 "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

// manager is the owner of the status in managedFields.
const manager = "validatingadmissionpolicy-status-controller"

// Controller checks policies. Make it with New.
type Controller struct {
	api      client.Interface
	policies client.Typed[*admissionregistrationv1.ValidatingAdmissionPolicy]
	queue    *queue.Queue[string]
}

// New returns a controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{api: api, policies: client.For[*admissionregistrationv1.ValidatingAdmissionPolicy](api)}
	c.queue = queue.New("validatingadmissionpolicy_status", log, c.reconcile)
	c.policies.AddHandler(client.Handler[*admissionregistrationv1.ValidatingAdmissionPolicy]{
		Add:    func(p *admissionregistrationv1.ValidatingAdmissionPolicy) { c.queue.Add(p.Name) },
		Update: func(_, p *admissionregistrationv1.ValidatingAdmissionPolicy) { c.queue.Add(p.Name) },
	})
	return c
}

// Run checks policies until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.policies.Informer()) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	p, err := c.policies.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || p.Generation <= p.Status.ObservedGeneration {
		return err
	}
	checker, err := c.checker()
	if err != nil {
		return err
	}
	warnings := []*applyv1.ExpressionWarningApplyConfiguration{}
	for _, w := range checker.Check(p) {
		warnings = append(warnings, applyv1.ExpressionWarning().WithFieldRef(w.FieldRef).WithWarning(w.Warning))
	}
	data, err := json.Marshal(applyv1.ValidatingAdmissionPolicy(name).WithStatus(applyv1.ValidatingAdmissionPolicyStatus().
		WithObservedGeneration(p.Generation).
		WithTypeChecking(applyv1.TypeChecking().WithExpressionWarnings(warnings...))))
	if err != nil {
		return err
	}
	status := c.policies.Resource("")
	status.Subresource = "status"
	_, err = c.api.Patch(ctx, status, name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: manager, Force: new(true)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// checker checks against what the API server serves now.
func (c *Controller) checker() (*validating.TypeChecker, error) {
	config := c.api.RESTConfig()
	if config == nil {
		return nil, errors.New("no way to ask the API server for its schemas")
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		return nil, err
	}
	return &validating.TypeChecker{
		SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: d},
		RestMapper:     restmapper.NewDiscoveryRESTMapper(groups),
	}, nil
}
