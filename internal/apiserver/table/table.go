// SPDX-License-Identifier: Apache-2.0

// Package table shows objects as the rows of a meta.k8s.io Table, from the
// columns and cells that their kind defines.
//
// Package show calls it for answers and the watch for events. It does not
// write the table out.
package table

import (
	"fmt"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// Options reads the table's own parameters from a query.
func Options(query url.Values) (metav1.TableOptions, error) {
	var o metav1.TableOptions
	if err := scheme.ParameterCodec.DecodeParameters(query, metav1.SchemeGroupVersion, &o); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	switch errs := validation.ValidateTableOptions(&o); len(errs) {
	case 0:
		return o, nil
	case 1:
		return o, apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: %v", errs[0].Error()))
	default:
		return o, apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: %v", errs))
	}
}

// Columns returns the columns a resource is shown in.
func Columns(s *request.Served) []metav1.TableColumnDefinition {
	kind := s.Kind
	if s.Version.Columns != nil {
		return s.Version.Columns
	}
	if kind.Rules.Columns != nil {
		return kind.Rules.Columns
	}
	doc := metav1.ObjectMeta{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: doc["name"]},
		{Name: "Created At", Type: "date", Description: doc["creationTimestamp"]},
	}
}

// Cells returns a hub object's cells, one a column; versions may have cells of
// their own.
func Cells(kind *api.Kind, obj api.Object) []any {
	if kind.Rules.Cells != nil {
		return kind.Rules.Cells(obj)
	}
	return []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format(time.RFC3339)}
}

// Conditions returns the conditions of an object's row.
func Conditions(kind *api.Kind, obj api.Object) []metav1.TableRowCondition {
	if kind.Rules.RowConditions == nil {
		return nil
	}
	return kind.Rules.RowConditions(obj)
}
