// SPDX-License-Identifier: Apache-2.0

package zpages

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// A node agent tells what it is; with a command line, how it was started too.
func TestAgent(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.String("node-name", "n1", "")
	for _, c := range []struct {
		fs    *pflag.FlagSet
		pages map[string]string // what they say
	}{
		{nil, map[string]string{"/statusz": "kubelet statusz"}},
		{fs, map[string]string{"/statusz": "/runningpods /stats", "/flagz": "node-name:n1"}},
	} {
		pages := Agent(c.fs)
		if len(pages) != len(c.pages) {
			t.Errorf("%d pages", len(pages))
		}
		for path, want := range c.pages {
			r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
			pages[path].ServeHTTP(w, r)
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s says\n%s", path, w.Body)
			}
		}
	}
}

// Objects are served to those that ask for a version there is.
func TestForms(t *testing.T) {
	z := New("kubelet", pflag.NewFlagSet("", pflag.ContinueOnError), "/b", "/a")
	if !slices.Equal(z.paths, []string{"/a", "/b"}) {
		t.Errorf("paths are %q", z.paths)
	}
	for accept, want := range map[string]string{
		"": "kubelet statusz", "*/*": "kubelet statusz",
		"application/json;g=config.k8s.io;v=v1beta1;as=Statusz": `"kind": "Statusz"`,
		"application/yaml;g=config.k8s.io;v=v1beta1;as=Statusz": "kind: Statusz",
		"application/json;g=config.k8s.io;v=v9;as=Statusz":      "NotAcceptable",
	} {
		r, w := httptest.NewRequest("GET", "/statusz", nil), httptest.NewRecorder()
		r.Header.Set("Accept", accept)
		z.Statusz(w, r)
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%q gets\n%s", accept, w.Body)
		}
	}
}
