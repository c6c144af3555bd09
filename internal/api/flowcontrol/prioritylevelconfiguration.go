// SPDX-License-Identifier: Apache-2.0

package flowcontrol

import (
	"context"
	"fmt"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	flowcontrolv1beta3 "k8s.io/api/flowcontrol/v1beta3"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

const (
	maxQueues = 10_000_000
	// preserveZero is how version v1beta3 told a zero from an absent value.
	preserveZero = flowcontrolv1beta3.PriorityLevelPreserveZeroConcurrencySharesKey
)

func priorityLevelConfiguration() *api.Kind {
	queuing := flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()
	return &api.Kind{
		Group: flowcontrolv1.GroupName, Name: "PriorityLevelConfiguration", Resource: "prioritylevelconfigurations", Singular: "prioritylevelconfiguration",
		Versions: []api.Version{{
			GroupVersion: flowcontrolv1.SchemeGroupVersion,
			New:          api.New[flowcontrolv1.PriorityLevelConfiguration], NewList: api.NewList[flowcontrolv1.PriorityLevelConfigurationList],
			Default: api.Default(defaultPriorityLevel),
		}},
		Storage: flowcontrolv1.SchemeGroupVersion,
		Prefix:  "/registry/prioritylevelconfigurations",
		New:     api.New[flowcontrolv1.PriorityLevelConfiguration], NewList: api.NewList[flowcontrolv1.PriorityLevelConfigurationList],
		Rules: api.For[*flowcontrolv1.PriorityLevelConfiguration]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, l *flowcontrolv1.PriorityLevelConfiguration) {
				l.Status = flowcontrolv1.PriorityLevelConfigurationStatus{}
				l.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, l, old *flowcontrolv1.PriorityLevelConfiguration) {
				if !apiequality.Semantic.DeepEqual(l.Spec, old.Spec) {
					l.Generation = old.Generation + 1
				}
				l.Status = old.Status
			},
			Validate: validatePriorityLevel,
			ValidateUpdate: func(l, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
				return validatePriorityLevel(l)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Type", flowcontrolv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"]),
				table.String("NominalConcurrencyShares", flowcontrolv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"]),
				table.String("Queues", queuing["queues"]),
				table.String("HandSize", queuing["handSize"]),
				table.String("QueueLengthLimit", queuing["queueLengthLimit"]),
				table.Age(),
			},
			Cells: priorityLevelCells,
		}.Rules(),
		AllowUnconditionalUpdate: true,
		ResetFields:              []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, l, old *flowcontrolv1.PriorityLevelConfiguration) {
				managed := l.ManagedFields
				l.ObjectMeta, l.Spec = *old.ObjectMeta.DeepCopy(), old.Spec
				l.ManagedFields = managed
			}),
			ValidateUpdate: api.Update(func(l, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
				return validateLevelConditions(l.Status.Conditions)
			}),
			ResetFields: []string{"metadata", "spec"},
		},
	}
}

// setDefault gives a field that is absent its default.
func setDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func defaultPriorityLevel(l *flowcontrolv1.PriorityLevelConfiguration) {
	if e := l.Spec.Exempt; e != nil {
		setDefault(&e.NominalConcurrencyShares, 0)
		setDefault(&e.LendablePercent, 0)
	}
	limited := l.Spec.Limited
	if limited == nil {
		return
	}
	setDefault(&limited.NominalConcurrencyShares, 30)
	setDefault(&limited.LendablePercent, 0)
	if q := limited.LimitResponse.Queuing; q != nil {
		for _, f := range []struct {
			value *int32
			n     int32
		}{{&q.HandSize, 8}, {&q.Queues, 64}, {&q.QueueLengthLimit, 50}} {
			if *f.value == 0 {
				*f.value = f.n
			}
		}
	}
}

func priorityLevelCells(l *flowcontrolv1.PriorityLevelConfiguration) []any {
	var shares, queues, hand, length any = "<none>", "<none>", "<none>", "<none>"
	if limited := l.Spec.Limited; limited != nil {
		shares = deref(limited.NominalConcurrencyShares)
		if q := limited.LimitResponse.Queuing; q != nil {
			queues, hand, length = q.Queues, q.HandSize, q.QueueLengthLimit
		}
	}
	return []any{l.Name, string(l.Spec.Type), shares, queues, hand, length, table.Since(l.CreationTimestamp)}
}

func deref(n *int32) int32 {
	if n == nil {
		return 0
	}
	return *n
}

func validatePriorityLevel(l *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if _, found := l.Annotations[preserveZero]; found {
		errs = append(errs, field.Forbidden(field.NewPath("metadata", "annotations"), fmt.Sprintf("annotation '%s' is forbidden", preserveZero)))
	}
	errs = append(errs, validateLevelSpec(l.Name, &l.Spec, path)...)
	for _, fixed := range bootstrap.MandatoryPriorityLevelConfigurations {
		if fixed.Name == l.Name {
			errs = append(errs, validateFixedLevel(l, &fixed.Spec, path)...)
		}
	}
	return append(errs, validateLevelConditions(l.Status.Conditions)...)
}

// validateFixedLevel holds a level that the system needs to what it is; only
// the shares of the exempt one may be set.
func validateFixedLevel(l *flowcontrolv1.PriorityLevelConfiguration, fixed *flowcontrolv1.PriorityLevelConfigurationSpec, path *field.Path) field.ErrorList {
	have, detail := l.Spec.DeepCopy(), fmt.Sprintf("spec of '%s' must equal the fixed value", l.Name)
	if l.Name == exemptName {
		have.Exempt = fixed.Exempt
		detail = fmt.Sprintf("spec of '%s' except the 'spec.exempt' field must equal the fixed value", l.Name)
	}
	if apiequality.Semantic.DeepEqual(have, fixed) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, badvalue.Of(l.Spec), detail)}
}

func validateLevelSpec(name string, spec *flowcontrolv1.PriorityLevelConfigurationSpec, path *field.Path) field.ErrorList {
	const exempt, limited = flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited
	var errs field.ErrorList
	if (name == exemptName) != (spec.Type == exempt) {
		errs = append(errs, field.Invalid(path.Child("type"), spec.Type, "must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	if spec.Type != limited && spec.Limited != nil {
		errs = append(errs, field.Forbidden(path.Child("limited"), ""))
		errs = append(errs, validateResponseForm(&spec.Limited.LimitResponse, path.Child("limited", "limitResponse"))...)
	}
	if spec.Type != exempt && spec.Exempt != nil {
		errs = append(errs, field.Forbidden(path.Child("exempt"), ""))
	}
	switch spec.Type {
	case "":
		errs = append(errs, field.Required(path.Child("type"), ""))
	case exempt:
		if e := spec.Exempt; e != nil {
			errs = append(errs, validateShares(e.NominalConcurrencyShares, e.LendablePercent, path.Child("exempt"))...)
		}
	case limited:
		if spec.Limited == nil {
			errs = append(errs, field.Required(path.Child("limited"), ""))
		} else {
			errs = append(errs, validateLimited(spec.Limited, path.Child("limited"))...)
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("type"), spec.Type, []flowcontrolv1.PriorityLevelEnablement{exempt, limited}))
	}
	return errs
}

func validateShares(shares, lendable *int32, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if shares != nil && *shares < 0 {
		errs = append(errs, field.Invalid(path.Child("nominalConcurrencyShares"), *shares, "must be a non-negative integer"))
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		errs = append(errs, field.Invalid(path.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func validateLimited(l *flowcontrolv1.LimitedPriorityLevelConfiguration, path *field.Path) field.ErrorList {
	errs := validateShares(l.NominalConcurrencyShares, l.LendablePercent, path)
	if n := l.BorrowingLimitPercent; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("borrowingLimitPercent"), *n, "if specified, must be a non-negative integer"))
	}
	response, queuing := path.Child("limitResponse"), path.Child("limitResponse", "queuing")
	r := &l.LimitResponse
	errs = append(errs, validateResponseForm(r, response)...)
	switch r.Type {
	case "", flowcontrolv1.LimitResponseTypeReject:
	case flowcontrolv1.LimitResponseTypeQueue:
		if r.Queuing == nil {
			errs = append(errs, field.Required(queuing, ""))
		} else {
			errs = append(errs, validateQueuing(r.Queuing, queuing)...)
		}
	default:
		errs = append(errs, rule.OneOf(r.Type, response.Child("type"), flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)...)
	}
	return errs
}

// validateResponseForm checks what holds of a response wherever it stands.
func validateResponseForm(r *flowcontrolv1.LimitResponse, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.Type != flowcontrolv1.LimitResponseTypeQueue && r.Queuing != nil {
		errs = append(errs, field.Forbidden(path.Child("queuing"), ""))
	}
	if r.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), ""))
	}
	return errs
}

func validateQueuing(q *flowcontrolv1.QueuingConfiguration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	invalid := func(name string, value int32, format string, args ...any) {
		errs = append(errs, field.Invalid(path.Child(name), value, fmt.Sprintf(format, args...)))
	}
	if q.QueueLengthLimit <= 0 {
		invalid("queueLengthLimit", q.QueueLengthLimit, "must be positive")
	}
	if q.Queues <= 0 {
		invalid("queues", q.Queues, "must be positive")
	} else if q.Queues > maxQueues {
		invalid("queues", q.Queues, "must not be greater than %d", maxQueues)
	}
	switch {
	case q.HandSize <= 0:
		invalid("handSize", q.HandSize, "must be positive")
	case q.HandSize > q.Queues:
		invalid("handSize", q.HandSize, "should not be greater than queues (%d)", q.Queues)
	case shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)) > shufflesharding.MaxHashBits:
		invalid("handSize", q.HandSize, "required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, shufflesharding.MaxHashBits)
	}
	return errs
}

func validateLevelConditions(conditions []flowcontrolv1.PriorityLevelConfigurationCondition) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[flowcontrolv1.PriorityLevelConfigurationConditionType]()
	for i, c := range conditions {
		path := field.NewPath("status", "conditions").Index(i).Child("type")
		if seen.Has(c.Type) {
			errs = append(errs, field.Duplicate(path, c.Type))
		}
		seen.Insert(c.Type)
		if c.Type == "" {
			errs = append(errs, field.Required(path, ""))
		}
	}
	return errs
}
