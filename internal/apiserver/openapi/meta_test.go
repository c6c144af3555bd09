// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What custom kinds need of the definitions is what they are embedded with a
// second time, and -update writes it.
func TestMeta(t *testing.T) {
	o := server()
	all, err := o.v3.load()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]json.RawMessage{}
	for name := range all {
		if strings.HasPrefix(name, metaPrefix) || name == scaleModel {
			all.closure(want, refV3, name)
		}
	}
	if *update {
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
		z.Write(data)
		z.Close()
		if err := os.WriteFile("assets/meta.json.gz", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := o.meta.load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, map[string]json.RawMessage(have)); diff != "" {
		t.Errorf("go test ./internal/apiserver/openapi -run TestMeta -update was not run after the definitions changed (-want +have):\n%s", diff)
	}
}

// A document of custom kinds is the same from kept parts as from new ones, and
// has all that it refers to.
func TestParts(t *testing.T) {
	o := server(widget())
	first := body(t, get(t, o, "/openapi/v3/apis/example.com/v1", nil))
	o.kept.mu.Lock()
	clear(o.kept.kept)
	o.kept.mu.Unlock()
	again := body(t, get(t, o, "/openapi/v3/apis/example.com/v1", nil))
	o.parts.forget()
	fresh, err := o.Document("apis/example.com/v1")
	if err != nil || !bytes.Equal(first, again) || !bytes.Equal(first, fresh) {
		t.Error("the documents differ", err)
	}
	d := decode(t, first)
	schemas := d["components"].(map[string]any)["schemas"].(map[string]any)
	for _, name := range references(first, refV3) {
		if schemas[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	if schemas[metaPrefix+"DeleteOptions"] == nil || len(d["paths"].(map[string]any)) != 3 {
		t.Errorf("got %d schemas, %d paths", len(schemas), len(d["paths"].(map[string]any)))
	}
}
