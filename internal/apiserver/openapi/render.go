// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Where references to models point in the two versions.
const (
	refV2 = "#/definitions/"
	refV3 = "#/components/schemas/"
)

type object = map[string]any

// info is what all documents are called.
func info(version string) object { return object{"title": "Kubernetes", "version": version} }

// description is what a status code means.
func description(code string) string {
	switch code {
	case "200":
		return "OK"
	case "201":
		return "Created"
	case "202":
		return "Accepted"
	}
	return "Unauthorized"
}

// extensions adds what Kubernetes says of an operation.
func (op *operation) extensions(to object) {
	if op.action != "" {
		to["x-kubernetes-action"] = op.action
	}
	if op.gvk != (schema.GroupVersionKind{}) {
		to["x-kubernetes-group-version-kind"] = object{"group": op.gvk.Group, "version": op.gvk.Version, "kind": op.gvk.Kind}
	}
}

// models returns the models that paths refer to.
func models(items []pathItem) (names []string) {
	for i := range items {
		for j := range items[i].operations {
			op := &items[i].operations[j]
			for _, m := range []string{op.body, op.answer} {
				if m != "" {
					names = append(names, m)
				}
			}
		}
	}
	return names
}

func (p *pathItem) v3() object {
	item := object{}
	if shared := p.common(); len(shared) > 0 {
		item["parameters"] = paramsV3(shared)
	}
	for i := range p.operations {
		item[p.operations[i].method] = p.operations[i].v3()
	}
	return item
}

func paramsV3(params []param) []object {
	out := make([]object, len(params))
	for i, p := range params {
		out[i] = object{"name": p.name, "in": p.in, "description": p.description, "schema": object{"type": p.kind, "uniqueItems": true}}
		if p.in == "path" {
			out[i]["required"] = true
		}
	}
	return out
}

func (op *operation) v3() object {
	out := object{"tags": []string{op.tag}, "operationId": op.id, "description": op.description}
	if len(op.params) > 0 {
		out["parameters"] = paramsV3(op.params)
	}
	if op.body != "" {
		body := object{"content": contentV3(op.bodyTypes, op.body)}
		if op.bodyRequired {
			body["required"] = true
		}
		out["requestBody"] = body
	}
	answers := object{"401": object{"description": description("401")}}
	for _, code := range op.codes {
		answers[code] = object{"description": description(code), "content": contentV3(op.answerTypes, op.answer)}
	}
	out["responses"] = answers
	op.extensions(out)
	return out
}

func contentV3(types []string, model string) object {
	content := object{}
	for _, t := range types {
		content[t] = object{"schema": modelSchema(refV3, model)}
	}
	return content
}

// modelSchema refers to a model, or is a plain string.
func modelSchema(prefix, model string) object {
	if model == "" {
		return object{"type": "string"}
	}
	return object{"$ref": prefix + model}
}

func (p *pathItem) v2() object {
	item := object{}
	if shared := p.common(); len(shared) > 0 {
		item["parameters"] = paramsV2(shared)
	}
	for i := range p.operations {
		item[p.operations[i].method] = p.operations[i].v2()
	}
	return item
}

func paramsV2(params []param) []object {
	out := make([]object, len(params))
	for i, p := range params {
		out[i] = object{"name": p.name, "in": p.in, "description": p.description, "type": p.kind, "uniqueItems": true}
		if p.in == "path" {
			out[i]["required"] = true
		}
	}
	return out
}

func (op *operation) v2() object {
	out := object{
		"tags": []string{op.tag}, "operationId": op.id, "description": op.description,
		"schemes": []string{"https"}, "produces": op.answerTypes, "consumes": anyTypes,
	}
	if op.consumes != nil {
		out["consumes"] = op.consumes
	}
	params := paramsV2(op.params)
	if op.body != "" {
		body := object{"name": "body", "in": "body", "schema": modelSchema(refV2, op.body)}
		if op.bodyRequired {
			body["required"] = true
		}
		params = append([]object{body}, params...)
		out["consumes"] = op.bodyTypes
	}
	if len(params) > 0 {
		out["parameters"] = params
	}
	answers := object{"401": object{"description": description("401")}}
	for _, code := range op.codes {
		answers[code] = object{"description": description(code), "schema": modelSchema(refV2, op.answer)}
	}
	out["responses"] = answers
	op.extensions(out)
	return out
}
