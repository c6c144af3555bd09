// SPDX-License-Identifier: Apache-2.0

package apps

import (
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func controllerRevision() *api.Kind {
	return &api.Kind{
		Group: appsv1.GroupName, Name: "ControllerRevision", Resource: "controllerrevisions", Singular: "controllerrevision",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.ControllerRevision], NewList: api.NewList[appsv1.ControllerRevisionList],
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/controllerrevisions",
		New:     api.New[appsv1.ControllerRevision], NewList: api.NewList[appsv1.ControllerRevisionList],
		Rules: api.For[*appsv1.ControllerRevision]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			Validate: func(r *appsv1.ControllerRevision) field.ErrorList {
				return append(validateRevision(r), validateRevisionData(r.Data.Raw, field.NewPath("data"))...)
			},
			ValidateUpdate: func(r, old *appsv1.ControllerRevision) field.ErrorList {
				return append(validateRevision(r), apivalidation.ValidateImmutableField(r.Data, old.Data, field.NewPath("data"))...)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Controller", "Controller of the object"),
				table.String("Revision", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
				table.Age(),
			},
			Cells: func(r *appsv1.ControllerRevision) []any {
				return []any{r.Name, controllerOf(r), r.Revision, table.Since(r.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
	}
}

func validateRevision(r *appsv1.ControllerRevision) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(r.Revision, field.NewPath("revision"))
}

// validateRevisionData demands a JSON object.
func validateRevisionData(raw []byte, path *field.Path) field.ErrorList {
	if raw == nil {
		return field.ErrorList{field.Required(path, "data is mandatory")}
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return field.ErrorList{field.Invalid(path, "<value omitted>", fmt.Sprintf("error parsing data: %v", err))}
	}
	if v == nil {
		return field.ErrorList{field.Required(path, "data is mandatory")}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Required(path, "data must be a valid JSON object")}
	}
	return nil
}

// controllerOf names the owner as a table cell, such as "statefulset.apps/web".
func controllerOf(obj metav1.Object) string {
	owner := metav1.GetControllerOf(obj)
	if owner == nil {
		return "<none>"
	}
	gv, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return "<none>"
	}
	return strings.ToLower(gv.WithKind(owner.Kind).GroupKind().String()) + "/" + owner.Name
}
