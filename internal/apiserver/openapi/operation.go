// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// operation is one method of a path, in the terms both versions share.
type operation struct {
	method      string
	id, tag     string
	description string
	action      string                  // x-kubernetes-action, may be empty
	gvk         schema.GroupVersionKind // none where kind is empty
	params      []param
	// body is the model of the request, empty for none; bodyTypes its media
	// types.
	body         string
	bodyTypes    []string
	bodyRequired bool
	// consumes are the media types that v2 tells of an operation without a body,
	// nil for any.
	consumes []string
	// answer is the model of the answer, empty for a plain string.
	answer      string
	answerTypes []string
	// codes are the answers beside 401.
	codes []string
}

// param is a parameter of the path or query.
type param struct {
	name, in, kind, description string
}

// Media types of bodies and answers.
var (
	objectTypes = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	textTypes   = objectTypes[:2:2]
	streamTypes = append(slices.Clip(objectTypes), "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
	patchTypes  = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"}
	anyTypes    = []string{"*/*"}
)

// Models of package meta/v1 that operations speak of.
const (
	metaPrefix         = "io.k8s.apimachinery.pkg.apis.meta.v1."
	statusModel        = metaPrefix + "Status"
	patchModel         = metaPrefix + "Patch"
	watchEventModel    = metaPrefix + "WatchEvent"
	deleteOptionsModel = metaPrefix + "DeleteOptions"
	scaleModel         = "io.k8s.api.autoscaling.v1.Scale"
)

// pretty is a parameter of every operation on objects.
func pretty() param {
	return param{"pretty", "query", "string", "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."}
}

func pathName(kind string) param { return param{"name", "path", "string", "name of the " + kind} }

func pathNamespace() param {
	return param{"namespace", "path", "string", "object name and auth scope, such as for teams and projects"}
}

// query makes parameters of fields of an options type, named "field" or
// "field:type" where that is not string, described as the type describes them.
func query(doc map[string]string, fields ...string) []param {
	params := make([]param, len(fields))
	for i, f := range fields {
		name, kind, typed := strings.Cut(f, ":")
		if !typed {
			kind = "string"
		}
		params[i] = param{name, "query", kind, doc[name]}
	}
	return params
}

func listParams() []param {
	return query(metav1.ListOptions{}.SwaggerDoc(), "allowWatchBookmarks:boolean", "continue", "fieldSelector", "labelSelector",
		"limit:integer", "resourceVersion", "resourceVersionMatch", "sendInitialEvents:boolean", "shardSelector", "timeoutSeconds:integer", "watch:boolean")
}

func writeParams() []param {
	return query(metav1.CreateOptions{}.SwaggerDoc(), "dryRun", "fieldManager", "fieldValidation")
}

func patchParams() []param {
	return query(metav1.PatchOptions{}.SwaggerDoc(), "dryRun", "fieldManager", "fieldValidation", "force:boolean")
}

func deleteParams() []param {
	return query(metav1.DeleteOptions{}.SwaggerDoc(), "dryRun", "gracePeriodSeconds:integer",
		"ignoreStoreReadErrorWithClusterBreakingPotential:boolean", "orphanDependents:boolean", "propagationPolicy")
}

// pathItem is a path with its operations.
type pathItem struct {
	path       string
	operations []operation
}

// common returns the parameters that all operations of a path have, in order
// of name, and leaves the others, in that order too, with each operation.
func (p *pathItem) common() []param {
	var shared []param
	for _, candidate := range p.operations[0].params {
		everywhere := true
		for i := range p.operations {
			everywhere = everywhere && slices.Contains(p.operations[i].params, candidate)
		}
		if everywhere {
			shared = append(shared, candidate)
		}
	}
	for i := range p.operations {
		op := &p.operations[i]
		op.params = slices.DeleteFunc(slices.Clone(op.params), func(c param) bool { return slices.Contains(shared, c) })
		slices.SortFunc(op.params, byName)
	}
	slices.SortFunc(shared, byName)
	return shared
}

func byName(a, b param) int {
	return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.in, b.in))
}
