// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/json"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"kaji/internal/apiserver/crd"
	"kaji/internal/apiserver/request"
)

// newCustom returns what serves custom resources, nil where their definitions
// are not served.
func (s *Server) newCustom() *crd.Controller {
	definitions := s.kinds.Kind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	if definitions == nil {
		return nil
	}
	return crd.New(crd.Config{
		Cache: s.cache, Kind: definitions.Kind, Client: s.Self(),
		Serve: s.AddKind, Unserve: s.RemoveKind,
		Convert: s.cfg.CustomConversion, Logger: s.log,
	})
}

// customSchema is the schema of a custom kind, for OpenAPI and server-side
// apply.
func (s *Server) customSchema(served *request.Served, v3 bool) (json.RawMessage, error) {
	if s.custom == nil {
		return nil, nil
	}
	return s.custom.Schema(served, v3)
}
