// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/apiserver/request"
)

// mapper finds the resource of a kind among those served now. The policies ask
// for nothing else of a RESTMapper.
type mapper struct {
	meta.RESTMapper
	kinds *request.Kinds
}

// RESTMapping implements meta.RESTMapper.
func (m *mapper) RESTMapping(gk schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	for _, version := range versions {
		if s := m.kinds.Kind(gk.WithVersion(version)); s != nil {
			return mapping(s), nil
		}
	}
	if len(versions) == 0 {
		for _, kind := range m.kinds.All() {
			for i := range kind.Versions {
				if s := request.ServedOf(kind, &kind.Versions[i]); s.GVK.GroupKind() == gk && !s.Version.Unserved {
					return mapping(s), nil
				}
			}
		}
	}
	return nil, &meta.NoKindMatchError{GroupKind: gk, SearchedVersions: versions}
}

// RESTMappings implements meta.RESTMapper.
func (m *mapper) RESTMappings(gk schema.GroupKind, versions ...string) ([]*meta.RESTMapping, error) {
	one, err := m.RESTMapping(gk, versions...)
	if err != nil {
		return nil, err
	}
	return []*meta.RESTMapping{one}, nil
}

// KindFor implements meta.RESTMapper.
func (m *mapper) KindFor(resource schema.GroupVersionResource) (schema.GroupVersionKind, error) {
	if s := m.kinds.Resource(resource); s != nil {
		return s.GVK, nil
	}
	return schema.GroupVersionKind{}, &meta.NoResourceMatchError{PartialResource: resource}
}

// KindsFor implements meta.RESTMapper.
func (m *mapper) KindsFor(resource schema.GroupVersionResource) ([]schema.GroupVersionKind, error) {
	one, err := m.KindFor(resource)
	if err != nil {
		return nil, err
	}
	return []schema.GroupVersionKind{one}, nil
}

func mapping(s *request.Served) *meta.RESTMapping {
	scope := meta.RESTScopeRoot
	if s.Kind.Namespaced {
		scope = meta.RESTScopeNamespace
	}
	return &meta.RESTMapping{Resource: s.GVR, GroupVersionKind: s.GVK, Scope: scope}
}
