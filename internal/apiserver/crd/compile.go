// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"kaji/internal/apiserver/cache"
)

// version is one version of a definition. What its schema compiles to is made
// at first use and dropped when it was not used for a while.
type version struct {
	source atomic.Pointer[origin]

	mu   sync.Mutex // held while compiling
	made atomic.Pointer[compiled]
	used atomic.Int64 // unix seconds
}

// origin is where a version is defined. Its schema is taken from the entry when
// it is needed: it takes far more memory than all else of a kind.
type origin struct {
	entry *cache.Entry
	crd   *apiextensionsv1.CustomResourceDefinition // maybe without schemas
	spec  *apiextensionsv1.CustomResourceDefinitionVersion
}

// newVersion returns a version of a definition, a state of e, by its index.
func newVersion(e *cache.Entry, crd *apiextensionsv1.CustomResourceDefinition, i int) *version {
	v := &version{}
	v.source.Store(&origin{e, crd, &crd.Spec.Versions[i]})
	return v
}

// validation returns the version's schema, nil for none.
func (o *origin) validation() *apiextensionsv1.CustomResourceValidation {
	if p, ok := o.entry.Packed().(*packed); ok {
		if v := p.version(o.spec.Name); v != nil {
			return v.Schema
		}
		return nil
	}
	whole := wholeOf(o.entry)
	for i := range whole.Spec.Versions {
		if whole.Spec.Versions[i].Name == o.spec.Name {
			return whole.Spec.Versions[i].Schema
		}
	}
	return nil
}

func (v *version) from() *origin { return v.source.Load() }

// compiled is a version's schema, ready to be applied.
type compiled struct {
	structural *structuralschema.Structural // nil without a schema
	whole      validation.SchemaValidator
	status     validation.SchemaValidator // nil without a schema of the status
	rules      *cel.Validator             // nil without rules
}

// schema returns the compiled schema.
func (v *version) schema() (*compiled, error) {
	v.used.Store(time.Now().Unix())
	if c := v.made.Load(); c != nil {
		return c, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.made.Load(); c != nil {
		return c, nil
	}
	c, err := v.compile()
	if err != nil {
		return nil, fmt.Errorf("schema of %s, version %s: %w", v.from().crd.Name, v.from().spec.Name, err)
	}
	v.made.Store(c)
	return c, nil
}

// dropIdle forgets what was not used since a time.
func (v *version) dropIdle(since time.Time) {
	if v.used.Load() < since.Unix() {
		v.made.Store(nil)
	}
}

func (v *version) compile() (*compiled, error) {
	c := &compiled{}
	props, err := v.props()
	if err != nil {
		return nil, err
	}
	if c.whole, _, err = validation.NewSchemaValidator(props); err != nil {
		return nil, err
	}
	if props == nil {
		return c, nil
	}
	if v.hasStatus() {
		if status, ok := props.Properties["status"]; ok {
			if c.status, _, err = validation.NewSchemaValidator(&status); err != nil {
				return nil, err
			}
		}
	}
	structural, err := structuralschema.NewStructural(props)
	if err != nil {
		if v.from().crd.Spec.PreserveUnknownFields {
			return c, nil // a schema of the time before structural ones
		}
		return nil, err
	}
	if !v.from().crd.Spec.PreserveUnknownFields {
		structural = structural.DeepCopy()
		if err := defaulting.PruneDefaults(structural); err != nil {
			return nil, err
		}
	}
	c.structural = structural
	c.rules = cel.NewValidator(structural, true, celconfig.PerCallLimit)
	return c, nil
}

// props returns the version's schema in the form upstream's packages work on,
// nil for none.
func (v *version) props() (*apiextensions.JSONSchemaProps, error) {
	from := v.from()
	in := from.validation()
	if in == nil || in.OpenAPIV3Schema == nil {
		return nil, nil
	}
	out := &apiextensions.CustomResourceValidation{}
	if !from.entry.Slim() {
		// The conversion shares what it can with the stored definition.
		in = in.DeepCopy()
	}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(in, out, nil); err != nil {
		return nil, err
	}
	return out.OpenAPIV3Schema, nil
}

func (v *version) hasStatus() bool {
	return v.from().spec.Subresources != nil && v.from().spec.Subresources.Status != nil
}

// scale returns the paths of the subresource scale, nil for none.
func (v *version) scale() *apiextensionsv1.CustomResourceSubresourceScale {
	if v.from().spec.Subresources == nil {
		return nil
	}
	return v.from().spec.Subresources.Scale
}
