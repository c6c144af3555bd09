// SPDX-License-Identifier: Apache-2.0

// Package resourcequota is the admission plug-in ResourceQuota: it refuses what
// would use more of a namespace than its ResourceQuotas allow, and charges the
// rest to them. Usage is reserved in the quota's status, by compare-and-swap,
// before the object is stored; the controller of quotas gives back what was not
// used in the end.
//
// The API server's admission chain calls it last, when nothing else refuses the
// request any more. It reads quotas from the server's cache: a namespace without
// any costs one look-up. What objects take is measured by package api/quota.
package resourcequota

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	upstream "k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	config "k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota/validation"

	"kaji/internal/api"
	"kaji/internal/api/quota"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/request"
	"kaji/internal/client"
)

// Name is what the plug-in is enabled and configured by.
const Name = "ResourceQuota"

// Config configures the plug-in. Cache, Kinds and Client are needed.
type Config struct {
	// Cache and Kinds are the server's: quotas are read there.
	Cache *cache.Cache
	Kinds *request.Kinds
	// Client writes the status of quotas, under the server's own identity.
	Client client.Verbs
	// Configuration is a ResourceQuotaConfiguration as YAML or JSON; it names
	// what is limited by default. Empty means nothing.
	Configuration []byte
}

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct {
	cfg     Config
	limited []config.LimitedResource
	measure *quota.Set

	mu    sync.Mutex
	lines map[string]*line // by namespace, while requests wait there
}

var _ admission.Validator = (*Plugin)(nil)

// New returns the plug-in, or an error when the configuration is not valid.
func New(cfg Config) (*Plugin, error) {
	p := &Plugin{cfg: cfg, lines: map[string]*line{}}
	if len(cfg.Configuration) > 0 {
		var given io.Reader = bytes.NewReader(cfg.Configuration)
		c, err := upstream.LoadConfiguration(given)
		if err != nil {
			return nil, err
		}
		if errs := validation.ValidateConfiguration(c); len(errs) > 0 {
			return nil, errs.ToAggregate()
		}
		p.limited = c.LimitedResources
	}
	p.measure = quota.New(quota.Devices{Classes: p.deviceClasses, Pod: p.pod, Claims: p.claims})
	return p, nil
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Namespace == "" || a.Resource.Group == "" && a.Resource.Resource == "namespaces" {
		return nil
	}
	if len(p.limited) == 0 {
		any, err := p.hasQuotas(ctx, a.Namespace)
		if err != nil || !any {
			return err
		}
	}
	e := p.measure.For(a.Resource.GroupResource())
	if e == nil || !e.Charges(write(a)) {
		return nil
	}
	return p.charge(a, e)
}

func write(a *admission.Attributes) quota.Write {
	return quota.Write{Create: a.Operation == admission.Create, Subresource: a.Subresource, Object: a.Object, Old: a.Old}
}

func (p *Plugin) kind() (*api.Kind, error) {
	s := p.cfg.Kinds.Kind(corev1.SchemeGroupVersion.WithKind("ResourceQuota"))
	if s == nil {
		return nil, fmt.Errorf("ResourceQuota is not served")
	}
	return s.Kind, nil
}

// hasQuotas says whether a namespace has any quota.
func (p *Plugin) hasQuotas(ctx context.Context, namespace string) (bool, error) {
	s, err := p.quotaSnapshot(ctx)
	if err != nil || s == nil {
		return false, err
	}
	return s.Remaining(namespace, "") > 0, nil
}

// quotaSnapshot is nil where quotas are not served.
func (p *Plugin) quotaSnapshot(ctx context.Context) (*cache.Snapshot, error) {
	kind, err := p.kind()
	if err != nil {
		return nil, nil //nolint:nilerr // without quotas nothing is limited
	}
	s, err := p.cfg.Cache.Snapshot(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("error resolving quota: %w", err)
	}
	return s, nil
}

// quotas returns the quotas of a namespace; they are shared.
func (p *Plugin) quotas(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	s, err := p.quotaSnapshot(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	var all []*corev1.ResourceQuota
	for entry := range s.All(namespace, "") {
		if q, ok := entry.Object.(*corev1.ResourceQuota); ok {
			all = append(all, q)
		}
	}
	return all, nil
}

// cached returns all objects of a kind, in a namespace when it is named.
func cached[T any](p *Plugin, kind, namespace string) []T {
	gv := corev1.SchemeGroupVersion
	if kind != "Pod" {
		gv = resourcev1.SchemeGroupVersion
	}
	served := p.cfg.Kinds.Kind(gv.WithKind(kind))
	if served == nil {
		return nil
	}
	s, err := p.cfg.Cache.Snapshot(context.Background(), served.Kind)
	if err != nil {
		return nil
	}
	var all []T
	for entry := range s.All(namespace, "") {
		if t, ok := entry.Object.(T); ok {
			all = append(all, t)
		}
	}
	return all
}

func (p *Plugin) deviceClasses() []*resourcev1.DeviceClass {
	return cached[*resourcev1.DeviceClass](p, "DeviceClass", "")
}

func (p *Plugin) claims(namespace string) []*resourcev1.ResourceClaim {
	return cached[*resourcev1.ResourceClaim](p, "ResourceClaim", namespace)
}

func (p *Plugin) pod(namespace, name string) *corev1.Pod {
	served := p.cfg.Kinds.Kind(corev1.SchemeGroupVersion.WithKind("Pod"))
	if served == nil {
		return nil
	}
	entry, found, err := p.cfg.Cache.Get(context.Background(), served.Kind, namespace, name)
	if err != nil || !found {
		return nil
	}
	pod, _ := entry.Object.(*corev1.Pod)
	return pod
}
