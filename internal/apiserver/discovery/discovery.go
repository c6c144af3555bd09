// SPDX-License-Identifier: Apache-2.0

// Package discovery tells clients which groups, versions and resources are
// served: the documents under /api and /apis, one by one and aggregated.
//
// The API server routes those paths here. Documents are made from the table of
// kinds at first use and kept until the table changes; groups of other API
// servers are merged in as the aggregator hands them over.
package discovery

import (
	"bytes"
	"cmp"
	"crypto/sha512"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/munnerz/goautoneg"
	"github.com/prometheus/client_golang/prometheus"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
)

// Remote is one version that another API server serves.
type Remote struct {
	GroupVersion schema.GroupVersion
	// GroupPriority and VersionPriority are those of its APIService.
	GroupPriority, VersionPriority int32
	// Document is the version as its server describes it, with the freshness
	// that the aggregator knows.
	Document apidiscoveryv2.APIVersionDiscovery
}

// Config configures a Discovery. Kinds is needed.
type Config struct {
	Kinds *request.Kinds
	// Remote returns the versions that other servers serve, and a number that
	// is another one after each change. Nil means none.
	Remote func() (versions []Remote, generation uint64)
	// ServerAddress returns the host and port clients reach the server at;
	// nil means what the request says.
	ServerAddress func(*http.Request) string
}

// Discovery serves the documents. It is safe for concurrent use.
type Discovery struct {
	cfg          Config
	aggregations prometheus.Counter

	mu sync.Mutex
	at *state // guarded by mu
}

// New returns a Discovery.
func New(cfg Config) *Discovery {
	if cfg.Remote == nil {
		cfg.Remote = func() ([]Remote, uint64) { return nil, 0 }
	}
	if cfg.ServerAddress == nil {
		cfg.ServerAddress = func(r *http.Request) string { return r.Host }
	}
	return &Discovery{cfg: cfg, aggregations: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "aggregator_discovery_aggregation_count_total", Help: "[ALPHA] Counter of number of times discovery was aggregated",
	})}
}

// Metrics returns the figure to be registered, by upstream's name.
func (d *Discovery) Metrics() prometheus.Collector { return d.aggregations }

// state is what is served while neither kinds nor remotes change.
type state struct {
	kinds      []*api.Kind // identifies the table it was made from
	generation uint64
	groups     []group

	mu   sync.Mutex
	kept map[string]document // by path and form
}

type document struct {
	body []byte
	etag string
}

// group is one group with its versions, preferred first.
type group struct {
	name     string
	priority int32
	versions []servedVersion
}

type servedVersion struct {
	gv       schema.GroupVersion
	priority int32
	served   []*request.Served                   // when served here
	remote   *apidiscoveryv2.APIVersionDiscovery // when not
}

// now returns the state of the present tables.
func (d *Discovery) now() *state {
	kinds := d.cfg.Kinds.All()
	remote, generation := d.cfg.Remote()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.at; s != nil && s.generation == generation && same(s.kinds, kinds) {
		return s
	}
	d.aggregations.Inc()
	d.at = &state{kinds: kinds, generation: generation, groups: groups(kinds, remote), kept: map[string]document{}}
	return d.at
}

// same says whether two tables are one: tables are replaced, never changed.
func same(a, b []*api.Kind) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func groups(kinds []*api.Kind, remote []Remote) []group {
	byVersion := map[schema.GroupVersion]*servedVersion{}
	for _, kind := range kinds {
		for i := range kind.Versions {
			if kind.Versions[i].Unserved {
				continue
			}
			s := request.ServedOf(kind, &kind.Versions[i])
			gv := s.GVR.GroupVersion()
			v := byVersion[gv]
			if v == nil {
				_, own := Priority(gv)
				v = &servedVersion{gv: gv, priority: own}
				byVersion[gv] = v
			}
			v.served = append(v.served, s)
		}
	}
	priorities := map[string]int32{}
	for gv := range byVersion {
		priorities[gv.Group], _ = Priority(gv)
	}
	for i := range remote {
		r := &remote[i]
		byVersion[r.GroupVersion] = &servedVersion{gv: r.GroupVersion, priority: r.VersionPriority, remote: &r.Document}
		priorities[r.GroupVersion.Group] = max(priorities[r.GroupVersion.Group], r.GroupPriority)
	}
	byGroup := map[string]*group{}
	var out []*group
	for gv, v := range byVersion {
		slices.SortFunc(v.served, func(a, b *request.Served) int { return cmp.Compare(a.GVR.Resource, b.GVR.Resource) })
		g := byGroup[gv.Group]
		if g == nil {
			g = &group{name: gv.Group, priority: priorities[gv.Group]}
			byGroup[gv.Group] = g
			out = append(out, g)
		}
		g.versions = append(g.versions, *v)
	}
	slices.SortFunc(out, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.name, b.name))
	})
	sorted := make([]group, len(out))
	for i, g := range out {
		slices.SortFunc(g.versions, func(a, b servedVersion) int {
			return cmp.Or(cmp.Compare(b.priority, a.priority), compareVersions(b.gv.Version, a.gv.Version))
		})
		sorted[i] = *g
	}
	return sorted
}

func (s *state) group(name string) *group {
	for i := range s.groups {
		if s.groups[i].name == name {
			return &s.groups[i]
		}
	}
	return nil
}

func (g *group) version(name string) *servedVersion {
	for i := range g.versions {
		if g.versions[i].gv.Version == name {
			return &g.versions[i]
		}
	}
	return nil
}

// Paths returns the paths of all discovery documents, for the index at /.
func (d *Discovery) Paths() []string {
	paths := []string{"/api", "/apis", "/apis/"}
	for _, g := range d.now().groups {
		root := "/apis/" + g.name
		if g.name == "" {
			root = "/api"
		} else {
			paths = append(paths, root)
		}
		for _, v := range g.versions {
			paths = append(paths, root+"/"+v.gv.Version)
		}
	}
	slices.Sort(paths)
	return paths
}

// Serve answers a GET of a discovery path. found is false when there is no
// such document or another server has it; the error is one to answer with.
func (d *Discovery) Serve(w http.ResponseWriter, r *http.Request) (found bool, err error) {
	s := d.now()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case parts[0] != "api" && parts[0] != "apis" || len(parts) > 3 || parts[0] == "api" && len(parts) > 2:
		return false, nil
	case len(parts) == 1:
		if format, ok := aggregated(r); ok {
			return true, s.aggregated(w, r, parts[0] == "api", format)
		}
	}
	obj := s.document(parts)
	if obj == nil {
		return false, nil
	}
	// Upstream's aggregator serves /apis and the groups without its router.
	if routed := parts[0] == "api" || len(parts) == 3; routed {
		if err := codec.Representable(r); err != nil {
			return true, err
		}
	}
	accept, err := codec.NegotiatePlain(r)
	if err != nil {
		return true, err
	}
	if versions, ok := obj.(*metav1.APIVersions); ok {
		versions.ServerAddressByClientCIDRs = []metav1.ServerAddressByClientCIDR{{
			ClientCIDR: "0.0.0.0/0", ServerAddress: d.cfg.ServerAddress(r),
		}}
	}
	body, err := codec.Encode(obj, accept.Format, accept.Pretty)
	if err != nil {
		return true, err
	}
	w.Header().Set("Content-Type", accept.Format.MediaType())
	_, err = w.Write(body)
	return true, err
}

// document returns what a path shows, nil for nothing.
func (s *state) document(parts []string) runtime.Object {
	switch {
	case parts[0] == "api" && len(parts) == 1:
		all := &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}}
		if g := s.group(""); g != nil {
			for _, v := range g.versions {
				all.Versions = append(all.Versions, v.gv.Version)
			}
		}
		return all
	case parts[0] == "api":
		return s.resources("", parts[1])
	case len(parts) == 1:
		all := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
		for i := range s.groups {
			if s.groups[i].name != "" {
				all.Groups = append(all.Groups, s.groups[i].summary())
			}
		}
		return all
	case parts[1] == "":
		return nil
	case len(parts) == 2:
		g := s.group(parts[1])
		if g == nil {
			return nil
		}
		one := g.summary()
		one.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		return &one
	}
	return s.resources(parts[1], parts[2])
}

func (g *group) summary() metav1.APIGroup {
	out := metav1.APIGroup{Name: g.name}
	for _, v := range g.versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: v.gv.String(), Version: v.gv.Version})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

// resources lists the resources of a version that is served here.
func (s *state) resources(groupName, versionName string) runtime.Object {
	g := s.group(groupName)
	if g == nil {
		return nil
	}
	v := g.version(versionName)
	if v == nil || v.remote != nil {
		return nil
	}
	list := &metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: v.gv.String(),
		APIResources: []metav1.APIResource{},
	}
	if groupName == "" {
		list.APIVersion = "" // as the oldest clients know it
	}
	for _, r := range v.served {
		list.APIResources = append(list.APIResources, Resources(r)...)
	}
	return list
}

// aggregated says whether the client asks for all groups in one document, and
// in which format.
func aggregated(r *http.Request) (codec.Format, bool) {
	for _, clause := range goautoneg.ParseAccept(r.Header.Get("Accept")) {
		if clause.Params["as"] == "" {
			// The plain documents come first.
			return 0, false
		}
		if clause.Params["as"] != "APIGroupDiscoveryList" || clause.Params["g"] != apidiscoveryv2.GroupName || clause.Params["v"] != "v2" {
			continue
		}
		for _, f := range []codec.Format{codec.JSON, codec.YAML, codec.Protobuf} {
			if clause.Type+"/"+clause.SubType == f.MediaType() {
				return f, true
			}
		}
	}
	return 0, false
}

// aggregated answers with the groups under /api or /apis.
func (s *state) aggregated(w http.ResponseWriter, r *http.Request, core bool, format codec.Format) error {
	doc, err := s.keep(fmt.Sprint(core, format), func() (document, error) { return s.aggregate(core, format) })
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Vary", "Accept")
	h.Set("Cache-Control", "public")
	h.Set("ETag", doc.etag)
	if r.Header.Get("If-None-Match") == doc.etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", format.MediaType()+";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	_, err = w.Write(doc.body)
	return err
}

func (s *state) aggregate(core bool, format codec.Format) (document, error) {
	list := &apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: apidiscoveryv2.SchemeGroupVersion.String()},
		Items:    []apidiscoveryv2.APIGroupDiscovery{},
	}
	for i := range s.groups {
		g := &s.groups[i]
		if (g.name == "") != core {
			continue
		}
		item := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.name}}
		for _, v := range g.versions {
			if v.remote != nil {
				item.Versions = append(item.Versions, *v.remote)
			} else {
				item.Versions = append(item.Versions, aggregateVersion(&v))
			}
		}
		list.Items = append(list.Items, item)
	}
	plain, err := codec.Encode(list, codec.JSON, false)
	if err != nil {
		return document{}, err
	}
	body := plain
	if format != codec.JSON {
		if body, err = codec.Encode(list, format, false); err != nil {
			return document{}, err
		}
	}
	return document{body: body, etag: fmt.Sprintf(`"%X"`, sha512.Sum512(bytes.TrimSpace(plain)))}, nil
}

func aggregateVersion(v *servedVersion) apidiscoveryv2.APIVersionDiscovery {
	out := apidiscoveryv2.APIVersionDiscovery{Version: v.gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	for _, served := range v.served {
		all := Resources(served)
		main := all[0]
		scope := apidiscoveryv2.ScopeCluster
		if main.Namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		own := func(r metav1.APIResource) *metav1.GroupVersionKind {
			if r.Kind == main.Kind && served.Kind.Custom {
				return &metav1.GroupVersionKind{Group: v.gv.Group, Version: v.gv.Version, Kind: r.Kind}
			}
			return &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
		}
		resource := apidiscoveryv2.APIResourceDiscovery{
			Resource: main.Name, ResponseKind: own(main), Scope: scope,
			SingularResource: main.SingularName, Verbs: main.Verbs, ShortNames: main.ShortNames, Categories: main.Categories,
		}
		for _, r := range all[1:] {
			name, _ := subresource(r.Name)
			resource.Subresources = append(resource.Subresources, apidiscoveryv2.APISubresourceDiscovery{
				Subresource:  name,
				ResponseKind: own(r),
				Verbs:        r.Verbs,
			})
		}
		out.Resources = append(out.Resources, resource)
	}
	return out
}

// keep returns a document, made once.
func (s *state) keep(key string, make func() (document, error)) (document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if doc, ok := s.kept[key]; ok {
		return doc, nil
	}
	doc, err := make()
	if err == nil {
		s.kept[key] = doc
	}
	return doc, err
}
