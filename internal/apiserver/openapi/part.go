// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bytes"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// part is what goes into a v3 document for some resources, rendered.
type part struct {
	paths   map[string]json.RawMessage
	schemas map[string]json.RawMessage
	models  []string // what the paths refer to
	custom  bool     // it is all that custom kinds alone have to show
}

// info is what the document of the part is called.
func (p *part) info(version string) object {
	if p.custom {
		return object{"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
	}
	return info(version)
}

// renderPart renders paths; it has no schemas yet.
func renderPart(items []pathItem) (*part, error) {
	p := &part{paths: map[string]json.RawMessage{}, schemas: map[string]json.RawMessage{}, models: models(items)}
	for i := range items {
		data, err := json.Marshal(items[i].v3())
		if err != nil {
			return nil, err
		}
		p.paths[items[i].path] = data
	}
	return p, nil
}

func (p *part) add(other *part) {
	maps.Copy(p.paths, other.paths)
	maps.Copy(p.schemas, other.schemas)
	p.models = append(p.models, other.models...)
}

func (p *part) size() (bytes int) {
	for _, set := range []map[string]json.RawMessage{p.paths, p.schemas} {
		for name, data := range set {
			bytes += len(name) + len(data)
		}
	}
	return bytes
}

// partKey is a version of a kind.
type partKey struct {
	kind    *api.Kind
	version *api.Version
}

// parts keeps the parts of custom kinds for a while: who installs many kinds of
// one group asks for its document after each.
type parts struct {
	mu      sync.Mutex
	kept    map[partKey]*part
	bytes   int
	pending *time.Timer // forgets them
}

// maxParts bounds the parts that are kept, in bytes.
const maxParts = 32 << 20

// part returns the part of a custom kind.
func (o *OpenAPI) part(known definitions, s *request.Served) (*part, error) {
	key := partKey{s.Kind, s.Version}
	if p := o.parts.get(key); p != nil {
		return p, nil
	}
	p, err := renderPart(newNamer(s).paths())
	if err != nil {
		return nil, err
	}
	if err := o.custom(p.schemas, known, refV3, []*request.Served{s}); err != nil {
		return nil, err
	}
	o.parts.put(key, p)
	return p, nil
}

func (k *parts) get(key partKey) *part {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pending != nil {
		k.pending.Reset(keepFor)
	}
	return k.kept[key]
}

func (k *parts) put(key partKey, p *part) {
	k.mu.Lock()
	defer k.mu.Unlock()
	size := p.size()
	if k.kept == nil || k.bytes+size > maxParts {
		k.kept, k.bytes = map[partKey]*part{}, 0
	}
	k.kept[key] = p
	k.bytes += size
	if k.pending == nil {
		k.pending = time.AfterFunc(keepFor, k.forget)
	}
}

func (k *parts) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept, k.bytes, k.pending = nil, 0, nil
}

// fragments returns the schemas and paths, sorted.
func (p *part) fragments() iter.Seq2[fragment, error] {
	return func(yield func(fragment, error) bool) {
		for _, section := range []struct {
			name string
			set  map[string]json.RawMessage
		}{{sectionSchemas, p.schemas}, {sectionPaths, p.paths}} {
			for _, name := range slices.Sorted(maps.Keys(section.set)) {
				if !yield(fragment{section.name, name, section.set[name]}, nil) {
					return
				}
			}
		}
	}
}

func securitySchemes() object {
	return object{"BearerToken": object{
		"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
	}}
}

// documentV3 renders an OpenAPI v3 document of a part. Schemas and paths are
// large and rendered already: they are copied, not encoded again.
func documentV3(version string, p *part) ([]byte, error) {
	about, err := json.Marshal(p.info(version))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(p.size() + 1024)
	b.WriteString(`{"components":{`)
	if len(p.schemas) > 0 {
		b.WriteString(`"schemas":`)
		if err := writeObject(&b, p.schemas); err != nil {
			return nil, err
		}
	}
	if !p.custom {
		security, err := json.Marshal(securitySchemes())
		if err != nil {
			return nil, err
		}
		if len(p.schemas) > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"securitySchemes":`)
		b.Write(security)
	}
	b.WriteString(`},"info":`)
	b.Write(about)
	b.WriteString(`,"openapi":"3.0.0","paths":`)
	if err := writeObject(&b, p.paths); err != nil {
		return nil, err
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// writeObject writes values, which are JSON, by their sorted names.
func writeObject(b *bytes.Buffer, values map[string]json.RawMessage) error {
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			b.WriteByte(',')
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return err
		}
		b.Write(quoted)
		b.WriteByte(':')
		b.Write(values[name])
	}
	b.WriteByte('}')
	return nil
}
