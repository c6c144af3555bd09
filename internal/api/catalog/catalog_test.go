// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestKindsAreConsistent checks what the API server's machine relies on.
func TestKindsAreConsistent(t *testing.T) {
	resources := map[schema.GroupVersionResource]bool{}
	prefixes := map[string]string{}
	for _, k := range All() {
		name := k.GroupKind().String()
		if k.New == nil || k.Singular != strings.ToLower(k.Name) || k.Resource == "" {
			t.Errorf("%s: incomplete names", name)
		}
		if k.StoredVersion() == nil {
			t.Errorf("%s: stored in %s, which is not among its versions", name, k.Storage)
			continue
		}
		stored := k.Verbs == nil || slices.Contains(k.Verbs, "list")
		if stored && (k.NewList == nil || !meta.IsListType(k.NewList())) {
			t.Errorf("%s: no list", name)
		}
		if other, taken := prefixes[k.Prefix]; stored && taken {
			t.Errorf("%s: shares the prefix %s with %s", name, k.Prefix, other)
		}
		prefixes[k.Prefix] = name
		for _, v := range k.Versions {
			resource := k.Resource
			if v.Resource != "" {
				resource = v.Resource
			}
			gvr := v.GroupVersion.WithResource(resource)
			if resources[gvr] {
				t.Errorf("%s is served twice", gvr)
			}
			resources[gvr] = true
			same := reflect.TypeOf(v.New()) == reflect.TypeOf(k.New())
			if same != (v.ToHub == nil) || same != (v.FromHub == nil) {
				t.Errorf("%s %s: conversions are for versions of another type", name, v.GroupVersion)
			}
			if stored && v.NewList == nil {
				t.Errorf("%s %s: no list", name, v.GroupVersion)
			}
			if v.OptIn && v.GroupVersion == k.Versions[0].GroupVersion && k.Name != "PodSecurityPolicy" {
				t.Errorf("%s: its preferred version is not served by default", name)
			}
		}
	}
}
