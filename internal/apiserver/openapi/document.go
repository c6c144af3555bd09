// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/singleflight"
)

// Formats of documents.
const (
	formatJSON  = "json"
	formatProto = "protobuf"
)

// nameV2 is the name of the v2 document among those of the index.
const nameV2 = ""

// keepDocument is how long a rendered document is kept: those who have it already
// are answered without.
const keepDocument = 10 * time.Minute

// documents are rendered documents, compressed, by name and format.
type documents struct {
	mu     sync.Mutex
	kept   map[[2]string]*document // guarded by mu
	flight singleflight.Group
}

// document is a rendered document. It is never changed.
type document struct {
	identity   string // of what it was made from
	compressed []byte
}

// get returns the document of an identity. Whoever asks while it is rendered waits
// for it, and for no other.
func (k *documents) get(name, format, identity string, render func() ([]byte, error)) (*document, error) {
	key := [2]string{name, format}
	k.mu.Lock()
	doc := k.kept[key]
	k.mu.Unlock()
	if doc != nil && doc.identity == identity {
		return doc, nil
	}
	made, err, _ := k.flight.Do(name+" "+format+" "+identity, func() (any, error) {
		compressed, err := render()
		if err != nil {
			return nil, err
		}
		doc := &document{identity, compressed}
		k.put(key, doc)
		return doc, nil
	})
	if err != nil {
		return nil, err
	}
	return made.(*document), nil
}

func (k *documents) put(key [2]string, doc *document) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == nil {
		k.kept = map[[2]string]*document{}
	}
	k.kept[key] = doc
	time.AfterFunc(keepDocument, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.kept[key] == doc {
			delete(k.kept, key)
		}
	})
}

// identify returns what identifies the content of a document, empty when there is
// none of the name.
func (o *OpenAPI) identify(s *state, name string) string {
	ids := o.index(s)
	if name != nameV2 {
		return ids[name]
	}
	h := sha512.New()
	for _, name := range slices.Sorted(maps.Keys(ids)) {
		fmt.Fprintln(h, name, ids[name])
	}
	for i := range s.remote {
		fmt.Fprintln(h, s.remote[i].name(), s.remote[i].ETag)
	}
	return fmt.Sprintf("%X", h.Sum(nil))
}

// document returns the document of a name that has an identity.
func (o *OpenAPI) document(s *state, name, format, identity string) (*document, error) {
	return o.kept.get(name, format, identity, func() ([]byte, error) {
		var out bytes.Buffer
		z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
		if err != nil {
			return nil, err
		}
		if err := o.render(z, s, name, format); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		return bytes.Clone(out.Bytes()), nil // as long as it is, and no longer
	})
}

func (o *OpenAPI) render(w io.Writer, s *state, name, format string) error {
	if name == nameV2 {
		return o.writeV2(w, s, format)
	}
	whole, err := o.v3Part(s, name)
	switch {
	case err != nil:
		return err
	case whole == nil:
		return s.writeConverted(w, name, format)
	case format == formatProto:
		return writeProtoV3(w, o.cfg.Version, whole)
	}
	data, err := documentV3(o.cfg.Version, whole)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
