// SPDX-License-Identifier: Apache-2.0

package codec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
)

// examples is the directory of upstream's own serialized examples of every
// type, one folder a release.
func examples(t *testing.T) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(dir)), "testdata")
}

// TestUpstreamExamples reads what other releases of the API wrote, in all forms,
// and writes it again as this release would.
func TestUpstreamExamples(t *testing.T) {
	dir := examples(t)
	releases, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	kinds := request.NewKinds(catalog.All()...)
	for _, release := range releases {
		if !release.IsDir() {
			continue
		}
		seen := 0
		for _, kind := range kinds.All() {
			for i := range kind.Versions {
				served := request.ServedOf(kind, &kind.Versions[i])
				group := served.GVK.Group
				if group == "" {
					group = "core"
				}
				base := filepath.Join(dir, release.Name(), group+"."+served.GVK.Version+"."+served.GVK.Kind)
				if _, err := os.Stat(base + ".json"); errors.Is(err, fs.ErrNotExist) {
					continue // not there yet in that release
				}
				seen++
				t.Run(release.Name()+"/"+filepath.Base(base), func(t *testing.T) { roundTrip(t, kinds, served, base) })
			}
		}
		if seen < 50 {
			t.Errorf("%s: only %d examples", release.Name(), seen)
		}
	}
}

func roundTrip(t *testing.T, kinds *request.Kinds, served *request.Served, base string) {
	target := codec.TargetOf(kinds, served)
	read := func(name string, format codec.Format) runtime.Object {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if format == codec.JSON {
			// What is kept as it came must not differ by its white space.
			var b bytes.Buffer
			if err := json.Compact(&b, data); err != nil {
				t.Fatal(err)
			}
			data = b.Bytes()
		}
		obj, _, err := codec.Decode(data, format, target, false)
		if err != nil {
			t.Fatalf("%s: %v", filepath.Base(name), err)
		}
		return obj
	}
	obj := read(base+".json", codec.JSON)
	for extension, format := range map[string]codec.Format{".yaml": codec.YAML, ".pb": codec.Protobuf} {
		if other := read(base+extension, format); !equality.Semantic.DeepEqual(obj, other) {
			t.Errorf("%s differs from the JSON", extension)
		}
	}
	for extension, format := range map[string]codec.Format{".json": codec.JSON, ".yaml": codec.YAML, ".pb": codec.Protobuf} {
		got, err := codec.Encode(obj, format, false)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(base + ".after_roundtrip" + extension)
		if errors.Is(err, fs.ErrNotExist) {
			want, err = os.ReadFile(base + extension)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !sameDocument(t, format, got, want) {
			t.Errorf("%s: wrote\n%s\nwant\n%s", extension, got, want)
		}
	}
}

// sameDocument compares protobuf byte by byte, the others by content.
func sameDocument(t *testing.T, format codec.Format, got, want []byte) bool {
	if format == codec.Protobuf {
		return bytes.Equal(got, want)
	}
	parse := func(data []byte) (out any) {
		if format == codec.YAML {
			var err error
			if data, err = yaml.YAMLToJSON(data); err != nil {
				t.Fatal(err)
			}
		}
		if err := json.Unmarshal(data, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	return reflect.DeepEqual(parse(got), parse(want))
}
