// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// allVerbs are the verbs of a resource that names none.
var allVerbs = metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// closingVerbs are shown for a kind that is about to go.
var closingVerbs = metav1.Verbs{"delete", "deletecollection", "get", "list", "watch"}

// viewVerbs are the verbs of a subresource that names none.
var viewVerbs = metav1.Verbs{"get", "patch", "update"}

// connections are the subresources that are no view of the stored object, by
// the resource they hang from. They are the same in every version of it.
func connections(resource schema.GroupResource) []metav1.APIResource {
	stream := metav1.Verbs{"create", "get"}
	proxy := metav1.Verbs{"create", "delete", "get", "patch", "update"}
	create := metav1.Verbs{"create"}
	switch resource {
	case schema.GroupResource{Resource: "pods"}:
		return []metav1.APIResource{
			{Name: "pods/attach", Kind: "PodAttachOptions", Verbs: stream},
			{Name: "pods/binding", Kind: "Binding", Verbs: create},
			{Name: "pods/eviction", Group: "policy", Version: "v1", Kind: "Eviction", Verbs: create},
			{Name: "pods/exec", Kind: "PodExecOptions", Verbs: stream},
			{Name: "pods/log", Kind: "Pod", Verbs: metav1.Verbs{"get"}},
			{Name: "pods/portforward", Kind: "PodPortForwardOptions", Verbs: stream},
			{Name: "pods/proxy", Kind: "PodProxyOptions", Verbs: proxy},
		}
	case schema.GroupResource{Resource: "nodes"}:
		return []metav1.APIResource{{Name: "nodes/proxy", Kind: "NodeProxyOptions", Verbs: proxy}}
	case schema.GroupResource{Resource: "services"}:
		return []metav1.APIResource{{Name: "services/proxy", Kind: "ServiceProxyOptions", Verbs: proxy}}
	case schema.GroupResource{Resource: "serviceaccounts"}:
		return []metav1.APIResource{{Name: "serviceaccounts/token", Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest", Verbs: create}}
	}
	return nil
}

// Resources returns a resource and its subresources as discovery shows them,
// in order of name.
func Resources(s *request.Served) []metav1.APIResource {
	kind := s.Kind
	verbs := metav1.Verbs(kind.Verbs)
	switch {
	case kind.Closing != nil && kind.Closing():
		verbs = closingVerbs
	case verbs == nil:
		verbs = allVerbs
	}
	main := metav1.APIResource{
		Name: s.GVR.Resource, SingularName: kind.Singular, Namespaced: kind.Namespaced, Kind: s.GVK.Kind,
		Verbs: verbs, ShortNames: kind.ShortNames, Categories: kind.Categories,
	}
	// What cannot be watched is not stored.
	if slices.Contains(verbs, "watch") {
		main.StorageVersionHash = storageVersionHash(kind)
	}
	out := []metav1.APIResource{main}
	view := func(name string, verbs metav1.Verbs) {
		if verbs == nil {
			verbs = viewVerbs
		}
		out = append(out, metav1.APIResource{
			Name: s.GVR.Resource + "/" + name, Namespaced: kind.Namespaced, Kind: s.GVK.Kind, Verbs: verbs,
		})
	}
	if status := s.Status(); status != nil {
		view("status", status.Verbs)
	}
	for i := range kind.Subresources {
		view(kind.Subresources[i].Name, kind.Subresources[i].Verbs)
	}
	if s.Scale() != nil {
		out = append(out, metav1.APIResource{
			Name: s.GVR.Resource + "/scale", Namespaced: kind.Namespaced,
			Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: viewVerbs,
		})
	}
	if !kind.Custom {
		for _, r := range connections(s.GVR.GroupResource()) {
			r.Namespaced = kind.Namespaced
			out = append(out, r)
		}
	}
	if kind.Custom {
		return out // the status first
	}
	slices.SortFunc(out, func(a, b metav1.APIResource) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(out, func(a, b metav1.APIResource) bool { return a.Name == b.Name })
}

// storageVersionHash tells clients whether the stored version of a kind
// changed; it is upstream's.
func storageVersionHash(kind *api.Kind) string {
	name := kind.Name
	if v := kind.StoredVersion(); v != nil && v.Kind != "" {
		name = v.Kind
	}
	sum := sha256.Sum256([]byte(kind.Storage.Group + "/" + kind.Storage.Version + "/" + name))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// subresource returns the part of a resource's name behind the slash.
func subresource(name string) (string, bool) {
	_, sub, found := strings.Cut(name, "/")
	return sub, found
}
