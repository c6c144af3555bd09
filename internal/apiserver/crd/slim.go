// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
)

// Slim makes little of the definitions that the cache holds. A decoded schema
// takes up to eight times its text, an operator's set of them hundreds of
// megabytes, and is seldom looked at. So a definition is held without its
// schemas, and all of it beside that as compressed bytes, a tenth of the text.
// It is safe for concurrent use.
type Slim struct {
	// The compressors have states of a megabyte: they go when nobody needs
	// them.
	writers, readers sync.Pool
}

// NewSlim returns a Slim.
func NewSlim() *Slim { return &Slim{} }

// IsSlim says whether the cache holds objects of a resource without some of
// what they have.
func IsSlim(r schema.GroupResource) bool { return r == resource.GroupResource() }

// Hold returns what to hold of an object that was just decoded and that nobody
// else has, and the whole of it; nil for the latter when obj is no definition: it
// is held as it is. It is package cache's Slim.
//
// A held definition has no schemas, no managedFields, and of its annotations
// only those that the controller reads.
func (s *Slim) Hold(_ *api.Kind, obj api.Object) (held api.Object, whole cache.Packed) {
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return obj, nil
	}
	plain, err := crd.Marshal()
	if err != nil {
		return obj, nil
	}
	return withoutBulk(crd), &packed{s, s.pack(plain), crd.TypeMeta, crd.Name}
}

// packed is a definition as compressed protobuf.
type packed struct {
	slim     *Slim
	data     []byte
	typeMeta metav1.TypeMeta
	name     string
}

// Whole returns the definition.
func (p *packed) Whole() api.Object {
	out := &apiextensionsv1.CustomResourceDefinition{TypeMeta: p.typeMeta}
	p.unpack(out.Unmarshal)
	return out
}

// version returns one version of the definition, nil when there is none of the
// name. No other is decoded.
func (p *packed) version(name string) (version *apiextensionsv1.CustomResourceDefinitionVersion) {
	const spec, versions, names = 2, 7, 1 // fields of the messages
	p.unpack(func(plain []byte) error {
		return eachField(plain, spec, func(plain []byte) error {
			return eachField(plain, versions, func(plain []byte) error {
				return eachField(plain, names, func(found []byte) error {
					if string(found) != name {
						return nil
					}
					version = &apiextensionsv1.CustomResourceDefinitionVersion{}
					return version.Unmarshal(plain)
				})
			})
		})
	})
	return version
}

// eachField calls visit with those fields of a message that have a number and a
// length.
func eachField(message []byte, number protowire.Number, visit func([]byte) error) error {
	for len(message) > 0 {
		n, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		value := message[size:]
		if size = protowire.ConsumeFieldValue(n, kind, value); size < 0 {
			return protowire.ParseError(size)
		}
		message = value[size:]
		if n != number || kind != protowire.BytesType {
			continue
		}
		content, _ := protowire.ConsumeBytes(value)
		if err := visit(content); err != nil {
			return err
		}
	}
	return nil
}

// unpack calls decode, which must not keep what it is given.
func (p *packed) unpack(decode func([]byte) error) {
	if err := p.slim.unpack(p.data, decode); err != nil {
		// These bytes were made here and never left the memory.
		panic(fmt.Sprintf("definition %s cannot be unpacked: %v", p.name, err))
	}
}

func (s *Slim) pack(plain []byte) []byte {
	w, ok := s.writers.Get().(*zstd.Encoder)
	if !ok {
		// No option is wrong, which is all that can fail.
		w, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	}
	defer s.writers.Put(w)
	return slices.Clip(w.EncodeAll(plain, nil))
}

// reader decompresses into a buffer of its own.
type reader struct {
	zstd  *zstd.Decoder
	plain []byte
}

func (s *Slim) unpack(packed []byte, decode func([]byte) error) error {
	r, ok := s.readers.Get().(*reader)
	if !ok {
		r = &reader{}
		r.zstd, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	}
	defer s.readers.Put(r)
	plain, err := r.zstd.DecodeAll(packed, r.plain[:0])
	if err != nil {
		return err
	}
	r.plain = plain
	return decode(plain)
}

// withoutBulk returns a definition without what takes its memory.
func withoutBulk(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinition {
	slim := withoutSchemas(crd)
	slim.ManagedFields, slim.Annotations = nil, nil
	if approval, ok := crd.Annotations[apiextensionsv1.KubeAPIApprovedAnnotation]; ok {
		slim.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: approval}
	}
	return slim
}

// wholeOf returns an entry's definition with its schemas; it must not be
// modified.
func wholeOf(e *cache.Entry) *apiextensionsv1.CustomResourceDefinition {
	return e.Whole().(*apiextensionsv1.CustomResourceDefinition)
}
