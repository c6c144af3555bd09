// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/util/jsonpath"

	"kaji/internal/api"
)

// printer prints the additional columns of a version.
type printer struct {
	columns []apiextensionsv1.CustomResourceColumnDefinition
	paths   []*jsonpath.JSONPath
}

// columnsOf returns a version's additional columns; without any it has its age.
func columnsOf(v *apiextensionsv1.CustomResourceDefinitionVersion) []apiextensionsv1.CustomResourceColumnDefinition {
	if len(v.AdditionalPrinterColumns) > 0 {
		return v.AdditionalPrinterColumns
	}
	return []apiextensionsv1.CustomResourceColumnDefinition{{
		Name: "Age", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"], JSONPath: ".metadata.creationTimestamp",
	}}
}

// definitions returns the columns as a table heads them. A path that cannot be
// parsed ends them, as it does upstream.
func (p *printer) definitions() []metav1.TableColumnDefinition {
	out := []metav1.TableColumnDefinition{{
		Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"],
	}}
	for _, c := range p.columns[:len(p.paths)] {
		description := c.Description
		if description == "" {
			description = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		out = append(out, metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: description, Priority: c.Priority})
	}
	return out
}

func newPrinter(columns []apiextensionsv1.CustomResourceColumnDefinition) *printer {
	p := &printer{columns: columns}
	for _, c := range columns {
		path := jsonpath.New(c.Name)
		if err := path.Parse(fmt.Sprintf("{%s}", c.JSONPath)); err != nil {
			break
		}
		p.paths = append(p.paths, path.AllowMissingKeys(true))
	}
	return p
}

func (p *printer) cells(obj api.Object) []any {
	content := obj.(*unstructured.Unstructured).Object
	cells := []any{obj.GetName()}
	for i, path := range p.paths {
		results, err := path.FindResults(content)
		if err != nil || len(results) == 0 || len(results[0]) == 0 {
			cells = append(cells, nil)
			continue
		}
		value := results[0][0].Interface()
		if p.columns[i].Type != "string" {
			cells = append(cells, cell(p.columns[i].Type, value))
			continue
		}
		var text bytes.Buffer
		if err := path.PrintResults(&text, []reflect.Value{reflect.ValueOf(value)}); err != nil {
			cells = append(cells, nil)
		} else {
			cells = append(cells, text.String())
		}
	}
	return cells
}

// cell returns a value as a column of a type shows it, nil where it does not.
func cell(kind string, value any) any {
	switch kind {
	case "integer":
		switch n := value.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		case json.Number:
			if i, err := n.Int64(); err == nil {
				return i
			}
		}
	case "number":
		switch n := value.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		case json.Number:
			if f, err := n.Float64(); err == nil {
				return f
			}
		}
	case "boolean":
		if b, ok := value.(bool); ok {
			return b
		}
	case "date":
		if s, ok := value.(string); ok {
			return age(s)
		}
	}
	return nil
}

// age returns the time since a timestamp as people read it.
func age(timestamp string) string {
	var t metav1.Time
	if err := t.UnmarshalQueryParameter(timestamp); err != nil {
		return "<invalid>"
	}
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}
