// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/kajitest"
)

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
}

func run(t *testing.T, f func(t *testing.T, r *event.Recorder, written func() []*corev1.Event)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		api := kajitest.Start(t).Client()
		f(t, event.New(api, "test-controller", nil), func() []*corev1.Event {
			t.Helper()
			synctest.Wait()
			all, err := client.For[*corev1.Event](api).List(t.Context(), "default", metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return all
		})
	})
}

func TestRepetition(t *testing.T) {
	run(t, func(t *testing.T, r *event.Recorder, written func() []*corev1.Event) {
		for range 3 {
			r.Record(t.Context(), pod("p"), podKind, corev1.EventTypeWarning, "Failed", "%d of it", 1)
		}
		r.Record(t.Context(), pod("p"), podKind, corev1.EventTypeWarning, "Failed", "another in the same instant")
		all := written()
		if len(all) != 2 {
			t.Fatalf("%d events, want 2", len(all))
		}
		for _, e := range all {
			if want := map[string]int32{"1 of it": 3, "another in the same instant": 1}[e.Message]; e.Count != want || e.Source.Component != "test-controller" || e.InvolvedObject.UID != "p" {
				t.Errorf("%+v, want a count of %d", e, want)
			}
		}
		<-time.After(11 * time.Minute)
		r.Record(t.Context(), pod("p"), podKind, corev1.EventTypeWarning, "Failed", "%d of it", 1)
		if n := len(written()); n != 3 {
			t.Errorf("%d events after the window, want a new one", n)
		}
	})
}

// Of events that differ in their message all after the ninth are one, and one
// object is spoken of 25 times, then every five minutes.
func TestManyMessages(t *testing.T) {
	run(t, func(t *testing.T, r *event.Recorder, written func() []*corev1.Event) {
		for i := range 1000 {
			r.Record(t.Context(), pod("p"), podKind, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: p-%d", i)
		}
		all := written()
		var last *corev1.Event
		for _, e := range all {
			if strings.HasPrefix(e.Message, "(combined from similar events): Created pod: p-") {
				last = e
			}
		}
		if len(all) != 10 || last == nil || last.Count != 16 || last.ReportingController != "" || !strings.HasSuffix(last.Message, "p-24") {
			t.Errorf("%d events, the combined one %+v", len(all), last)
		}
		r.Record(t.Context(), pod("q"), podKind, corev1.EventTypeNormal, "SuccessfulCreate", "other")
		<-time.After(5*time.Minute + time.Second)
		for range 10 {
			r.Record(t.Context(), pod("p"), podKind, corev1.EventTypeNormal, "Other", "later")
		}
		if n := len(written()); n != 12 {
			t.Errorf("%d events, want one about another object and one more about the first", n)
		}
		<-time.After(5*time.Minute + time.Second)
		r.Record(t.Context(), pod("p"), podKind, corev1.EventTypeNormal, "Other", "later")
		for _, e := range written() {
			if e.Reason == "Other" && e.Count != 11 {
				t.Errorf("an event that came eleven times counts %d", e.Count)
			}
		}
	})
}

// A storm about very many objects is cut.
func TestStorm(t *testing.T) {
	run(t, func(t *testing.T, r *event.Recorder, written func() []*corev1.Event) {
		for i := range 3000 {
			r.Record(t.Context(), pod(fmt.Sprint("p", i)), podKind, corev1.EventTypeWarning, "Failed", "it failed")
		}
		if n := len(written()); n != 1000 {
			t.Errorf("%d events, want 1000", n)
		}
		<-time.After(time.Second)
		for i := range 100 {
			r.Record(t.Context(), pod(fmt.Sprint("q", i)), podKind, corev1.EventTypeWarning, "Failed", "it failed")
		}
		if n := len(written()); n != 1050 {
			t.Errorf("%d events a second later, want 50 more", n)
		}
	})
}

// An object whose warnings were told without end is still spoken of in the other
// way.
func TestTypesApart(t *testing.T) {
	run(t, func(t *testing.T, r *event.Recorder, written func() []*corev1.Event) {
		for range 100 {
			r.Record(t.Context(), pod("p"), podKind, corev1.EventTypeWarning, "Failed", "again")
		}
		r.Record(t.Context(), pod("p"), podKind, corev1.EventTypeNormal, "SuccessfulDelete", "at last")
		if all := written(); len(all) != 2 || !slices.ContainsFunc(all, func(e *corev1.Event) bool { return e.Message == "at last" }) {
			t.Errorf("events %v", all)
		}
	})
}
