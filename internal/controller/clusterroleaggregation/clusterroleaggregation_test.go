// SPDX-License-Identifier: Apache-2.0

package clusterroleaggregation_test

import (
	"reflect"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/clusterroleaggregation"
)

func rule(resource string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{"example.com"}, Resources: []string{resource}, Verbs: []string{"get"}}
}

// A role collects what its selectors select, each rule once, and loses what
// goes.
func TestAggregation(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{clusterroleaggregation.New(api, nil)}
	}
	bubble.RunAs(t, "clusterrole-aggregation-controller", start, func(b *bubble.Bubble) {
		ctx, roles := b.Context(), client.For[*rbacv1.ClusterRole](b.API)
		labels := map[string]string{"to": "all"}
		for name, rules := range map[string][]rbacv1.PolicyRule{"r2": {rule("b"), rule("a")}, "r1": {rule("a")}} {
			bubble.Must(roles.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Rules: rules}))(b)
		}
		bubble.Must(roles.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "all", Labels: labels},
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: labels}}}}))(b)
		want := func(rules ...rbacv1.PolicyRule) {
			b.Helper()
			b.Settle()
			if got := bubble.Must(roles.Get(ctx, "", "all"))(b); len(got.Rules) != len(rules) || len(rules) > 0 && !reflect.DeepEqual(got.Rules, rules) {
				b.Errorf("rules %v, want %v", got.Rules, rules)
			}
		}
		want(rule("a"), rule("b"))
		for i, name := range []string{"r1", "r2"} {
			if err := roles.Delete(ctx, "", name, metav1.DeleteOptions{}); err != nil {
				b.Fatal(err)
			}
			want([][]rbacv1.PolicyRule{{rule("b"), rule("a")}, {}}[i]...)
		}
	})
}
