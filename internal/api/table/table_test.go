// SPDX-License-Identifier: Apache-2.0

package table

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got := Since(metav1.Time{}); got != "<unknown>" {
			t.Errorf("zero time: %q", got)
		}
		if got := Since(metav1.NewTime(time.Now().Add(-90 * time.Minute))); got != "90m" {
			t.Errorf("90 minutes ago: %q", got)
		}
		if got := Until(metav1.NewTime(time.Now().Add(48 * time.Hour))); got != "2d" {
			t.Errorf("in two days: %q", got)
		}
	})
}

func TestContainers(t *testing.T) {
	names, images := Containers([]corev1.Container{{Name: "a", Image: "x:1"}, {Name: "b", Image: "y"}})
	if names != "a,b" || images != "x:1,y" {
		t.Errorf("got %q and %q", names, images)
	}
}
