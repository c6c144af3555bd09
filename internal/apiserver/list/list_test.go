// SPDX-License-Identifier: Apache-2.0

package list

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/cache/cachetest"
	"kaji/internal/apiserver/request"
)

func info(kind *api.Kind, verb, namespace, name string) *request.Info {
	return &request.Info{
		RequestInfo: apirequest.RequestInfo{Verb: verb, Namespace: namespace, Name: name},
		Served:      cachetest.Served(kind),
	}
}

func read(t *testing.T, b *cachetest.Bench, kind *api.Kind, namespace, query string) (*Page, error) {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Parse(info(kind, "list", namespace, ""), values)
	if err != nil {
		return nil, err
	}
	return Read(t.Context(), b.Cache, o)
}

func names(p *Page) (out []string) {
	for _, e := range p.Entries {
		out = append(out, e.Object.GetName())
	}
	return out
}

func pods(t *testing.T, cfg cache.Config) (*cachetest.Bench, *api.Kind) {
	kind := cachetest.Pods()
	b := cachetest.Start(t, cfg, kind)
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		b.Put(kind, cachetest.Pod("ns", name, fmt.Sprint("n", i%2), map[string]string{"odd": fmt.Sprint(i % 2)}))
	}
	b.Put(kind, cachetest.Pod("ns-2", "z", "n0", nil))
	return b, kind
}

func TestSelectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, kind := pods(t, cache.Config{})
		for query, want := range map[string]string{
			"":                                      "a b c d e",
			"labelSelector=odd%3D1":                 "b d",
			"labelSelector=!odd":                    "",
			"fieldSelector=spec.nodeName%3Dn0":      "a c e",
			"fieldSelector=metadata.name%3Db":       "b",
			"fieldSelector=metadata.name!%3Db":      "a c d e",
			"fieldSelector=metadata.namespace%3Dns": "a b c d e",
			"resourceVersion=0&limit=2":             "a b c d e",
			"limit=2":                               "a b",
			"limit=-1":                              "a b c d e",
			"fieldSelector=spec.nodeName%3Dn0,metadata.name%3Db": "",
		} {
			page, err := read(t, b, kind, "ns", query)
			if err != nil {
				t.Errorf("%s: %v", query, err)
				continue
			}
			if got := strings.Join(names(page), " "); got != want {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
		page, err := read(t, b, kind, "", "fieldSelector=spec.nodeName%3Dn0")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := names(page), []string{"z", "a", "c", "e"}; !slices.Equal(got, want) {
			t.Errorf("all namespaces: got %v, want %v", got, want)
		}
	})
}

// Pages show one revision whatever happens between them, and once that is
// forgotten the answer tells how to go on.
func TestPaging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, kind := pods(t, cache.Config{HistoryEvents: 4})
		first, err := read(t, b, kind, "ns", "limit=2")
		if err != nil {
			t.Fatal(err)
		}
		if first.Remaining == nil || *first.Remaining != 3 {
			t.Errorf("remaining: got %v, want 3", first.Remaining)
		}
		b.Put(kind, cachetest.Pod("ns", "f", "n0", nil))
		b.Delete(kind, "ns", "e")
		second, err := read(t, b, kind, "ns", "limit=9&continue="+first.Continue)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names(second), " "); got != "c d e" || second.Continue != "" || second.Revision != first.Revision {
			t.Errorf("second page: got %q at %d, continue %q", got, second.Revision, second.Continue)
		}
		for i := range 9 {
			b.Put(kind, cachetest.Pod("ns-2", fmt.Sprint("x", i), "", nil))
		}
		if err := b.Store.Compact(t.Context(), first.Revision+1); err != nil {
			t.Fatal(err)
		}
		_, err = read(t, b, kind, "ns", "limit=9&continue="+first.Continue)
		if !apierrors.IsResourceExpired(err) {
			t.Fatalf("forgotten revision: got %v", err)
		}
		rest, err := read(t, b, kind, "ns", "continue="+err.(*apierrors.StatusError).ErrStatus.Continue)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names(rest), " "); got != "c d f" {
			t.Errorf("inconsistent rest: got %q", got)
		}
	})
}

// The texts are those a real 1.37 server was seen to give.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, kind := pods(t, cache.Config{})
		for query, want := range map[string]string{
			"limit=x":                    `strconv.ParseInt: parsing "x": invalid syntax`,
			"resourceVersion=x":          `invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax`,
			"labelSelector=n%3Da,":       "found '', expected: identifier after ','",
			"fieldSelector=spec.x%3D1":   "field label not supported: spec.x",
			"continue=x":                 "invalid continue token: continue key is not valid: illegal base64 data at input byte 0",
			"sendInitialEvents=true":     `ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list`,
			"resourceVersion=999":        "Timeout: Too large resource version: 999, current: 7",
			"resourceVersionMatch=Exact": `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`,
		} {
			_, err := read(t, b, kind, "ns", query)
			if err == nil || err.Error() != want {
				t.Errorf("%s:\n got %v\nwant %s", query, err, want)
			}
		}
	})
}

// A token never leads outside the directory that is listed.
func FuzzToken(f *testing.F) {
	f.Add(encodeToken("/registry/pods/ns/a\x00", "/registry/pods/ns/", 7))
	f.Add(encodeToken("/registry/pods/ns/../../secrets", "/registry/pods/ns/", 7))
	f.Add("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi94In0")
	f.Fuzz(func(t *testing.T, parameter string) {
		key, revision, err := decodeToken(parameter, "/registry/pods/ns/")
		if err != nil {
			return
		}
		if !strings.HasPrefix(key, "/registry/pods/ns/") || strings.Contains(key, "/../") || revision == 0 {
			t.Errorf("%q leads to %q at %d", parameter, key, revision)
		}
	})
}

// Options either parse or are refused; nothing panics.
func FuzzParse(f *testing.F) {
	f.Add("labelSelector=a+in+(b,c),!d&fieldSelector=metadata.name%3Dx&limit=5")
	f.Add("fieldSelector=spec.nodeName%21%3D&resourceVersion=1&resourceVersionMatch=Exact&timeoutSeconds=9")
	kind := cachetest.Pods()
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		for _, verb := range []string{"list", "watch"} {
			o, err := Parse(info(kind, verb, "ns", ""), values)
			if (o == nil) == (err == nil) {
				t.Errorf("%s: options %v with error %v", query, o, err)
			}
			if o != nil {
				o.Matches(&cache.Entry{Key: "/registry/pods/ns/a", Object: cachetest.Pod("ns", "a", "n", nil)})
			}
		}
	})
}
