// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
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
// else has, and what makes the whole object again; nil for the latter when obj
// is no definition: it is held as it is. It is package cache's Slim.
//
// A held definition has no schemas, no managedFields, and of its annotations
// only those that the controller reads.
func (s *Slim) Hold(_ *api.Kind, obj api.Object) (held api.Object, whole func() api.Object) {
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return obj, nil
	}
	plain, err := crd.Marshal()
	if err != nil {
		return obj, nil
	}
	packed := s.pack(plain)
	typeMeta, name := crd.TypeMeta, crd.Name
	return withoutBulk(crd), func() api.Object {
		out := &apiextensionsv1.CustomResourceDefinition{}
		if err := s.unpack(packed, out); err != nil {
			// These bytes were made here and never left the memory.
			panic(fmt.Sprintf("definition %s cannot be unpacked: %v", name, err))
		}
		out.TypeMeta = typeMeta
		return out
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

func (s *Slim) unpack(packed []byte, to *apiextensionsv1.CustomResourceDefinition) error {
	r, ok := s.readers.Get().(*zstd.Decoder)
	if !ok {
		r, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	}
	defer s.readers.Put(r)
	plain, err := r.DecodeAll(packed, nil)
	if err != nil {
		return err
	}
	return to.Unmarshal(plain)
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
