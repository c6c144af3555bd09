// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/apiserver/discovery"
	"kaji/internal/apiserver/request"
)

// model is a Go type that knows its name in OpenAPI.
type model interface{ OpenAPIModelName() string }

// modelOf returns the model of objects (or, with list, of lists) of a resource.
func modelOf(s *request.Served, list bool) string {
	if s.Kind.Custom {
		return customModel(s.GVK, list)
	}
	var obj any = s.Version.New()
	if list && s.Version.NewList != nil {
		obj = s.Version.NewList()
	}
	if m, ok := obj.(model); ok {
		return m.OpenAPIModelName()
	}
	return ""
}

// customModel names the model of a custom resource: its group backwards.
func customModel(gvk schema.GroupVersionKind, list bool) string {
	parts := strings.Split(gvk.Group, ".")
	slices.Reverse(parts)
	name := strings.Join(parts, ".") + "." + gvk.Version + "." + gvk.Kind
	if list {
		name += "List"
	}
	return name
}

// groupName is a group as operations name it: rbac.authorization.k8s.io is
// rbacAuthorization, and core has a name too.
func groupName(group string) string {
	if group == "" {
		return "core"
	}
	group = strings.TrimSuffix(group, ".k8s.io")
	var b strings.Builder
	for i, part := range strings.FieldsFunc(group, func(r rune) bool { return r == '.' || r == '-' }) {
		if i > 0 {
			part = title(part)
		}
		b.WriteString(part)
	}
	return b.String()
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// root is the path of a version.
func root(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

// namer makes the operations of one resource.
type namer struct {
	served *request.Served
	tag    string
	prefix string // of operation ids, such as AppsV1
	kind   string
	object string // model
	list   string // model
}

func newNamer(s *request.Served) *namer {
	group := groupName(s.GVK.Group)
	return &namer{
		served: s, kind: s.GVK.Kind,
		tag:    group + "_" + s.GVK.Version,
		prefix: title(group) + title(s.GVK.Version),
		object: modelOf(s, false), list: modelOf(s, true),
	}
}

func (n *namer) scope() string {
	if n.served.Kind.Namespaced {
		return "Namespaced"
	}
	return ""
}

// versionPaths returns the paths of a version, for resources served in it.
func versionPaths(gv schema.GroupVersion, served []*request.Served) []pathItem {
	tag := groupName(gv.Group) + "_" + gv.Version
	var items []pathItem
	if slices.ContainsFunc(served, func(s *request.Served) bool { return !s.Kind.Custom }) {
		items = append(items, pathItem{path: root(gv) + "/", operations: []operation{{
			method: "get", tag: tag, id: "get" + title(groupName(gv.Group)) + title(gv.Version) + "APIResources",
			description: "get available resources", answer: metaPrefix + "APIResourceList", answerTypes: objectTypes, codes: []string{"200"},
		}}})
	}
	for _, s := range served {
		items = append(items, newNamer(s).paths()...)
	}
	slices.SortFunc(items, func(a, b pathItem) int { return strings.Compare(a.path, b.path) })
	return items
}

// paths returns all paths of the resource.
func (n *namer) paths() []pathItem {
	base := root(n.served.GVK.GroupVersion())
	resource := n.served.GVR.Resource
	all, where := base+"/"+resource, []param(nil)
	collection := all
	if n.served.Kind.Namespaced {
		where = []param{pathNamespace()}
		collection = base + "/namespaces/{namespace}/" + resource
	}
	one := collection + "/{name}"
	named := append(slices.Clip(where), pathName(n.kind))
	has := func(verb string) bool {
		return n.served.Kind.Verbs == nil || slices.Contains(n.served.Kind.Verbs, verb)
	}

	var items []pathItem
	add := func(path string, params []param, ops ...operation) {
		for i := range ops {
			ops[i].params = append(slices.Clip(ops[i].params), params...)
		}
		if len(ops) > 0 {
			items = append(items, pathItem{path: path, operations: ops})
		}
	}
	var ops []operation
	if has("list") {
		ops = append(ops, n.op("get", "list", "list"+n.prefix+n.scope()+n.kind, "list or watch objects of kind "+n.kind, n.list, streamTypes, listParams()))
	}
	if has("create") {
		ops = append(ops, n.write("post", "create"+n.prefix+n.scope()+n.kind, article("create", n.kind), n.object, writeParams()))
	}
	if has("deletecollection") {
		op := n.op("delete", "deletecollection", "delete"+n.prefix+"Collection"+n.scope()+n.kind, "delete collection of "+n.kind, statusModel, objectTypes, nil)
		op.params = append(op.params, slices.DeleteFunc(listParams(), func(p param) bool { return p.name == "watch" || p.name == "allowWatchBookmarks" })...)
		op.params = append(op.params, deleteParams()...)
		op.body, op.bodyTypes = deleteOptionsModel, anyTypes
		ops = append(ops, op)
	}
	add(collection, where, ops...)

	ops = nil
	if has("get") {
		ops = append(ops, n.op("get", "get", "read"+n.prefix+n.scope()+n.kind, "read the specified "+n.kind, n.object, objectTypes, nil))
	}
	if has("update") {
		ops = append(ops, n.write("put", "replace"+n.prefix+n.scope()+n.kind, "replace the specified "+n.kind, n.object, writeParams()))
	}
	if has("delete") {
		answer := statusModel
		if n.served.Kind.ReturnDeletedObject {
			answer = n.object
		}
		op := n.op("delete", "delete", "delete"+n.prefix+n.scope()+n.kind, article("delete", n.kind), answer, objectTypes, deleteParams())
		op.body, op.bodyTypes, op.codes = deleteOptionsModel, anyTypes, []string{"200", "202"}
		ops = append(ops, op)
	}
	if has("patch") {
		ops = append(ops, n.patch("patch"+n.prefix+n.scope()+n.kind, "partially update the specified "+n.kind, n.object))
	}
	add(one, named, ops...)

	if n.served.Kind.Namespaced && has("list") {
		add(all, nil, n.op("get", "list", "list"+n.prefix+n.kind+"ForAllNamespaces", "list or watch objects of kind "+n.kind, n.list, streamTypes, listParams()))
	}
	if has("watch") {
		watchBase := strings.Replace(collection, base, base+"/watch", 1)
		add(watchBase, where, n.watch("watchlist", "watch"+n.prefix+n.scope()+n.kind+"List", watchListDescription(n.kind)))
		add(watchBase+"/{name}", named, n.watch("watch", "watch"+n.prefix+n.scope()+n.kind, "watch changes to an object of kind "+n.kind+
			". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."))
		if n.served.Kind.Namespaced {
			add(base+"/watch/"+resource, nil, n.watch("watchlist", "watch"+n.prefix+n.kind+"ListForAllNamespaces", watchListDescription(n.kind)))
		}
	}
	for _, sub := range discovery.Resources(n.served)[1:] {
		n.subresource(sub, one, named, add)
	}
	if n.served.Kind.Custom {
		return n.asCustom(items)
	}
	return items
}

// asCustom makes of the paths of a resource what is published of a custom one: less,
// and not all of it true, but what clients have always been given.
func (n *namer) asCustom(items []pathItem) []pathItem {
	items = slices.DeleteFunc(items, func(p pathItem) bool {
		return strings.HasPrefix(p.path, root(n.served.GVK.GroupVersion())+"/watch/")
	})
	for i := range items {
		for j := range items[i].operations {
			op := &items[i].operations[j]
			op.gvk, op.answerTypes, op.consumes = n.served.GVK, textTypes, textTypes
			if slices.Equal(op.bodyTypes, anyTypes) {
				op.bodyTypes = textTypes
			}
			if at := slices.IndexFunc(op.params, func(p param) bool { return p.in == "path" && p.name == "name" }); at >= 0 {
				op.params[at] = pathName(n.kind)
			}
			switch op.action {
			case "list":
				op.description = "list objects of kind " + n.kind
			case "get":
				op.params = append(op.params, query(metav1.GetOptions{}.SwaggerDoc(), "resourceVersion")...)
			case "patch":
				op.codes = []string{"200"}
			case "deletecollection":
				own := slices.DeleteFunc(op.params, func(p param) bool { return p.in == "query" })
				op.params = append(append(own, listParams()...), pretty())
				op.body, op.bodyTypes = "", nil
			}
		}
	}
	return items
}

func watchListDescription(kind string) string {
	return "watch individual changes to a list of " + kind + ". deprecated: use the 'watch' parameter with a list operation instead."
}

// article is a description with the article that a kind's first letter wants.
func article(verb, kind string) string {
	if strings.ContainsRune("AEIOU", rune(kind[0])) {
		return verb + " an " + kind
	}
	return verb + " a " + kind
}

// op is an operation that reads.
func (n *namer) op(method, action, id, description, answer string, types []string, params []param) operation {
	return operation{
		method: method, id: id, tag: n.tag, description: description, action: action, gvk: n.served.GVK,
		params: append(params, pretty()), answer: answer, answerTypes: types, codes: []string{"200"},
	}
}

func (n *namer) watch(action, id, description string) operation {
	return n.op("get", action, id, description, watchEventModel, streamTypes, listParams())
}

// write is an operation that sends an object.
func (n *namer) write(method, id, description, model string, params []param) operation {
	op := n.op(method, method, id, description, model, objectTypes, params)
	op.body, op.bodyTypes, op.bodyRequired = model, anyTypes, true
	op.codes = []string{"200", "201"}
	if method == "post" {
		op.codes = []string{"200", "201", "202"}
	}
	return op
}

func (n *namer) patch(id, description, model string) operation {
	op := n.op("patch", "patch", id, description, model, objectTypes, patchParams())
	op.body, op.bodyTypes, op.bodyRequired, op.codes = patchModel, patchTypes, true, []string{"200", "201"}
	if n.served.Kind.Custom {
		op.bodyTypes = slices.DeleteFunc(slices.Clone(patchTypes), func(t string) bool { return strings.Contains(t, "strategic") })
	}
	return op
}

// subresource adds the paths of one subresource.
func (n *namer) subresource(sub metav1.APIResource, one string, named []param, add func(string, []param, ...operation)) {
	_, name, _ := strings.Cut(sub.Name, "/")
	suffix := n.scope() + n.kind + title(name)
	gvk := n.served.GVK
	answer := n.object
	if sub.Kind != n.kind {
		gvk = schema.GroupVersionKind{Group: sub.Group, Version: sub.Version, Kind: sub.Kind}
		if sub.Version == "" {
			gvk.Version = n.served.GVK.Version
		}
		answer = subresourceModel(gvk)
	}
	if strings.HasSuffix(sub.Kind, "Options") {
		n.connect(sub, gvk, suffix, one+"/"+name, named, add)
		return
	}
	var ops []operation
	for _, verb := range []string{"get", "update", "patch", "create"} {
		if !slices.Contains(sub.Verbs, verb) {
			continue
		}
		var op operation
		switch verb {
		case "get":
			op = n.op("get", "get", "read"+n.prefix+suffix, "read "+name+" of the specified "+n.kind, answer, objectTypes, nil)
		case "update":
			op = n.write("put", "replace"+n.prefix+suffix, "replace "+name+" of the specified "+n.kind, answer, writeParams())
		case "patch":
			op = n.patch("patch"+n.prefix+suffix, "partially update "+name+" of the specified "+n.kind, answer)
		case "create":
			op = n.write("post", "create"+n.prefix+suffix, "create "+name+" of "+strings.TrimPrefix(article("", n.kind), " "), answer, writeParams())
		}
		op.gvk = gvk
		ops = append(ops, op)
	}
	if name == "log" {
		ops[0].answer, ops[0].answerTypes = "", append([]string{"text/plain"}, objectTypes...)
		ops[0].params = append(ops[0].params, query(corev1.PodLogOptions{}.SwaggerDoc(), "container", "follow:boolean", "insecureSkipTLSVerifyBackend:boolean",
			"limitBytes:integer", "previous:boolean", "sinceSeconds:integer", "stream", "tailLines:integer", "timestamps:boolean")...)
	}
	// The object is named by its path, so the kind of the path names it.
	switch sub.Kind {
	case "Scale", "Eviction", "Binding", "TokenRequest":
		named = append(slices.Clone(named[:len(named)-1]), pathName(sub.Kind))
	}
	add(one+"/"+name, named, ops...)
}

// subresourceModel names the model of a subresource that is a kind of its own.
func subresourceModel(gvk schema.GroupVersionKind) string {
	group := strings.TrimSuffix(gvk.Group, ".k8s.io")
	if group == "" {
		group = "core"
	}
	return "io.k8s.api." + group + "." + gvk.Version + "." + gvk.Kind
}

// connect adds the paths of a subresource that is a connection.
func (n *namer) connect(sub metav1.APIResource, gvk schema.GroupVersionKind, suffix, path string, named []param, add func(string, []param, ...operation)) {
	var params []param
	methods := []string{"get", "post"}
	switch sub.Kind {
	case "PodExecOptions":
		params = query(corev1.PodExecOptions{}.SwaggerDoc(), "command", "container", "stderr:boolean", "stdin:boolean", "stdout:boolean", "tty:boolean")
	case "PodAttachOptions":
		params = query(corev1.PodAttachOptions{}.SwaggerDoc(), "container", "stderr:boolean", "stdin:boolean", "stdout:boolean", "tty:boolean")
	case "PodPortForwardOptions":
		params = query(corev1.PodPortForwardOptions{}.SwaggerDoc(), "ports:integer")
	default:
		params = query(corev1.PodProxyOptions{}.SwaggerDoc(), "path")
		methods = []string{"get", "put", "post", "delete", "options", "head", "patch"}
	}
	named = append(slices.Clone(named[:len(named)-1]), pathName(sub.Kind))
	operations := func(idSuffix string) []operation {
		ops := make([]operation, len(methods))
		for i, m := range methods {
			ops[i] = operation{
				method: m, id: "connect" + n.prefix + title(m) + suffix + idSuffix, tag: n.tag, action: "connect", gvk: gvk,
				description: "connect " + strings.ToUpper(m) + " requests to " + strings.TrimPrefix(sub.Name[strings.IndexByte(sub.Name, '/'):], "/") + " of " + n.kind,
				params:      params, answerTypes: anyTypes, codes: []string{"200"},
			}
		}
		return ops
	}
	add(path, named, operations("")...)
	if len(methods) > 2 {
		add(path+"/{path}", append(slices.Clip(named), param{"path", "path", "string", "path to the resource"}), operations("WithPath")...)
	}
}

// rootPaths are the documents beside those of versions, by their name in the
// index.
func rootPaths(groups []string) map[string]pathItem {
	get := func(path, tag, id, description, answer string, types []string) pathItem {
		return pathItem{path: path, operations: []operation{{
			method: "get", tag: tag, id: id, description: description, answer: answer, answerTypes: types, codes: []string{"200"},
		}}}
	}
	items := map[string]pathItem{
		"api":     get("/api/", "core", "getCoreAPIVersions", "get available API versions", metaPrefix+"APIVersions", objectTypes),
		"apis":    get("/apis/", "apis", "getAPIVersions", "get available API versions", metaPrefix+"APIGroupList", objectTypes),
		"version": get("/version/", "version", "getCodeVersion", "get the version information for this server", "io.k8s.apimachinery.pkg.version.Info", []string{"application/json"}),
		".well-known/openid-configuration": get("/.well-known/openid-configuration/", "WellKnown", "getServiceAccountIssuerOpenIDConfiguration",
			"get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'", "", []string{"application/json"}),
		"openid/v1/jwks": get("/openid/v1/jwks/", "openid", "getServiceAccountIssuerOpenIDKeyset",
			"get service account issuer OpenID JSON Web Key Set (contains public token verification keys)", "", []string{"application/jwk-set+json"}),
	}
	for _, g := range groups {
		if g != "" {
			items["apis/"+g] = get("/apis/"+g+"/", groupName(g), "get"+title(groupName(g))+"APIGroup", "get information of a group", metaPrefix+"APIGroup", objectTypes)
		}
	}
	return items
}
