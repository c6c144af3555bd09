// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// CRD measures what custom resource definitions cost: applying them, what
// clients fetch afterwards, objects of one of them, and what they cost pods.
type CRD struct {
	// Definitions is how many are made, with schemas of an eighth of Bytes to Bytes.
	Definitions, Bytes int
	// Versions is how many each has, which share its bytes; the first is stored.
	Versions int
	// Rules is how many CEL rules each version has.
	Rules int
	// Objects is how many custom resources are made of one of them, and pods
	// before and after.
	Objects int
	Workers int
	// Idle is how long the server is left alone before and after.
	Idle time.Duration
	// Binary is this program; it is started as an API server unless a target is given.
	Binary string
}

// DefaultCRD is a cluster full of operators.
func DefaultCRD() CRD {
	return CRD{Definitions: 200, Bytes: 400 << 10, Versions: 1, Rules: 20, Objects: 1000, Workers: 8, Idle: 5 * time.Second}
}

// groupOf is where definition i is: twenty share one, as operators' do.
func groupOf(i int) string { return fmt.Sprintf("group%d.bench.example.com", i/20) }

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
	r := &crdRun{CRD: b, c: c, ns: fmt.Sprintf("kaji-bench-%d", time.Now().UnixNano())}
	done, err := c.namespace(ctx, r.ns)
	if err != nil {
		return err
	}
	defer done()
	defer r.remove(context.WithoutCancel(ctx))
	pods := func(name string, from int) {
		add(report, t, measure(ctx, name, t.Process, b.Workers, b.Objects, func(ctx context.Context, i int) (int64, error) { return r.pod(ctx, from+i) }))
	}
	pods("create a pod before", 0)
	add(report, t, idle(ctx, t.Process, b.Idle))
	if err := r.shown(ctx, report, t, "the only one", b.Definitions); err != nil {
		return err
	}
	made := measure(ctx, "define", t.Process, b.Workers, b.Definitions, r.define)
	add(report, t, made)
	if made.Errors > 0 {
		return fmt.Errorf("defining: %s", made.Error)
	}
	if err := r.served(ctx, b.Definitions-1); err != nil {
		return err
	}
	if err := r.shown(ctx, report, t, "one more", b.Definitions+1); err != nil {
		return err
	}
	pods("create a pod after", b.Objects)
	add(report, t, measure(ctx, "discovery", t.Process, 1, 5, func(ctx context.Context, _ int) (int64, error) {
		return c.get(ctx, "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	}))
	add(report, t, measure(ctx, "OpenAPI v3 of the group", t.Process, 1, 2, func(ctx context.Context, _ int) (int64, error) {
		return c.get(ctx, "/openapi/v3/apis/"+groupOf(0)+"/v1", asJSON)
	}))
	if err := r.useObjects(ctx, report, t); err != nil {
		return err
	}
	r.podsBesideV2(ctx, report, t)
	add(report, t, idle(ctx, t.Process, b.Idle))
	return ctx.Err()
}

// podsBesideV2 measures the one OpenAPI document of everything, and pods that are made
// while it is.
func (r *crdRun) podsBesideV2(ctx context.Context, report *Report, t *Target) {
	done := make(chan Result, 1)
	go func() {
		done <- measure(ctx, "OpenAPI v2", t.Process, 1, 1, func(ctx context.Context, _ int) (int64, error) {
			return r.c.get(ctx, "/openapi/v2", asJSON)
		})
	}()
	add(report, t, measure(ctx, "create a pod beside OpenAPI v2", t.Process, r.Workers, r.Objects, func(ctx context.Context, i int) (int64, error) {
		return r.pod(ctx, 2*r.Objects+i)
	}))
	add(report, t, <-done)
}

// useObjects measures objects of a definition with rules, and of one without.
func (r *crdRun) useObjects(ctx context.Context, report *Report, t *Target) error {
	plain := r.Definitions + 2
	r.Rules = 0
	if _, err := r.define(ctx, plain); err != nil {
		return err
	}
	if err := r.served(ctx, plain); err != nil {
		return err
	}
	for _, of := range []struct {
		name       string
		definition int
	}{{"create, no rules", plain}, {"create, with rules", 0}} {
		// The schema is compiled for the first object.
		if _, err := r.create(ctx, of.definition, r.Objects); err != nil {
			return err
		}
		add(report, t, measure(ctx, of.name, t.Process, r.Workers, r.Objects, func(ctx context.Context, i int) (int64, error) {
			return r.create(ctx, of.definition, i)
		}))
	}
	add(report, t, measure(ctx, "list", t.Process, r.Workers, 20, func(ctx context.Context, _ int) (int64, error) {
		return r.c.get(ctx, r.objects(0), asJSON)
	}))
	watched, err := r.watch(ctx, t.Process)
	if err == nil {
		add(report, t, watched)
	}
	return err
}

type crdRun struct {
	CRD
	c  *client
	ns string
}

// shown defines one and measures how long after the answer discovery has it, and
// OpenAPI.
func (r *crdRun) shown(ctx context.Context, report *Report, t *Target, what string, i int) error {
	if _, err := r.define(ctx, i); err != nil {
		return err
	}
	began := time.Now()
	for _, place := range []struct{ name, path, accept, sign string }{
		{"discovery shows ", "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", strconv.Quote(plural(i))},
		{"OpenAPI shows ", "/openapi/v3/apis/" + groupOf(i) + "/v1", asJSON, "/" + plural(i) + "\""},
	} {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		err := poll(ctx, time.Millisecond, func() (bool, error) {
			body, err := r.c.open(ctx, http.MethodGet, place.path, "", place.accept, nil)
			if isStatus(err, http.StatusNotFound) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			defer body.Close()
			text, err := io.ReadAll(body)
			return bytes.Contains(text, []byte(place.sign)), err
		})
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", place.name+what, err)
		}
		add(report, t, Result{Operation: place.name + what, Count: 1, Elapsed: time.Since(began), P50: time.Since(began)})
	}
	return nil
}

func (r *crdRun) pod(ctx context.Context, i int) (int64, error) {
	b, err := json.Marshal(newPod(i))
	if err != nil {
		return 0, err
	}
	return r.c.do(ctx, http.MethodPost, "/api/v1/namespaces/"+r.ns+"/pods", asJSON, asJSON, b)
}

// watchers is how many watch while objects change.
const watchers = 50

// watch counts one operation for each change of an object that reached a watcher.
func (r *crdRun) watch(ctx context.Context, p *Process) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var list struct{ Metadata metav1.ListMeta }
	if err := r.c.read(ctx, r.objects(0)+"?limit=1", &list); err != nil {
		return Result{}, err
	}
	events := min(r.Objects, 100)
	var all sync.WaitGroup
	failed := make(chan error, watchers)
	for range watchers {
		body, err := r.c.open(ctx, http.MethodGet, r.objects(0)+"?watch=1&resourceVersion="+list.Metadata.ResourceVersion, "", asJSON, nil)
		if err != nil {
			return Result{}, fmt.Errorf("opening a watch: %w", err)
		}
		all.Go(func() {
			defer body.Close()
			in := bufio.NewReader(body)
			for range events {
				if _, err := line(in); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	before, began := p.CPU(), time.Now()
	for i := range events {
		if _, err := r.c.do(ctx, http.MethodPatch, fmt.Sprintf("%s/object-%d", r.objects(0), i), asMerge, asJSON, []byte(`{"spec":{"replicas":2}}`)); err != nil {
			return Result{}, err
		}
	}
	all.Wait()
	res := Result{Operation: "watch", Count: watchers * events, Elapsed: time.Since(began), CPU: p.CPU() - before, Errors: len(failed)}
	if len(failed) > 0 {
		res.Error = (<-failed).Error()
	}
	return res, nil
}

func plural(i int) string { return fmt.Sprintf("benches%d", i) }

// objects is where those of definition i are.
func (r *crdRun) objects(i int) string {
	return "/apis/" + groupOf(i) + "/v1/namespaces/" + r.ns + "/" + plural(i)
}

// bytes is how large the schema of definition i is.
func (r *crdRun) bytes(i int) int { return r.Bytes/8 + i%8*(r.Bytes/8) }

// definition has versions with rules, and sections of fields until the schemas
// are large enough, as operators' definitions look.
func (r *crdRun) definition(i int) *apiextensions.CustomResourceDefinition {
	kind := fmt.Sprintf("Bench%d", i)
	crd := &apiextensions.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: plural(i) + "." + groupOf(i)},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: groupOf(i), Scope: apiextensions.NamespaceScoped,
			Names: apiextensions.CustomResourceDefinitionNames{Plural: plural(i), Singular: strings.ToLower(kind), Kind: kind, ListKind: kind + "List"},
		},
	}
	versions := max(r.Versions, 1)
	for v := range versions {
		crd.Spec.Versions = append(crd.Spec.Versions, apiextensions.CustomResourceDefinitionVersion{
			Name: fmt.Sprintf("v%d", v+1), Served: true, Storage: v == 0,
			Subresources: &apiextensions.CustomResourceSubresources{Status: &apiextensions.CustomResourceSubresourceStatus{}},
			Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{
				"spec": r.spec(i, v, r.bytes(i)/versions), "status": {Type: "object", XPreserveUnknownFields: ptr.To(true)},
			}}},
		})
	}
	return crd
}

// spec is the schema of the spec in version v of definition i, about so many bytes
// long.
func (r *crdRun) spec(i, v, bytes int) apiextensions.JSONSchemaProps {
	text := func(s string) apiextensions.JSONSchemaProps {
		return apiextensions.JSONSchemaProps{Type: "string", Description: s, MaxLength: ptr.To[int64](253)}
	}
	spec := apiextensions.JSONSchemaProps{Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{}}
	spec.Properties["replicas"] = apiextensions.JSONSchemaProps{Type: "integer", Default: &apiextensions.JSON{Raw: []byte("1")}, Minimum: ptr.To(0.0)}
	spec.Properties["maxReplicas"] = apiextensions.JSONSchemaProps{Type: "integer"}
	for rule := range r.Rules {
		spec.XValidations = append(spec.XValidations, apiextensions.ValidationRule{
			Rule: fmt.Sprintf("!has(self.maxReplicas) || self.replicas <= self.maxReplicas + %d", rule), Message: "replicas must not exceed maxReplicas",
		})
	}
	// A field with its description is about 250 bytes of JSON; a section holds twenty.
	for s := 0; s*20*250 < bytes; s++ {
		section := apiextensions.JSONSchemaProps{Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{}}
		for f := range 20 {
			section.Properties[fmt.Sprintf("field%d", f)] = text(fmt.Sprintf("Field %d of section %d of definition %d, version %d: %s", f, s, i, v+1, strings.Repeat("what it is for and when to set it. ", 4)))
		}
		spec.Properties[fmt.Sprintf("section%d", s)] = section
	}
	return spec
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
		_, err := r.c.get(ctx, "/apis/"+groupOf(i)+"/v1/"+plural(i), asJSON)
		if isStatus(err, http.StatusNotFound) {
			return false, nil
		}
		return err == nil, err
	})
}

// create makes object i of a definition.
func (r *crdRun) create(ctx context.Context, definition, i int) (int64, error) {
	b := fmt.Appendf(nil, `{"apiVersion":"%s/v1","kind":"Bench%d","metadata":{"name":"object-%d"},"spec":{"maxReplicas":3,"section0":{"field0":%q}}}`, groupOf(definition), definition, i, strings.Repeat("x", 200))
	return r.c.do(ctx, http.MethodPost, r.objects(definition), asJSON, asJSON, b)
}

func (r *crdRun) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	measure(ctx, "", nil, r.Workers, r.Definitions+3, func(ctx context.Context, i int) (int64, error) {
		return r.c.do(ctx, http.MethodDelete, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+plural(i)+"."+groupOf(i), "", asJSON, nil)
	})
}
