// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// The definitions of all published types, by model name, as tools/gen writes
// them, and what TestMergeTypes -update makes of them: how their fields merge.
var (
	//go:embed assets/v2.json.gz
	assetV2 []byte
	//go:embed assets/v3.json.gz
	assetV3 []byte
	// assetMeta are those of v3 that custom resources refer to; TestMeta -update
	// writes them.
	//go:embed assets/meta.json.gz
	assetMeta []byte
	//go:embed assets/merge
	assetMerge []byte
)

// definitions are schemas by model name, as JSON.
type definitions map[string]json.RawMessage

// asset is an embedded set of definitions: read when asked for, and forgotten a
// while later unless it is small.
type asset struct {
	compressed []byte
	small      bool

	mu   sync.Mutex
	held definitions // guarded by mu
}

// keepFor is how long what was made for one document is kept for the next.
const keepFor = 30 * time.Second

func (a *asset) load() (definitions, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held != nil {
		return a.held, nil
	}
	d, err := a.read()
	if err != nil {
		return nil, err
	}
	a.held = d
	if !a.small {
		time.AfterFunc(keepFor, a.forget)
	}
	return d, nil
}

func (a *asset) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = nil
}

func (a *asset) read() (definitions, error) {
	z, err := gzip.NewReader(bytes.NewReader(a.compressed))
	if err != nil {
		return nil, fmt.Errorf("embedded definitions: %w", err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("embedded definitions: %w", err)
	}
	var d definitions
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("embedded definitions: %w", err)
	}
	return d, nil
}

// closure adds to out the named models of d and all they refer to. The prefix
// is how references begin.
func (d definitions) closure(out map[string]json.RawMessage, prefix string, names ...string) {
	for len(names) > 0 {
		name := names[len(names)-1]
		names = names[:len(names)-1]
		schema, known := d[name]
		if _, done := out[name]; done || !known {
			continue
		}
		out[name] = schema
		names = append(names, references(schema, prefix)...)
	}
}

// references returns the models a schema refers to.
func references(schema []byte, prefix string) (names []string) {
	marker := []byte(`"$ref":"` + prefix)
	for {
		_, rest, found := bytes.Cut(schema, marker)
		if !found {
			return names
		}
		name, after, _ := bytes.Cut(rest, []byte(`"`))
		names = append(names, string(name))
		schema = after
	}
}
