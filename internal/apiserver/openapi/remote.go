// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/openapiconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Remote is what another API server says of a version it serves.
type Remote struct {
	GroupVersion schema.GroupVersion
	// Index are the server's v3 documents: by their places, such as
	// "apis/metrics.k8s.io/v1beta1", the URLs that clients are sent to, relative
	// to this server. It is nil for a server that has v2 alone, which is converted.
	Index map[string]string
	// Handler sends requests for these documents to the server.
	Handler http.Handler
	// V2 is the server's v2 document: JSON, compressed by gzip; ETag identifies
	// it. It is nil for a server without.
	V2   []byte
	ETag string
}

// name is the place of the version's document.
func (r *Remote) name() string { return documentName(r.GroupVersion) }

func (r *Remote) identity() string {
	return fmt.Sprintf("%X", sha512.Sum512([]byte(r.name()+" "+r.ETag)))
}

// v2 decodes the server's v2 document, without what is not the version's.
func (r *Remote) v2() (*spec.Swagger, error) {
	z, err := gzip.NewReader(bytes.NewReader(r.V2))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	out := &spec.Swagger{}
	if err := out.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	return aggregator.FilterSpecByPathsWithoutSideEffects(out, []string{"/" + r.name() + "/"}), nil
}

// converted says whether the v3 document of a version is made here, from its
// server's v2 document.
func (s *state) converted(r *Remote) bool {
	return r.Index == nil && r.V2 != nil && s.versions[r.GroupVersion] == nil
}

// writeConverted writes such a document.
func (s *state) writeConverted(w io.Writer, name, format string) error {
	for i := range s.remote {
		r := &s.remote[i]
		if r.name() != name || !s.converted(r) {
			continue
		}
		v2, err := r.v2()
		if err != nil {
			return err
		}
		data, err := json.Marshal(openapiconv.ConvertV2ToV3(v2))
		if err != nil {
			return err
		}
		if format == formatProto {
			d, err := openapi_v3.ParseDocument(data)
			if err != nil {
				return err
			}
			return writeProto(w, d)
		}
		_, err = w.Write(data)
		return err
	}
	return fmt.Errorf("no OpenAPI document %s", name)
}

// elsewhere returns what has the v3 document of a name when it is not made here.
func (o *OpenAPI) elsewhere(s *state, name string) http.Handler {
	if len(s.remote) == 0 || o.index(s)[name] != "" {
		return nil
	}
	for i := range s.remote {
		if _, has := s.remote[i].Index[name]; has {
			return s.remote[i].Handler
		}
	}
	return nil
}

// others merges the paths, models and parameters of other servers into what is
// here: own, the paths and the models that are served here, of which same are those
// that another server has a model of the same name of. A document that cannot be
// read is left out: it is not the clients' fault.
func (s *state) others(paths []string, models map[string]bool, same func(name string) (*spec.Schema, error)) (*spec.Swagger, error) {
	var others []*spec.Swagger
	for i := range s.remote {
		if r := &s.remote[i]; r.V2 != nil {
			if v2, err := r.v2(); err == nil && v2.Paths != nil {
				others = append(others, v2)
			}
		}
	}
	if len(others) == 0 {
		return nil, nil
	}
	merged := &spec.Swagger{}
	merged.Paths = &spec.Paths{Paths: map[string]spec.PathItem{}}
	for _, path := range paths {
		merged.Paths.Paths[path] = spec.PathItem{}
	}
	merged.Definitions = spec.Definitions{}
	for name := range models {
		merged.Definitions[name] = spec.Schema{}
	}
	for _, other := range others {
		for name := range other.Definitions {
			if !models[name] {
				continue
			}
			schema, err := same(name)
			if err != nil {
				return nil, err
			}
			merged.Definitions[name] = *schema
		}
	}
	for _, other := range others {
		if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(merged, other); err != nil {
			return nil, fmt.Errorf("merging the OpenAPI documents of other servers: %w", err)
		}
	}
	return merged, nil
}
