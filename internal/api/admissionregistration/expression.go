// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"kaji/internal/api/rule"
)

const maxConditions = 64

// compilers compile the expressions of one kind. The environment is built at
// the first expression, and kept.
type compilers struct {
	strict func() plugincel.Compiler
}

func newCompilers() *compilers {
	return &compilers{strict: sync.OnceValue(func() plugincel.Compiler {
		return plugincel.NewCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	})}
}

// composited is a compiler for one policy, which remembers its variables.
func (c *compilers) composited() (plugincel.Compiler, error) {
	return plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
}

// environmentOf lets an expression that was stored use whatever earlier
// releases could.
func environmentOf(expression string, stored sets.Set[string]) environment.Type {
	if stored.Has(expression) {
		return environment.StoredExpressions
	}
	return environment.NewExpressions
}

func compile(compiler plugincel.Compiler, e plugincel.ExpressionAccessor, shown string, vars plugincel.OptionalVariableDeclarations, env environment.Type, path *field.Path) field.ErrorList {
	if result := compiler.CompileCELExpression(e, vars, env); result.Error != nil {
		return field.ErrorList{expressionError(path, shown, result.Error)}
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

func (c *compilers) validateConditions(conditions []admissionregistrationv1.MatchCondition, params bool, stored sets.Set[string], path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(conditions); n > maxConditions {
		errs = append(errs, field.TooMany(path, n, maxConditions))
	}
	names := sets.New[string]()
	for i, condition := range conditions {
		where := path.Index(i)
		if text := strings.TrimSpace(condition.Expression); text == "" {
			errs = append(errs, field.Required(where.Child("expression"), ""))
		} else {
			vars := plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}
			errs = append(errs, compile(c.strict(), &matchconditions.MatchCondition{Expression: text}, text, vars, environmentOf(text, stored), where.Child("expression"))...)
		}
		if condition.Name == "" {
			errs = append(errs, field.Required(where.Child("name"), ""))
			continue
		}
		errs = append(errs, rule.QualifiedName(condition.Name, where.Child("name"))...)
		if names.Has(condition.Name) {
			errs = append(errs, field.Duplicate(where.Child("name"), condition.Name))
		}
		names.Insert(condition.Name)
	}
	return errs
}

func validateVariables(compiler plugincel.Compiler, variables []admissionregistrationv1.Variable, params bool, stored sets.Set[string], path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, v := range variables {
		where := path.Index(i)
		if strings.TrimSpace(v.Name) == "" {
			errs = append(errs, field.Required(where.Child("name"), "name is not specified"))
		} else if !isIdentifier(v.Name) {
			errs = append(errs, field.Invalid(where.Child("name"), v.Name, "must be a valid CEL identifier"))
		}
		if strings.TrimSpace(v.Expression) == "" {
			errs = append(errs, field.Required(where.Child("expression"), "expression is not specified"))
			continue
		}
		composited, ok := compiler.(*plugincel.CompositedCompiler)
		if !ok {
			errs = append(errs, field.InternalError(where, fmt.Errorf("variable composition is not allowed")))
			continue
		}
		result := composited.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression},
			plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}, environmentOf(v.Expression, stored))
		if result.Error != nil {
			errs = append(errs, expressionError(where.Child("expression"), v.Expression, result.Error))
		}
	}
	return errs
}

func isIdentifier(name string) bool {
	reserved := []string{"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
		"import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
	return regexp.MustCompile("^[_a-zA-Z][_a-zA-Z0-9]*$").MatchString(name) && !slices.Contains(reserved, name)
}
