// SPDX-License-Identifier: Apache-2.0

package extension

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var verbs = metav1.Verbs{"create", "delete", "get", "list", "watch"}

// describe answers what the server says about itself.
func (s *Server) describe(w http.ResponseWriter, r *http.Request) {
	aggregated := strings.Contains(r.Header.Get("Accept"), "as=APIGroupDiscoveryList") && !s.OnlyPlain
	switch {
	case r.URL.Path == "/apis" && aggregated:
		tagged(w, r, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", discoveryDocument())
	case r.URL.Path == root:
		write(w, http.StatusOK, metav1.APIResourceList{
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: Group + "/" + Version,
			APIResources: []metav1.APIResource{
				{Name: "fruits", SingularName: "fruit", Namespaced: true, Kind: "Fruit", Verbs: verbs, ShortNames: []string{"fr"}},
			},
		})
	case r.URL.Path == "/openapi/v2":
		tagged(w, r, "application/json", schemaDocument(object{"swagger": "2.0"}, false))
	case r.URL.Path == "/openapi/v3" && !s.OnlyV2:
		tagged(w, r, "application/json", object{"paths": object{
			strings.TrimPrefix(root, "/"): object{"serverRelativeURL": "/openapi/v3" + root + "?hash=" + schemaHash()},
		}})
	case r.URL.Path == "/openapi/v3"+root && !s.OnlyV2:
		tagged(w, r, "application/json", schemaDocument(object{"openapi": "3.0.0"}, true))
	default:
		http.NotFound(w, r)
	}
}

// tagged answers with a document unless the client has it.
func tagged(w http.ResponseWriter, r *http.Request, contentType string, document any) {
	data, err := json.Marshal(document)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256(data))
	w.Header().Set("Etag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(data) // the client may be gone
}

func discoveryDocument() apidiscoveryv2.APIGroupDiscoveryList {
	return apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"},
		Items: []apidiscoveryv2.APIGroupDiscovery{{
			ObjectMeta: metav1.ObjectMeta{Name: Group},
			Versions: []apidiscoveryv2.APIVersionDiscovery{{
				Version: Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent,
				Resources: []apidiscoveryv2.APIResourceDiscovery{{
					Resource: "fruits", SingularResource: "fruit", Scope: apidiscoveryv2.ScopeNamespace, Verbs: verbs, ShortNames: []string{"fr"},
					ResponseKind: &metav1.GroupVersionKind{Group: Group, Version: Version, Kind: "Fruit"},
				}},
			}},
		}},
	}
}

type object = map[string]any

// schemaDocument is the OpenAPI document of the kind in either form.
func schemaDocument(document object, v3 bool) object {
	const model = "com.example.orchard.v1.Fruit"
	kind := object{"group": Group, "version": Version, "kind": "Fruit"}
	models := object{
		model: object{
			"description": "Fruit grows on trees.", "type": "object", "x-kubernetes-group-version-kind": []object{kind},
			"properties": object{
				"apiVersion": object{"type": "string"}, "kind": object{"type": "string"}, "metadata": object{"type": "object"},
				"spec": object{
					"type": "object", "description": "What the fruit is like.", "required": []string{"color"},
					"properties": object{
						"color": object{"type": "string", "description": "The colour of the ripe fruit."},
						"grams": object{"type": "integer", "format": "int64", "description": "What it weighs."},
					},
				},
			},
		},
	}
	answer := object{"description": "OK", "schema": object{"$ref": "#/definitions/" + model}}
	parameter := object{"name": "namespace", "in": "path", "required": true, "type": "string"}
	if v3 {
		answer = object{"description": "OK", "content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/" + model}}}}
		parameter = object{"name": "namespace", "in": "path", "required": true, "schema": object{"type": "string"}}
		document["components"] = object{"schemas": models}
	} else {
		document["definitions"] = models
	}
	document["info"] = object{"title": "orchard", "version": "1"}
	list := object{
		"operationId": "listFruit", "description": "list fruits", "responses": object{"200": answer},
		"x-kubernetes-action": "list", "x-kubernetes-group-version-kind": kind,
	}
	if !v3 {
		list["produces"] = []string{"application/json"}
	}
	document["paths"] = object{
		root + "/namespaces/{namespace}/fruits": object{"get": list, "parameters": []object{parameter}},
	}
	return document
}

func schemaHash() string {
	data, _ := json.Marshal(schemaDocument(object{"openapi": "3.0.0"}, true)) // made of strings
	return fmt.Sprintf("%X", sha256.Sum256(data))
}
