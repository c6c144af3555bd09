// SPDX-License-Identifier: Apache-2.0

package review

import (
	"errors"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// attributes are what an authorizer is asked; one of r and n is set.
func attributes(u user.Info, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) authorizer.AttributesRecord {
	if r == nil {
		a := authorizer.AttributesRecord{User: u}
		if n != nil {
			a.Verb, a.Path = n.Verb, n.Path
		}
		return a
	}
	a := authorizer.AttributesRecord{User: u, Verb: r.Verb, Namespace: r.Namespace, APIGroup: r.Group, APIVersion: r.Version,
		Resource: r.Resource, Subresource: r.Subresource, Name: r.Name, ResourceRequest: true}
	if a.APIVersion == "" {
		a.APIVersion = "*"
	}
	if s := r.LabelSelector; s != nil {
		a.LabelSelectorRequirements, a.LabelSelectorParsingErr = labelRequirements(s)
	}
	if s := r.FieldSelector; s != nil {
		a.FieldSelectorRequirements, a.FieldSelectorParsingErr = fieldRequirements(s)
	}
	return a
}

// evaluationError tells what went wrong, with the selectors that were not
// understood. Leaving a requirement out makes the question wider, never
// narrower.
func evaluationError(err error, a authorizer.AttributesRecord) string {
	var out []string
	if err != nil {
		out = append(out, err.Error())
	}
	selector := func(name string, some bool, err error) {
		switch {
		case err != nil && some:
			out = append(out, "spec.resourceAttributes."+name+" partially ignored due to parse error")
		case err != nil:
			out = append(out, "spec.resourceAttributes."+name+" ignored due to parse error")
		}
	}
	selector("fieldSelector", len(a.FieldSelectorRequirements) > 0, a.FieldSelectorParsingErr)
	selector("labelSelector", len(a.LabelSelectorRequirements) > 0, a.LabelSelectorParsingErr)
	return strings.Join(out, "; ")
}

func fieldRequirements(in *authorizationv1.FieldSelectorAttributes) (fields.Requirements, error) {
	if in.RawSelector != "" {
		s, err := fields.ParseSelector(in.RawSelector)
		if err != nil {
			return nil, err
		}
		return s.Requirements(), nil
	}
	var out fields.Requirements
	var failed []error
	for _, q := range in.Requirements {
		r, err := fieldRequirement(q)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		out = append(out, r)
	}
	return out, utilerrors.NewAggregate(failed)
}

func fieldRequirement(q metav1.FieldSelectorRequirement) (fields.Requirement, error) {
	if len(q.Values) > 1 {
		return fields.Requirement{}, errors.New("fieldSelectors do not yet support multiple values")
	}
	r := fields.Requirement{Field: q.Key}
	switch q.Operator {
	case metav1.FieldSelectorOpIn:
		r.Operator = selection.Equals
	case metav1.FieldSelectorOpNotIn:
		r.Operator = selection.NotEquals
	case metav1.FieldSelectorOpExists, metav1.FieldSelectorOpDoesNotExist:
		return r, fmt.Errorf("fieldSelectors do not yet support %v", q.Operator)
	default:
		return r, fmt.Errorf("%q is not a valid field selector operator", q.Operator)
	}
	if len(q.Values) != 1 {
		return r, errors.New("fieldSelectors must have one value")
	}
	r.Value = q.Values[0]
	return r, nil
}

var operators = map[metav1.LabelSelectorOperator]selection.Operator{
	metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
	metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
}

func labelRequirements(in *authorizationv1.LabelSelectorAttributes) (labels.Requirements, error) {
	if in.RawSelector != "" {
		s, err := labels.Parse(in.RawSelector)
		if err != nil {
			return nil, err
		}
		out, _ := s.Requirements()
		return out, nil
	}
	var out labels.Requirements
	var failed []error
	for _, q := range in.Requirements {
		operator, ok := operators[q.Operator]
		if !ok {
			failed = append(failed, fmt.Errorf("%q is not a valid label selector operator", q.Operator))
			continue
		}
		r, err := labels.NewRequirement(q.Key, operator, q.Values)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		out = append(out, *r)
	}
	return out, utilerrors.NewAggregate(failed)
}
