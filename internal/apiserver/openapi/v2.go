// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bufio"
	"encoding/json"
	"io"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/validation/spec"

	"kaji/internal/apiserver/request"
)

// fragment is a member of one of a document's large objects, such as a path.
type fragment struct {
	section, name string
	data          json.RawMessage
}

// Sections of the v2 document, in the order of their names.
const (
	sectionModels     = "definitions"
	sectionParameters = "parameters"
	sectionPaths      = "paths"
)

// writeV2 writes the v2 document. It may be hundreds of megabytes long where many
// custom kinds are served: no more than a few fragments are held at a time.
func (o *OpenAPI) writeV2(w io.Writer, s *state, format string) error {
	fragments, err := o.fragmentsV2(s)
	if err != nil {
		return err
	}
	fragments = yielding(fragments)
	if format == formatProto {
		return writeProtoV2(w, o.cfg.Version, fragments)
	}
	return writeJSONV2(w, o.cfg.Version, fragments)
}

// yielding lets others run before each fragment: all of a large document take
// seconds, of which whoever else is ready would wait ten milliseconds at a time.
func yielding(fragments iter.Seq2[fragment, error]) iter.Seq2[fragment, error] {
	return func(yield func(fragment, error) bool) {
		for f, err := range fragments {
			runtime.Gosched()
			if !yield(f, err) {
				return
			}
		}
	}
}

// fragmentsV2 returns what the v2 document consists of, section by section and
// each sorted.
func (o *OpenAPI) fragmentsV2(s *state) (iter.Seq2[fragment, error], error) {
	known, err := o.v2.load()
	if err != nil {
		return nil, err
	}
	// Paths are made group by group: those of thousands of versions take much memory.
	chunks := map[string]func() []pathItem{} // by what all paths of one begin with
	for _, item := range rootPaths(s.groups) {
		chunks[item.path] = func() []pathItem { return []pathItem{item} }
	}
	needed := []string{metaPrefix + "ObjectMeta", metaPrefix + "ListMeta", statusModel, patchModel, deleteOptionsModel, scaleModel}
	for _, chunk := range chunks {
		needed = append(needed, models(chunk())...)
	}
	custom := map[string]func() (json.RawMessage, error){} // models by name
	for gv, served := range s.versions {
		chunks[root(gv)+"/"] = func() []pathItem { return versionPaths(gv, served) }
		if slices.ContainsFunc(served, func(k *request.Served) bool { return !k.Kind.Custom }) {
			needed = append(needed, models(versionPaths(gv, served))...)
		}
		for _, k := range served {
			if k.Kind.Custom {
				custom[customModel(k.GVK, false)] = func() (json.RawMessage, error) { return o.customSchema(k, refV2) }
				custom[customModel(k.GVK, true)] = func() (json.RawMessage, error) { return json.Marshal(customList(k, refV2)) }
			}
		}
	}
	fixed := map[string]json.RawMessage{}
	known.closure(fixed, refV2, needed...)
	for name := range custom {
		delete(fixed, name)
	}
	extra, err := o.othersV2(s, chunks, fixed, custom)
	if err != nil {
		return nil, err
	}
	return func(yield func(fragment, error) bool) {
		for _, name := range sortedNames(fixed, custom, extra.Definitions) {
			data, render := fixed[name], custom[name]
			var err error
			if schema, has := extra.Definitions[name]; has {
				data, err = json.Marshal(schema)
			} else if render != nil {
				data, err = render()
			}
			if !yield(fragment{sectionModels, name, data}, err) || err != nil {
				return
			}
		}
		for _, name := range slices.Sorted(maps.Keys(extra.Parameters)) {
			data, err := json.Marshal(extra.Parameters[name])
			if !yield(fragment{sectionParameters, name, data}, err) || err != nil {
				return
			}
		}
		others := slices.Sorted(maps.Keys(extra.Paths.Paths))
		theirs := func(before string) bool { // yields those in front of a path
			for len(others) > 0 && (before == "" || others[0] < before) {
				data, err := json.Marshal(extra.Paths.Paths[others[0]])
				if !yield(fragment{sectionPaths, others[0], data}, err) || err != nil {
					return false
				}
				others = others[1:]
			}
			return true
		}
		for _, key := range slices.Sorted(maps.Keys(chunks)) {
			items := chunks[key]()
			slices.SortFunc(items, func(a, b pathItem) int { return strings.Compare(a.path, b.path) })
			for i := range items {
				if !theirs(items[i].path) {
					return
				}
				data, err := json.Marshal(items[i].v2())
				if !yield(fragment{sectionPaths, items[i].path, data}, err) || err != nil {
					return
				}
			}
		}
		theirs("")
	}, nil
}

// othersV2 returns what other servers add: definitions that are theirs alone or
// that they share, parameters and paths.
func (o *OpenAPI) othersV2(s *state, chunks map[string]func() []pathItem, fixed map[string]json.RawMessage, custom map[string]func() (json.RawMessage, error)) (*spec.Swagger, error) {
	if len(s.remote) == 0 {
		extra := &spec.Swagger{}
		extra.Paths = &spec.Paths{}
		return extra, nil
	}
	own := map[string]bool{}
	for _, name := range sortedNames(fixed, custom, spec.Definitions(nil)) {
		own[name] = true
	}
	var paths []string
	for _, chunk := range chunks {
		for _, item := range chunk() {
			paths = append(paths, item.path)
		}
	}
	shared := map[string]bool{}
	extra, err := s.others(paths, own, func(name string) (*spec.Schema, error) {
		shared[name] = true
		data := fixed[name]
		if data == nil {
			var err error
			if data, err = custom[name](); err != nil {
				return nil, err
			}
		}
		out := &spec.Schema{}
		return out, out.UnmarshalJSON(data)
	})
	switch {
	case err != nil:
		return nil, err
	case extra == nil:
		extra = &spec.Swagger{}
		extra.Paths = &spec.Paths{}
		return extra, nil
	}
	for _, path := range paths {
		delete(extra.Paths.Paths, path)
	}
	maps.DeleteFunc(extra.Definitions, func(name string, _ spec.Schema) bool { return own[name] && !shared[name] })
	return extra, nil
}

// sortedNames returns the keys of three maps.
func sortedNames[A, B, C any](a map[string]A, b map[string]B, c map[string]C) []string {
	names := make([]string, 0, len(a)+len(b)+len(c))
	names = slices.AppendSeq(names, maps.Keys(a))
	names = slices.AppendSeq(names, maps.Keys(b))
	names = slices.AppendSeq(names, maps.Keys(c))
	slices.Sort(names)
	return slices.Compact(names)
}

// aboutV2 is what stands in a v2 document before, between and behind its sections.
func aboutV2(version string) object {
	return object{
		"swagger": "2.0", "info": info(version),
		"securityDefinitions": securitySchemes(),
		"security":            []object{{"BearerToken": []string{}}},
	}
}

// writeJSONV2 writes a document whose members are in the order of their names.
func writeJSONV2(to io.Writer, version string, fragments iter.Seq2[fragment, error]) error {
	w := bufio.NewWriter(to)
	about := aboutV2(version)
	pending := slices.Sorted(maps.Keys(about))
	member := func(name string) error {
		data, err := json.Marshal(about[name])
		if err == nil {
			_, err = w.WriteString(`"` + name + `":` + string(data))
		}
		return err
	}
	section, separator := "", "{"
	for f, err := range fragments {
		if err != nil {
			return err
		}
		if f.section != section {
			if section != "" {
				w.WriteByte('}')
			}
			section = f.section
			for len(pending) > 0 && pending[0] < section {
				w.WriteString(separator)
				separator = ","
				if err := member(pending[0]); err != nil {
					return err
				}
				pending = pending[1:]
			}
			w.WriteString(separator + `"` + section + `":`)
			separator = "{"
		}
		w.WriteString(separator)
		separator = ","
		name, err := json.Marshal(f.name)
		if err != nil {
			return err
		}
		w.Write(name)
		w.WriteByte(':')
		w.Write(f.data)
	}
	w.WriteByte('}')
	for _, name := range pending {
		w.WriteByte(',')
		if err := member(name); err != nil {
			return err
		}
	}
	w.WriteByte('}')
	return w.Flush() // tells of all that failed before
}
