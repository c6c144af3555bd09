// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
)

const (
	maxEventField = 128
	maxEventNote  = 1024
)

// validateEvent has the rules for events of either version; reporter is what
// the version calls the field of the reporting controller.
func validateEvent(e *corev1.Event, reporter string) field.ErrorList {
	var errs field.ErrorList
	involved := e.InvolvedObject.Namespace
	agrees := involved == e.Namespace || involved == "" && e.Namespace == metav1.NamespaceDefault
	if e.EventTime.IsZero() {
		if !agrees {
			errs = append(errs, mismatch(involved))
		}
	} else {
		if involved == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
			errs = append(errs, mismatch(involved))
		}
		bounded := func(name, value string, limit int) {
			if len(value) > limit {
				errs = append(errs, field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %d characters", limit)))
			}
		}
		required := func(name, value string) {
			if value == "" {
				errs = append(errs, field.Required(field.NewPath(name), ""))
			}
			bounded(name, value, maxEventField)
		}
		if e.ReportingController == "" {
			errs = append(errs, field.Required(field.NewPath(reporter), ""))
		}
		errs = append(errs, rule.QualifiedName(e.ReportingController, field.NewPath(reporter))...)
		required("reportingInstance", e.ReportingInstance)
		required("action", e.Action)
		required("reason", e.Reason)
		bounded("message", e.Message, maxEventNote)
	}
	return append(errs, rule.Messages(field.NewPath("namespace"), e.Namespace, validation.IsDNS1123Subdomain(e.Namespace))...)
}

func mismatch(namespace string) *field.Error {
	return field.Invalid(field.NewPath("involvedObject", "namespace"), namespace, "does not match event.namespace")
}

// validateStrictEvent has the rules for events written through events.k8s.io.
func validateStrictEvent(obj, old api.Object) field.ErrorList {
	e := obj.(*corev1.Event)
	errs := validateEvent(e, "reportingController")
	if old == nil {
		return append(errs, validateNewEvent(e)...)
	}
	return append(errs, validateEventChange(e, old.(*corev1.Event))...)
}

func validateNewEvent(e *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	if e.Name != "" {
		errs = append(errs, rule.Messages(field.NewPath("metadata", "name"), e.Name, apivalidation.NameIsDNSSubdomain(e.Name, false))...)
	}
	if e.GenerateName != "" {
		errs = append(errs, rule.Messages(field.NewPath("metadata", "generateName"), e.GenerateName, apivalidation.NameIsDNSSubdomain(e.GenerateName, true))...)
	}
	errs = append(errs, validateSeries(e)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", "has invalid value: "+e.Type))
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"firstTimestamp", !e.FirstTimestamp.IsZero()}, {"lastTimestamp", !e.LastTimestamp.IsZero()},
		{"count", e.Count != 0}, {"source", e.Source != corev1.EventSource{}},
	} {
		if f.set {
			errs = append(errs, field.Invalid(field.NewPath(f.name), "", "needs to be unset"))
		}
	}
	return errs
}

func validateSeries(e *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	if e.Series == nil {
		return nil
	}
	if e.Series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if e.Series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// validateEventChange lets only the series of an event change.
func validateEventChange(e, old *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	if !apiequality.Semantic.DeepEqual(e.Series, old.Series) {
		errs = append(errs, validateSeries(e)...)
	}
	for _, f := range []struct {
		name     string
		now, was any
	}{
		{"involvedObject", e.InvolvedObject, old.InvolvedObject},
		{"reason", e.Reason, old.Reason},
		{"message", e.Message, old.Message},
		{"source", e.Source, old.Source},
		{"firstTimestamp", e.FirstTimestamp, old.FirstTimestamp},
		{"lastTimestamp", e.LastTimestamp, old.LastTimestamp},
		{"count", e.Count, old.Count},
		{"type", e.Type, old.Type},
		{"action", e.Action, old.Action},
		{"related", e.Related, old.Related},
		{"reportingController", e.ReportingController, old.ReportingController},
		{"reportingInstance", e.ReportingInstance, old.ReportingInstance},
	} {
		if !apiequality.Semantic.DeepEqual(f.now, f.was) {
			errs = append(errs, field.Invalid(field.NewPath(f.name), badvalue.Of(f.now), apivalidation.FieldImmutableErrorMsg))
		}
	}
	// Clients write the time with less precision than some of them have it.
	if !e.EventTime.Truncate(time.Microsecond).Equal(old.EventTime.Truncate(time.Microsecond)) {
		errs = append(errs, apivalidation.ValidateImmutableField(e.EventTime, old.EventTime, field.NewPath("eventTime"))...)
	}
	return errs
}
