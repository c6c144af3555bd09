// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"kaji/internal/api"
)

// Sharing lets definitions share what their schemas have in common. Most of a
// schema is said many times over: in each version, for each kind of container,
// in each kind of an operator that embeds a pod. Real sets of definitions take
// a fifth of the memory for it. It is safe for concurrent use.
type Sharing struct {
	mu    sync.Mutex
	nodes map[digest]*apiextensionsv1.JSONSchemaProps
	maps  map[digest]map[string]apiextensionsv1.JSONSchemaProps
}

// digest identifies a part of a schema by its content.
type digest [sha256.Size]byte

// maxShared bounds the parts that are remembered: beyond it all are forgotten,
// and what comes later shares among itself.
const maxShared = 50_000

// NewSharing returns a Sharing that knows nothing yet.
func NewSharing() *Sharing {
	s := &Sharing{}
	s.reset()
	return s
}

func (s *Sharing) reset() {
	s.nodes = map[digest]*apiextensionsv1.JSONSchemaProps{}
	s.maps = map[digest]map[string]apiextensionsv1.JSONSchemaProps{}
}

// Forget lets go of all parts: a definition is gone, and so may be its own.
func (s *Sharing) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reset()
}

// Decoded replaces parts of an object that was just decoded, and that nobody
// else has, by equal ones of others. All of them are immutable from then on.
// Objects that are no definitions are left alone.
func (s *Sharing) Decoded(obj api.Object) {
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.nodes)+len(s.maps) > maxShared {
		s.reset()
	}
	for i := range crd.Spec.Versions {
		if v := crd.Spec.Versions[i].Schema; v != nil {
			s.pointer(&v.OpenAPIV3Schema)
		}
	}
}

// pointer replaces what p points to by its equal.
func (s *Sharing) pointer(p **apiextensionsv1.JSONSchemaProps) (d digest) {
	if *p == nil {
		return d
	}
	d = s.node(*p)
	if known := s.nodes[d]; known != nil {
		*p = known
	} else {
		s.nodes[d] = *p
	}
	return d
}

// properties replaces a map by its equal.
func (s *Sharing) properties(m *map[string]apiextensionsv1.JSONSchemaProps) (d digest) {
	if len(*m) == 0 {
		return d
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(*m)) {
		child := (*m)[name]
		below := s.node(&child)
		(*m)[name] = child
		h.Write([]byte(name))
		h.Write([]byte{0})
		h.Write(below[:])
	}
	h.Sum(d[:0])
	if known := s.maps[d]; known != nil {
		*m = known
	} else {
		s.maps[d] = *m
	}
	return d
}

// list shares below each element.
func (s *Sharing) list(all []apiextensionsv1.JSONSchemaProps) (d digest) {
	if len(all) == 0 {
		return d
	}
	h := sha256.New()
	for i := range all {
		below := s.node(&all[i])
		h.Write(below[:])
	}
	h.Sum(d[:0])
	return d
}

// node shares below one schema and returns what identifies its content.
func (s *Sharing) node(p *apiextensionsv1.JSONSchemaProps) (d digest) {
	flat := *p
	flat.Properties, flat.PatternProperties, flat.Definitions = nil, nil, nil
	flat.AllOf, flat.AnyOf, flat.OneOf, flat.Not = nil, nil, nil, nil
	flat.Items, flat.AdditionalProperties = nil, nil
	rare := [2]any{flat.Dependencies, flat.AdditionalItems}
	flat.Dependencies, flat.AdditionalItems = nil, nil
	own, err := flat.Marshal()
	if err != nil {
		own, _ = json.Marshal(&flat)
	}
	h := sha256.New()
	h.Write(own)
	below := []digest{
		s.properties(&p.Properties), s.properties(&p.PatternProperties), s.properties((*map[string]apiextensionsv1.JSONSchemaProps)(&p.Definitions)),
		s.list(p.AllOf), s.list(p.AnyOf), s.list(p.OneOf), s.pointer(&p.Not),
	}
	if p.Items != nil {
		below = append(below, digest{1}, s.pointer(&p.Items.Schema), s.list(p.Items.JSONSchemas))
	}
	if a := p.AdditionalProperties; a != nil {
		below = append(below, digest{2}, s.pointer(&a.Schema))
		if a.Allows {
			below = append(below, digest{3})
		}
	}
	for i := range below {
		h.Write(below[i][:])
	}
	if p.Dependencies != nil || p.AdditionalItems != nil {
		text, _ := json.Marshal(rare)
		h.Write(text)
	}
	h.Sum(d[:0])
	return d
}
