// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// CRD measures what custom resource definitions cost: applying them, what
// clients fetch afterwards, and objects of one of them.
type CRD struct {
	// Definitions is how many are made, each with a schema of about Bytes.
	Definitions, Bytes int
	// Objects is how many custom resources are made of the first.
	Objects int
	Workers int
	// Idle is how long the server is left alone before and after.
	Idle time.Duration
	// Binary is this program; it is started as an API server unless a target is given.
	Binary string
}

// DefaultCRD is a cluster full of operators.
func DefaultCRD() CRD {
	return CRD{Definitions: 200, Bytes: 100 << 10, Objects: 1000, Workers: 8, Idle: 5 * time.Second}
}

const crdGroup = "bench.example.com"

// Run measures t, or an API server of this program's when t is nil, and deletes
// what it made.
func (b CRD) Run(ctx context.Context, t *Target, report *Report) error {
	if t == nil {
		own, err := startPlane(ctx, b.Binary)
		if err != nil {
			return err
		}
		defer own.stop()
		t = own.Target
	}
	c, err := t.client()
	if err != nil {
		return err
	}
	r := &crdRun{CRD: b, c: c}
	add(report, t, idle(ctx, t.Process, b.Idle))
	made := measure(ctx, "define", t.Process, b.Workers, b.Definitions, r.define)
	add(report, t, made)
	defer r.remove(context.WithoutCancel(ctx))
	if made.Errors > 0 {
		return fmt.Errorf("defining: %s", made.Error)
	}
	if err := r.served(ctx, b.Definitions-1); err != nil {
		return err
	}
	add(report, t, measure(ctx, "discovery", t.Process, 1, 5, func(ctx context.Context, _ int) (int64, error) {
		return c.get(ctx, "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	}))
	add(report, t, measure(ctx, "OpenAPI v3 of the group", t.Process, 1, 2, func(ctx context.Context, _ int) (int64, error) {
		return c.get(ctx, "/openapi/v3/apis/"+crdGroup+"/v1", asJSON)
	}))
	add(report, t, measure(ctx, "create", t.Process, b.Workers, b.Objects, r.create))
	add(report, t, measure(ctx, "list", t.Process, b.Workers, 20, func(ctx context.Context, _ int) (int64, error) {
		return c.get(ctx, r.objects(), asJSON)
	}))
	add(report, t, idle(ctx, t.Process, b.Idle))
	return ctx.Err()
}

type crdRun struct {
	CRD
	c *client
}

func plural(i int) string { return fmt.Sprintf("benches%d", i) }

func (r *crdRun) objects() string {
	return "/apis/" + crdGroup + "/v1/namespaces/default/" + plural(0)
}

// definition has sections of fields until its schema is large enough, the first with a
// rule, as operators' definitions look.
func (r *crdRun) definition(i int) *apiextensions.CustomResourceDefinition {
	text := func(s string) apiextensions.JSONSchemaProps {
		return apiextensions.JSONSchemaProps{Type: "string", Description: s, MaxLength: ptr.To[int64](253)}
	}
	spec := apiextensions.JSONSchemaProps{Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{}}
	spec.Properties["replicas"] = apiextensions.JSONSchemaProps{Type: "integer", Default: &apiextensions.JSON{Raw: []byte("1")}, Minimum: ptr.To(0.0)}
	spec.Properties["maxReplicas"] = apiextensions.JSONSchemaProps{Type: "integer"}
	spec.XValidations = apiextensions.ValidationRules{{Rule: "!has(self.maxReplicas) || self.replicas <= self.maxReplicas", Message: "replicas must not exceed maxReplicas"}}
	// A field with its description is about 250 bytes of JSON; a section holds twenty.
	for s := 0; s*20*250 < r.Bytes; s++ {
		section := apiextensions.JSONSchemaProps{Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{}}
		for f := range 20 {
			section.Properties[fmt.Sprintf("field%d", f)] = text(fmt.Sprintf("Field %d of section %d of definition %d: %s", f, s, i, strings.Repeat("what it is for and when to set it. ", 4)))
		}
		spec.Properties[fmt.Sprintf("section%d", s)] = section
	}
	kind := fmt.Sprintf("Bench%d", i)
	return &apiextensions.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: plural(i) + "." + crdGroup},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: crdGroup, Scope: apiextensions.NamespaceScoped,
			Names: apiextensions.CustomResourceDefinitionNames{Plural: plural(i), Singular: strings.ToLower(kind), Kind: kind, ListKind: kind + "List"},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Subresources: &apiextensions.CustomResourceSubresources{Status: &apiextensions.CustomResourceSubresourceStatus{}},
				Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{
					"spec": spec, "status": {Type: "object", XPreserveUnknownFields: ptr.To(true)},
				}}},
			}},
		},
	}
}

func (r *crdRun) define(ctx context.Context, i int) (int64, error) {
	b, err := json.Marshal(r.definition(i))
	if err != nil {
		return 0, err
	}
	return r.c.do(ctx, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", asJSON, asJSON, b)
}

// served waits until the objects of definition i can be listed.
func (r *crdRun) served(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return poll(ctx, 20*time.Millisecond, func() (bool, error) {
		_, err := r.c.get(ctx, "/apis/"+crdGroup+"/v1/"+plural(i), asJSON)
		if isStatus(err, http.StatusNotFound) {
			return false, nil
		}
		return err == nil, err
	})
}

func (r *crdRun) create(ctx context.Context, i int) (int64, error) {
	b := fmt.Appendf(nil, `{"apiVersion":"%s/v1","kind":"Bench0","metadata":{"name":"object-%d"},"spec":{"maxReplicas":3,"section0":{"field0":%q}}}`, crdGroup, i, strings.Repeat("x", 200))
	return r.c.do(ctx, http.MethodPost, r.objects(), asJSON, asJSON, b)
}

func (r *crdRun) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	measure(ctx, "", nil, r.Workers, r.Definitions, func(ctx context.Context, i int) (int64, error) {
		return r.c.do(ctx, http.MethodDelete, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+plural(i)+"."+crdGroup, "", asJSON, nil)
	})
}
