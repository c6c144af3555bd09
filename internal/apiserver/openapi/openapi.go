// SPDX-License-Identifier: Apache-2.0

// Package openapi serves the schema of everything the server serves: OpenAPI
// v2 in one document, v3 in one a version, and the type converter that
// server-side apply works with.
//
// The API server routes /openapi here. The definitions of built-in types are
// an embedded asset; paths are made from the table of kinds; custom kinds
// bring their own schemas. Nothing is read or built before somebody asks, and
// documents are kept compressed.
package openapi

import (
	"bytes"
	"cmp"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// Config configures an OpenAPI. Kinds is needed.
type Config struct {
	Kinds *request.Kinds
	// Custom returns the schema of a custom kind's objects as OpenAPI v3 or v2
	// have it, without references beyond meta/v1's; nil means any object.
	Custom func(s *request.Served, v3 bool) (json.RawMessage, error)
	// Remote returns what other servers have, and a number that is another one
	// after each change.
	Remote func() (servers []Remote, generation uint64)
	// Version is what the documents call the server, "1.37" when empty.
	Version string
}

// OpenAPI serves the documents. It is safe for concurrent use.
type OpenAPI struct {
	cfg    Config
	v2, v3 asset
	meta   asset // the models of meta/v1 and Scale in v3, all that custom kinds need
	parts  parts
	kept   documents

	converter func() (converted, error)

	mu sync.Mutex
	at *state // guarded by mu
}

// New returns an OpenAPI.
func New(cfg Config) *OpenAPI {
	cfg.Version = cmp.Or(cfg.Version, "1.37")
	if cfg.Custom == nil {
		cfg.Custom = func(*request.Served, bool) (json.RawMessage, error) { return nil, nil }
	}
	if cfg.Remote == nil {
		cfg.Remote = func() ([]Remote, uint64) { return nil, 0 }
	}
	o := &OpenAPI{cfg: cfg, v2: asset{compressed: assetV2}, v3: asset{compressed: assetV3}, meta: asset{compressed: assetMeta, small: true}}
	o.converter = sync.OnceValues(o.buildConverter)
	return o
}

// state is what is served while the tables do not change.
type state struct {
	kinds      []*api.Kind // identifies the table it was made from
	generation uint64
	versions   map[schema.GroupVersion][]*request.Served
	groups     []string
	remote     []Remote

	mu  sync.Mutex
	ids map[string]string // identities of documents by path, guarded by mu
}

func (o *OpenAPI) now() *state {
	kinds := o.cfg.Kinds.All()
	remote, generation := o.cfg.Remote()
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.at; s != nil && s.generation == generation && len(s.kinds) == len(kinds) && (len(kinds) == 0 || &s.kinds[0] == &kinds[0]) {
		return s
	}
	next := &state{kinds: kinds, generation: generation, remote: remote, versions: map[schema.GroupVersion][]*request.Served{}, ids: map[string]string{}}
	for _, kind := range kinds {
		if kind.Unpublished {
			continue
		}
		for i := range kind.Versions {
			if kind.Versions[i].Unserved {
				continue
			}
			s := request.ServedOf(kind, &kind.Versions[i])
			gv := s.GVK.GroupVersion()
			next.versions[gv] = append(next.versions[gv], s)
			if !kind.Custom && !slices.Contains(next.groups, gv.Group) {
				next.groups = append(next.groups, gv.Group)
			}
		}
	}
	next.carryOver(o.at)
	o.at = next
	return next
}

// carryOver keeps the identities of versions that did not change.
func (s *state) carryOver(old *state) {
	if old == nil {
		return
	}
	same := map[string]bool{}
	for gv, served := range s.versions {
		same[documentName(gv)] = slices.EqualFunc(served, old.versions[gv], func(a, b *request.Served) bool { return a.Kind == b.Kind && a.Version == b.Version })
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	for name, id := range old.ids {
		if same[name] {
			s.ids[name] = id
		}
	}
}

// documentName is the place of a version's document in the index.
func documentName(gv schema.GroupVersion) string { return strings.TrimPrefix(root(gv), "/") }

// index returns the v3 documents there are by their place, with what
// identifies their content.
func (o *OpenAPI) index(s *state) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(o.indexLocked(s))
}

func (o *OpenAPI) indexLocked(s *state) map[string]string {
	for gv, served := range s.versions {
		if name := documentName(gv); s.ids[name] == "" {
			s.ids[name] = o.identity(served)
		}
	}
	for name := range rootPaths(s.groups) {
		if s.ids[name] == "" {
			s.ids[name] = o.identity(nil)
		}
	}
	for i := range s.remote {
		if r := &s.remote[i]; s.converted(r) && s.ids[r.name()] == "" {
			s.ids[r.name()] = r.identity()
		}
	}
	return s.ids
}

// identity identifies a version's document by what it is made from, so that
// the index can be served without making the documents.
func (o *OpenAPI) identity(served []*request.Served) string {
	h := sha512.New()
	fmt.Fprintln(h, o.cfg.Version, len(assetV3))
	for _, s := range served {
		o.hashServed(h, s)
	}
	return fmt.Sprintf("%X", h.Sum(nil))
}

func (o *OpenAPI) hashServed(h hash.Hash, s *request.Served) {
	fmt.Fprintln(h, s.GVR, s.GVK, s.Kind.Namespaced, s.Kind.Verbs, s.Status() != nil, s.Scale() != nil, len(s.Kind.Subresources))
	// The definition stands for the schema it holds, which is not cheap to
	// render for every kind whenever the index is read.
	fmt.Fprintln(h, s.Kind.Identity)
}

// v3Part renders what makes a document of the index; it is nil when it is not made
// of the kinds served here.
func (o *OpenAPI) v3Part(s *state, name string) (*part, error) {
	var items []pathItem
	var custom []*request.Served
	var own schema.GroupVersion
	found := false
	definitions := &o.v3
	if item, ok := rootPaths(s.groups)[name]; ok {
		items, found = []pathItem{item}, true
	} else {
		for gv, candidates := range s.versions {
			if documentName(gv) != name {
				continue
			}
			var builtIn []*request.Served
			for _, s := range candidates {
				if s.Kind.Custom {
					custom = append(custom, s)
				} else {
					builtIn = append(builtIn, s)
				}
			}
			if len(builtIn) == 0 {
				definitions = &o.meta
			}
			items, own = versionPaths(gv, builtIn), gv
			found = true
		}
	}
	if !found {
		return nil, nil
	}
	known, err := definitions.load()
	if err != nil {
		return nil, err
	}
	whole, err := renderPart(items)
	if err != nil {
		return nil, err
	}
	for _, s := range custom {
		p, err := o.part(known, s)
		if err != nil {
			return nil, err
		}
		whole.add(p)
	}
	known.closure(whole.schemas, refV3, whole.models...)
	if whole.custom = len(items) == 0; whole.custom {
		return whole, nil
	}
	return whole, nameOwn(whole.schemas, own)
}

// nameOwn leaves of the groups that the shared meta/v1 models are part of those
// that a version's document is about: the version itself and core.
func nameOwn(schemas map[string]json.RawMessage, own schema.GroupVersion) error {
	const extension = "x-kubernetes-group-version-kind"
	for name, data := range schemas {
		if !strings.HasPrefix(name, metaPrefix) || !bytes.Contains(data, []byte(extension)) {
			continue
		}
		var model map[string]json.RawMessage
		if err := json.Unmarshal(data, &model); err != nil {
			return err
		}
		var kinds []map[string]string
		if err := json.Unmarshal(model[extension], &kinds); err != nil {
			return err
		}
		kinds = slices.DeleteFunc(kinds, func(k map[string]string) bool {
			gv := schema.GroupVersion{Group: k["group"], Version: k["version"]}
			return gv != own && gv != schema.GroupVersion{Version: "v1"}
		})
		var err error
		if model[extension], err = json.Marshal(kinds); err != nil {
			return err
		}
		if schemas[name], err = json.Marshal(model); err != nil {
			return err
		}
	}
	return nil
}

// custom adds the models of custom kinds and their lists.
func (o *OpenAPI) custom(out map[string]json.RawMessage, known definitions, prefix string, served []*request.Served) error {
	for _, s := range served {
		if !s.Kind.Custom {
			continue
		}
		schema, err := o.customSchema(s, prefix)
		if err != nil {
			return err
		}
		out[customModel(s.GVK, false)] = schema
		known.closure(out, prefix, references(schema, prefix)...)
		list, err := json.Marshal(customList(s, prefix))
		if err != nil {
			return err
		}
		out[customModel(s.GVK, true)] = list
		known.closure(out, prefix, metaPrefix+"ListMeta")
	}
	return nil
}

// customSchema is the model of a custom kind's objects.
func (o *OpenAPI) customSchema(s *request.Served, prefix string) (json.RawMessage, error) {
	schema, err := o.cfg.Custom(s, prefix == refV3)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", s.GVK, err)
	}
	if schema == nil {
		schema = fmt.Appendf(nil, `{"type":"object","x-kubernetes-group-version-kind":[{"group":%q,"version":%q,"kind":%q}]}`, s.GVK.Group, s.GVK.Version, s.GVK.Kind)
	}
	return schema, nil
}

// customList is the model of a list of custom objects.
func customList(s *request.Served, prefix string) object {
	gvk := s.GVK
	metadata := object{
		"description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
	}
	if meta := modelSchema(prefix, metaPrefix+"ListMeta"); prefix == refV3 {
		metadata["allOf"] = []object{meta}
	} else {
		maps.Copy(metadata, meta)
	}
	list := object{
		"description": gvk.Kind + "List is a list of " + gvk.Kind,
		"type":        "object",
		"required":    []string{"items"},
		"properties": object{
			"apiVersion": object{"type": "string", "description": apiVersionDoc},
			"kind":       object{"type": "string", "description": kindDoc},
			"items": object{
				"type": "array", "description": "List of " + s.GVR.Resource + ". More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
				"items": object{"$ref": prefix + customModel(gvk, false)},
			},
			"metadata": metadata,
		},
		"x-kubernetes-group-version-kind": []object{{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind + "List"}},
	}
	if len(s.Version.FieldLabels) > 0 {
		var fields []object
		for _, name := range s.Version.FieldLabels {
			fields = append(fields, object{"fieldPath": name})
		}
		list["x-kubernetes-selectable-fields"] = fields
	}
	return list
}

const (
	apiVersionDoc = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
	kindDoc       = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
)

// indexDocument renders the v3 index.
func (o *OpenAPI) indexDocument(s *state) ([]byte, error) {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for name, hash := range o.index(s) {
		paths[name] = entry{"/openapi/v3/" + name + "?hash=" + hash}
	}
	for _, r := range s.remote {
		for path, url := range r.Index {
			if _, own := paths[path]; !own {
				paths[path] = entry{url}
			}
		}
	}
	var out bytes.Buffer
	err := json.NewEncoder(&out).Encode(map[string]any{"paths": paths})
	return bytes.TrimSpace(out.Bytes()), err
}

// Index returns the v3 documents by their place, such as "apis/apps/v1", with
// what identifies the content of each.
func (o *OpenAPI) Index() map[string]string { return o.index(o.now()) }

// Document returns a v3 document of the index as JSON, nil when there is none.
func (o *OpenAPI) Document(name string) ([]byte, error) {
	s := o.now()
	if o.identify(s, name) == "" {
		return nil, nil
	}
	var out bytes.Buffer
	err := o.render(&out, s, name, formatJSON)
	return out.Bytes(), err
}
