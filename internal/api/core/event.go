// SPDX-License-Identifier: Apache-2.0

package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

// eventTTL is how long events are kept, in seconds, unless the server's flags
// say otherwise.
const eventTTL = 60 * 60

func event() *api.Kind {
	e := corev1.Event{}.SwaggerDoc()
	return &api.Kind{
		Name: "Event", Resource: "events", Singular: "event",
		ShortNames: []string{"ev"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Event], NewList: api.NewList[corev1.EventList],
			Validate: func(obj, _ api.Object) field.ErrorList {
				return validateEvent(obj.(*corev1.Event), "reportingComponent")
			},
			FieldLabels: []string{
				"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
				"involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
			},
		}, {
			GroupVersion: eventsv1.SchemeGroupVersion,
			New:          api.New[eventsv1.Event], NewList: api.NewList[eventsv1.EventList],
			ToHub:    api.Convert(eventToCore),
			FromHub:  api.Convert(eventFromCore),
			Validate: validateStrictEvent,
			FieldLabels: []string{
				"regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid", "regarding.apiVersion",
				"regarding.resourceVersion", "regarding.fieldPath", "reason", "reportingController", "type",
			},
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/events",
		New:     api.New[corev1.Event], NewList: api.NewList[corev1.EventList],
		Rules: api.For[*corev1.Event]{
			Validate:       func(e *corev1.Event) field.ErrorList { return validateEvent(e, "reportingController") },
			ValidateUpdate: func(e, _ *corev1.Event) field.ErrorList { return validateEvent(e, "reportingController") },
			TTL:            func(*corev1.Event) int64 { return eventTTL },
			Fields:         eventFields,
			Columns: []metav1.TableColumnDefinition{
				table.String("Last Seen", e["lastTimestamp"]),
				table.String("Type", e["type"]),
				table.String("Reason", e["reason"]),
				table.String("Object", e["involvedObject"]),
				table.Wide(table.String("Subobject", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"])),
				table.Wide(table.String("Source", e["source"])),
				table.String("Message", e["message"]),
				table.Wide(table.String("First Seen", e["firstTimestamp"])),
				table.Wide(table.String("Count", e["count"])),
				table.Wide(table.Name()),
			},
			Cells: eventCells,
		}.Rules(),
		OwnMetadata: true, PlainFinalizers: true,
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		GarbageCollection:        api.GCUnsupported,
	}
}

func eventToCore(in *eventsv1.Event, hub *corev1.Event) error {
	c := in.DeepCopy()
	*hub = corev1.Event{
		ObjectMeta:          c.ObjectMeta,
		InvolvedObject:      c.Regarding,
		Reason:              c.Reason,
		Message:             c.Note,
		Source:              c.DeprecatedSource,
		FirstTimestamp:      c.DeprecatedFirstTimestamp,
		LastTimestamp:       c.DeprecatedLastTimestamp,
		Count:               c.DeprecatedCount,
		Type:                c.Type,
		EventTime:           c.EventTime,
		Action:              c.Action,
		Related:             c.Related,
		ReportingController: c.ReportingController,
		ReportingInstance:   c.ReportingInstance,
	}
	if c.Series != nil {
		hub.Series = &corev1.EventSeries{Count: c.Series.Count, LastObservedTime: c.Series.LastObservedTime}
	}
	return nil
}

func eventFromCore(hub *corev1.Event, out *eventsv1.Event) error {
	c := hub.DeepCopy()
	*out = eventsv1.Event{
		ObjectMeta:               c.ObjectMeta,
		Regarding:                c.InvolvedObject,
		Reason:                   c.Reason,
		Note:                     c.Message,
		DeprecatedSource:         c.Source,
		DeprecatedFirstTimestamp: c.FirstTimestamp,
		DeprecatedLastTimestamp:  c.LastTimestamp,
		DeprecatedCount:          c.Count,
		Type:                     c.Type,
		EventTime:                c.EventTime,
		Action:                   c.Action,
		Related:                  c.Related,
		ReportingController:      c.ReportingController,
		ReportingInstance:        c.ReportingInstance,
	}
	if c.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: c.Series.Count, LastObservedTime: c.Series.LastObservedTime}
	}
	return nil
}

// eventFields has the labels of both versions.
func eventFields(e *corev1.Event) fields.Set {
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	set := fields.Set{
		"reason": e.Reason, "source": source, "type": e.Type,
		"reportingComponent": e.ReportingController, "reportingController": e.ReportingController,
	}
	for _, prefix := range []string{"involvedObject.", "regarding."} {
		set[prefix+"kind"] = e.InvolvedObject.Kind
		set[prefix+"namespace"] = e.InvolvedObject.Namespace
		set[prefix+"name"] = e.InvolvedObject.Name
		set[prefix+"uid"] = string(e.InvolvedObject.UID)
		set[prefix+"apiVersion"] = e.InvolvedObject.APIVersion
		set[prefix+"resourceVersion"] = e.InvolvedObject.ResourceVersion
		set[prefix+"fieldPath"] = e.InvolvedObject.FieldPath
	}
	return set
}

func eventCells(e *corev1.Event) []any {
	first := table.Since(e.FirstTimestamp)
	if e.FirstTimestamp.IsZero() {
		first = table.Since(metav1.NewTime(e.EventTime.Time))
	}
	last, count := table.Since(e.LastTimestamp), int64(max(e.Count, 1))
	if e.LastTimestamp.IsZero() {
		last = first
	}
	if e.Series != nil {
		last, count = table.Since(metav1.NewTime(e.Series.LastObservedTime.Time)), int64(e.Series.Count)
	}
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	source, instance := e.Source.Component, e.Source.Host
	if source == "" {
		source = e.ReportingController
	}
	if instance == "" {
		instance = e.ReportingInstance
	}
	if instance != "" {
		source += ", " + instance
	}
	return []any{last, e.Type, e.Reason, target, e.InvolvedObject.FieldPath, source, strings.TrimSpace(e.Message), first, count, e.Name}
}
