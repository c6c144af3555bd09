// SPDX-License-Identifier: Apache-2.0

// Gateway packs the definitions of the Gateway API's kinds, as the module
// sigs.k8s.io/gateway-api has them, for the program to embed:
//
//	go run ./tools/gateway "$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)" internal/ingress/gateway/definition/definitions.json.gz
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"log"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// kinds are those that are served.
var kinds = []string{"gatewayclasses", "gateways", "grpcroutes", "httproutes", "referencegrants", "tlsroutes"}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: gateway <directory of the module> <output>")
	}
	if err := pack(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func pack(module, output string) error {
	var all []json.RawMessage
	for _, kind := range kinds {
		text, err := os.ReadFile(filepath.Join(module, "config/crd/standard", "gateway.networking.k8s.io_"+kind+".yaml"))
		if err != nil {
			return err
		}
		data, err := yaml.YAMLToJSON(text)
		if err != nil {
			return err
		}
		all = append(all, data)
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(output, out.Bytes(), 0o644)
}
