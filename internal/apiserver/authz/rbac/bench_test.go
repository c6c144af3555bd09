// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"fmt"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BenchmarkDecision is one decision among 10,000 bindings: 5,000 of the cluster
// and 5,000 of the namespace, two of them the user's.
func BenchmarkDecision(b *testing.B) {
	ix := newIndex()
	ix.add(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list"}}}})
	ref := rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}
	for i := range 5000 {
		who := []rbacv1.Subject{{Kind: "User", Name: fmt.Sprintf("u%d", i)}}
		ix.add(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d", i)}, RoleRef: ref, Subjects: who})
		ix.add(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprintf("r%d", i)}, RoleRef: ref, Subjects: who})
	}
	for name, question := range map[string]string{"allowed": "u7,system:authenticated list ns /pods", "refused": "u7,system:authenticated delete ns /pods"} {
		b.Run(name, func(b *testing.B) {
			a := ask(question)
			for b.Loop() {
				decide(ix, a)
			}
		})
	}
}
