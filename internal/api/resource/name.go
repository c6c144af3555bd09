// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	dracel "k8s.io/dynamic-resource-allocation/cel"

	"kaji/internal/api/rule"
)

// validateDriver checks the name of a driver, in which letters may be large.
func validateDriver(name string, path *field.Path) field.ErrorList {
	return driverErrors(name, path, validation.IsDNS1123Subdomain(strings.ToLower(name)))
}

// validateDriverRef is validateDriver where a driver is referred to.
func validateDriverRef(name string, path *field.Path) field.ErrorList {
	if len(name) > resourcev1.DriverNameMaxLength {
		return append(field.ErrorList{field.TooLongCharacters(path, "", resourcev1.DriverNameMaxLength)},
			rule.Messages(path, name, content.IsDNS1123SubdomainCaseless(name))...)
	}
	return driverErrors(name, path, content.IsDNS1123SubdomainCaseless(name))
}

func driverErrors(name string, path *field.Path, messages []string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.DriverNameMaxLength {
		errs = append(errs, field.TooLong(path, "", resourcev1.DriverNameMaxLength))
	}
	return append(errs, rule.Messages(path, name, messages)...)
}

func validatePoolName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(path, "", resourcev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, rule.Subdomain(part, path)...)
	}
	return errs
}

// validatePoolRef is validatePoolName where a pool is referred to.
func validatePoolRef(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return validate.ResourcePoolName(context.Background(), operation.Operation{}, path, &name, nil)
}

// label is rule.Label as fields with a declared format word it.
func label(name string, path *field.Path) field.ErrorList {
	return validate.ShortName(context.Background(), operation.Operation{}, path, &name, nil)
}

func validateUID(uid string, path *field.Path) field.ErrorList {
	return validate.UUID(context.Background(), operation.Operation{}, path, &uid, nil)
}

// validateQualifiedName checks a name such as "driver.example.com/model" or
// "model".
func validateQualifiedName(name resourcev1.QualifiedName, path *field.Path) field.ErrorList {
	domain, id, qualified := strings.Cut(string(name), "/")
	if !qualified {
		return validateIdentifier(domain, path)
	}
	if strings.Contains(id, "/") {
		return nil
	}
	var errs field.ErrorList
	if domain == "" {
		errs = append(errs, field.Invalid(path, "", "the domain must not be empty"))
	} else {
		errs = append(errs, validateDriver(domain, path)...)
	}
	if id == "" {
		return append(errs, field.Invalid(path, "", "the name must not be empty"))
	}
	return append(errs, validateIdentifier(id, path)...)
}

func validateIdentifier(id string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(id) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(path, "", resourcev1.DeviceMaxIDLength))
	}
	return append(errs, rule.Messages(path, id, content.IsCIdentifier(id))...)
}

func validateSelectors(selectors []resourcev1.DeviceSelector, stored bool, path *field.Path) field.ErrorList {
	return atMost(selectors, resourcev1.DeviceSelectorsMaxSize, path, func(s *resourcev1.DeviceSelector, p *field.Path) field.ErrorList {
		if s.CEL == nil {
			return field.ErrorList{field.Required(p.Child("cel"), "")}
		}
		return validateExpression(s.CEL.Expression, stored, p.Child("cel", "expression"))
	})
}

// validateExpression compiles a selector. One that was stored may use whatever
// earlier releases could.
func validateExpression(expression string, stored bool, path *field.Path) field.ErrorList {
	if len(expression) > resourcev1.CELSelectorExpressionMaxLength {
		return field.ErrorList{field.TooLong(path, "", resourcev1.CELSelectorExpressionMaxLength)}
	}
	env := environment.NewExpressions
	if stored {
		env = environment.StoredExpressions
	}
	compiler := dracel.GetCompiler(dracel.Features{EnableConsumableCapacity: true})
	result := compiler.CompileCELExpression(expression, dracel.Options{EnvType: &env})
	if result.Error != nil {
		return field.ErrorList{expressionError(path, expression, result.Error)}
	}
	if result.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
		return field.ErrorList{field.Forbidden(path, "too complex, exceeds cost limit")}
	}
	return nil
}

func expressionError(path *field.Path, expression string, err error) *field.Error {
	var celErr *apiservercel.Error
	if errors.As(err, &celErr) {
		switch celErr.Type {
		case apiservercel.ErrorTypeRequired:
			return field.Required(path, celErr.Detail)
		case apiservercel.ErrorTypeInvalid:
			return field.Invalid(path, expression, celErr.Detail)
		}
	}
	return field.InternalError(path, err)
}

func validateConfiguration(c *resourcev1.DeviceConfiguration, stored bool, path *field.Path) field.ErrorList {
	if c.Opaque == nil {
		return field.ErrorList{field.Required(path.Child("opaque"), "")}
	}
	errs := validateDriverRef(c.Opaque.Driver, path.Child("opaque", "driver"))
	limit := resourcev1.OpaqueParametersMaxLength
	if stored {
		limit = -1
	}
	return append(errs, validateObject(c.Opaque.Parameters.Raw, limit, path.Child("opaque", "parameters"))...)
}

// validateObject requires a JSON object of limited size.
func validateObject(raw []byte, limit int, path *field.Path) field.ErrorList {
	if len(raw) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	if limit >= 0 && len(raw) > limit {
		return field.ErrorList{field.TooLong(path, "", limit)}
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return field.ErrorList{field.Invalid(path, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	if v == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Invalid(path, "<value omitted>", "must be a valid JSON object")}
	}
	return nil
}
