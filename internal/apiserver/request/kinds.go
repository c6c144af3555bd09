// SPDX-License-Identifier: Apache-2.0

package request

import (
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
)

// Served is one resource in one served version.
type Served struct {
	Kind    *api.Kind
	Version *api.Version
	// GVR and GVK name it as this version spells it.
	GVR schema.GroupVersionResource
	GVK schema.GroupVersionKind
	// Hub says that the version's Go type is the kind's hub.
	Hub bool
}

// Rules say how objects are created and changed by requests in the version.
func (s *Served) Rules() *api.Rules {
	if own := s.Version.Behaviour; own != nil {
		return &own.Rules
	}
	return &s.Kind.Rules
}

// Status is the subresource "status" in the version, nil for none.
func (s *Served) Status() *api.Subresource {
	if own := s.Version.Behaviour; own != nil {
		return own.Status
	}
	return s.Kind.Status
}

// Scale is the subresource "scale" in the version, nil for none.
func (s *Served) Scale() *api.Scale {
	if own := s.Version.Behaviour; own != nil {
		return own.Scale
	}
	return s.Kind.Scale
}

// ResetFields are what a write of the whole object in the version never owns.
func (s *Served) ResetFields() []string {
	if own := s.Version.Behaviour; own != nil {
		return own.ResetFields
	}
	return s.Kind.ResetFields
}

// Kinds is the table of all served resources. Reads are free of locks; kinds
// come and go while the server runs. All methods are safe for concurrent use.
type Kinds struct {
	mu    sync.Mutex
	table atomic.Pointer[table]
}

type table struct {
	kinds      []*api.Kind
	byResource map[schema.GroupVersionResource]*Served
	byKind     map[schema.GroupVersionKind]*Served
	versions   map[schema.GroupVersion]int
}

// NewKinds returns the table of kinds.
func NewKinds(kinds ...*api.Kind) *Kinds {
	k := &Kinds{}
	k.table.Store(build(kinds))
	return k
}

// ServedOf returns kind as its version v serves it.
func ServedOf(kind *api.Kind, v *api.Version) *Served {
	s := &Served{
		Kind: kind, Version: v,
		GVR: v.GroupVersion.WithResource(kind.Resource),
		GVK: v.GroupVersion.WithKind(kind.Name),
		Hub: v.ToHub == nil,
	}
	if v.Resource != "" {
		s.GVR.Resource = v.Resource
	}
	if v.Kind != "" {
		s.GVK.Kind = v.Kind
	}
	return s
}

func build(kinds []*api.Kind) *table {
	t := &table{
		kinds:      kinds,
		byResource: map[schema.GroupVersionResource]*Served{},
		byKind:     map[schema.GroupVersionKind]*Served{},
		versions:   map[schema.GroupVersion]int{},
	}
	for _, kind := range kinds {
		for i := range kind.Versions {
			if kind.Versions[i].Unserved {
				continue
			}
			s := ServedOf(kind, &kind.Versions[i])
			t.byResource[s.GVR] = s
			t.byKind[s.GVK] = s
			t.versions[s.GVR.GroupVersion()]++
		}
	}
	return t
}

// Add serves kind; a kind of the same group and resource gives way to it.
func (k *Kinds) Add(kind *api.Kind) { k.replace(kind.GroupResource(), kind) }

// Remove stops serving the kind of a resource.
func (k *Kinds) Remove(gr schema.GroupResource) { k.replace(gr, nil) }

func (k *Kinds) replace(gr schema.GroupResource, kind *api.Kind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.table.Load().kinds
	next := make([]*api.Kind, 0, len(old)+1)
	for _, o := range old {
		if o.GroupResource() != gr {
			next = append(next, o)
		}
	}
	if kind != nil {
		next = append(next, kind)
	}
	k.table.Store(build(next))
}

// All returns the kinds served now; the slice must not be modified.
func (k *Kinds) All() []*api.Kind { return k.table.Load().kinds }

// Resource returns what a resource of a version is, or nil.
func (k *Kinds) Resource(gvr schema.GroupVersionResource) *Served {
	return k.table.Load().byResource[gvr]
}

// Kind returns what a kind of a version is, or nil.
func (k *Kinds) Kind(gvk schema.GroupVersionKind) *Served { return k.table.Load().byKind[gvk] }

// HasVersion says whether any resource is served in gv.
func (k *Kinds) HasVersion(gv schema.GroupVersion) bool { return k.table.Load().versions[gv] > 0 }

// HasGroup says whether any resource is served in a version of group.
func (k *Kinds) HasGroup(group string) bool {
	for gv := range k.table.Load().versions {
		if gv.Group == group {
			return true
		}
	}
	return false
}
