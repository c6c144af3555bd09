// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"reflect"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// TemplateMeta checks the metadata in the template of a claim. It refuses every
// field but labels and annotations: the claim would not get it.
func TemplateMeta(meta metav1.ObjectMeta, p *field.Path) field.ErrorList {
	errs := apivalidation.ValidateAnnotations(meta.Annotations, p.Child("annotations"))
	errs = append(errs, metav1validation.ValidateLabels(meta.Labels, p.Child("labels"))...)
	v := reflect.ValueOf(meta)
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Name; {
		case name == "Labels", name == "Annotations", v.Field(i).IsZero():
		default:
			errs = append(errs, field.Forbidden(p.Child(LowerFirst(name)), "cannot be set"))
		}
	}
	return errs
}

// LowerFirst turns the Go name of a field into the name errors use.
func LowerFirst(name string) string { return string(name[0]|0x20) + name[1:] }
