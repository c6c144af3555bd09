// SPDX-License-Identifier: Apache-2.0

package kajitest_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/client"
	"kaji/kajitest"
)

// Roles refuse what they do not allow, also after a reset; without the option
// everybody may do everything.
func TestWithRBAC(t *testing.T) {
	pods := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("pods"), Namespace: "default"}
	list := func(c *kajitest.Cluster, name string) error {
		_, err := c.As(&user.DefaultInfo{Name: name, Groups: []string{user.AllAuthenticated}}).List(t.Context(), pods, metav1.ListOptions{})
		return err
	}
	if err := list(kajitest.Start(t), "jane"); err != nil {
		t.Errorf("without roles: %v", err)
	}
	c := kajitest.Start(t, kajitest.WithRBAC())
	for range 2 {
		if err := list(c, "jane"); !apierrors.IsForbidden(err) {
			t.Errorf("jane: %v", err)
		}
		if err := list(c, "system:kube-scheduler"); err != nil {
			t.Errorf("the scheduler: %v", err)
		}
		if got := c.Denied("jane"); len(got) != 1 || got[0] != "list pods" {
			t.Errorf("refused to jane: %q", got)
		}
		c.Reset()
	}
	if got := c.Denied("system:kube-scheduler"); len(got) > 0 {
		t.Errorf("refused to the scheduler: %q", got)
	}
}
