// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

const (
	grantName  = "kaji:ingress-secrets"
	grantLabel = "kaji.dev/ingress-secrets"
)

// grants lets the other nodes read those Secrets that Ingresses and Gateways
// refer to, each by its name, and no others: a Role in each such namespace. The
// leader keeps them; its caller holds a lock.
type grants struct {
	roles    client.Typed[*rbacv1.Role]
	bindings client.Typed[*rbacv1.RoleBinding]
	// given are the names by namespace, nil before the first time.
	given map[string][]string
}

func newGrants(api client.Interface) *grants {
	return &grants{roles: client.For[*rbacv1.Role](api), bindings: client.For[*rbacv1.RoleBinding](api)}
}

// set makes the wanted Secrets those that nodes may read. What fails is tried
// again the next time.
func (g *grants) set(ctx context.Context, wanted map[types.NamespacedName]bool) error {
	if g.given == nil {
		all, err := g.roles.List(ctx, "", metav1.ListOptions{LabelSelector: grantLabel})
		if err != nil {
			return err
		}
		g.given = map[string][]string{}
		for _, r := range all {
			g.given[r.Namespace] = nil
		}
	}
	next := map[string][]string{}
	for name := range wanted {
		next[name.Namespace] = append(next[name.Namespace], name.Name)
	}
	for namespace := range maps.Clone(g.given) {
		if next[namespace] == nil {
			if err := g.take(ctx, namespace); err != nil {
				return err
			}
			delete(g.given, namespace)
		}
	}
	for namespace, names := range next {
		slices.Sort(names)
		if slices.Equal(names, g.given[namespace]) {
			continue
		}
		if err := g.give(ctx, namespace, names); err != nil {
			return err
		}
		g.given[namespace] = names
	}
	return nil
}

func (g *grants) take(ctx context.Context, namespace string) error {
	if err := g.bindings.Delete(ctx, namespace, grantName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err := g.roles.Delete(ctx, namespace, grantName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

func (g *grants) give(ctx context.Context, namespace string, names []string) error {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: grantName, Labels: map[string]string{grantLabel: ""}}
	rules := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: names, Verbs: []string{"get", "list", "watch"}}}
	_, err := g.roles.Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules})
	if apierrors.IsAlreadyExists(err) {
		_, err = g.roles.MergePatch(ctx, namespace, grantName, map[string]any{"rules": rules}, "")
	}
	if err != nil {
		return err
	}
	_, err = g.bindings.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: grantName},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"}}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
