// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSort: of two pods of one second the one of the old template counts, whatever
// their names.
func TestSort(t *testing.T) {
	pod := func(name, hash, node string, second int64) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Time{Time: time.Unix(second, 0)},
			Labels: map[string]string{appsv1.ControllerRevisionHashLabelKey: hash}}, Spec: corev1.PodSpec{NodeName: node}}
	}
	r := &round{hash: "new"}
	for _, pods := range [][]*corev1.Pod{
		{pod("a", "new", "n", 1), pod("first", "old", "n", 1)},
		{pod("first", "old", "n", 1), pod("a", "new", "n", 1)},
		{pod("a", "old", "n", 2), pod("first", "new", "n", 1)},
		{pod("a", "old", "", 1), pod("first", "new", "n", 2)},
	} {
		if r.sortPods(pods); pods[0].Name != "first" {
			t.Errorf("%s comes first", pods[0].Name)
		}
	}
}
