// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/kajitest"
)

// TestDeleteMany deletes more objects at once than one after the other: all go,
// and what has a finalizer waits.
func TestDeleteMany(t *testing.T) {
	api, ctx := kajitest.Start(t).Client(), t.Context()
	maps := client.For[*corev1.ConfigMap](api)
	for i := range 150 {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("m", i), Labels: map[string]string{"many": "yes"}}}
		if i%50 == 7 {
			m.Finalizers = []string{"example.com/hold"}
		}
		if i == 149 {
			m.Labels = nil
		}
		if _, err := maps.Create(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := api.DeleteCollection(ctx, maps.Resource("default"), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "many=yes"}); err != nil {
		t.Fatal(err)
	}
	left, err := maps.List(ctx, "default", metav1.ListOptions{})
	if err != nil || len(left) != 4 {
		t.Fatalf("%d objects are left, want 4 (%v)", len(left), err)
	}
	for _, m := range left {
		if held := len(m.Finalizers) > 0; held != (m.DeletionTimestamp != nil) {
			t.Errorf("%s: finalizers %v, deleted at %v", m.Name, m.Finalizers, m.DeletionTimestamp)
		}
	}
}
