// SPDX-License-Identifier: Apache-2.0

// Package definition holds the definitions of the Gateway API's kinds, release
// 1.6.3 of its standard channel, packed by tools/gateway. Package app creates
// them in a new cluster.
package definition

import (
	"bytes"
	"compress/gzip"
	_ "embed" // for the definitions
	"encoding/json"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

//go:embed definitions.json.gz
var packed []byte

// names are the resources that are defined.
var names = [...]string{"gatewayclasses", "gateways", "grpcroutes", "httproutes", "referencegrants", "tlsroutes"}

// Names returns the names of the definitions, as the API server knows them.
func Names() []string {
	var out []string
	for _, n := range names {
		out = append(out, n+".gateway.networking.k8s.io")
	}
	return out
}

// Load returns the definitions.
func Load() ([]*unstructured.Unstructured, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("the definitions of the Gateway API: %w", err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("the definitions of the Gateway API: %w", err)
	}
	var contents []json.RawMessage
	if err := json.Unmarshal(data, &contents); err != nil {
		return nil, fmt.Errorf("the definitions of the Gateway API: %w", err)
	}
	var out []*unstructured.Unstructured
	for _, c := range contents {
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(c); err != nil {
			return nil, fmt.Errorf("the definitions of the Gateway API: %w", err)
		}
		out = append(out, o)
	}
	return out, nil
}
