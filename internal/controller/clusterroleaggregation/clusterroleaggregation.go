// SPDX-License-Identifier: Apache-2.0

// Package clusterroleaggregation fills ClusterRoles that have an aggregation
// rule with the rules of the roles it selects. The controller manager runs it;
// it grants nothing that the selected roles do not hold.
package clusterroleaggregation

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

// manager owns the fields it applies.
const manager = "clusterrole-aggregation-controller"

// Controller fills the roles.
type Controller struct {
	api   client.Interface
	roles client.Typed[*rbacv1.ClusterRole]
	queue *queue.Queue[string]
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{api: api, roles: client.For[*rbacv1.ClusterRole](api)}
	c.queue = queue.New("ClusterRoleAggregator", log, c.reconcile)
	// Any role may be selected by any other, and its labels may have changed.
	all := func(*rbacv1.ClusterRole) {
		for _, role := range c.roles.CachedList("", nil) {
			if role.AggregationRule != nil {
				c.queue.Add(role.Name)
			}
		}
	}
	c.roles.AddHandler(client.Handler[*rbacv1.ClusterRole]{Add: all, Delete: all,
		Update: func(old, role *rbacv1.ClusterRole) {
			if old.ResourceVersion != role.ResourceVersion {
				all(role)
			}
		}})
	return c
}

// Run fills roles until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.roles.Informer()) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	role, err := c.roles.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || role.AggregationRule == nil || role.DeletionTimestamp != nil {
		return err
	}
	rules, err := c.collect(role)
	if err != nil || equality.Semantic.DeepEqual(rules, role.Rules) {
		return err
	}
	return c.apply(ctx, name, rules)
}

// collect returns the rules of the selected roles, each once, by selector and
// then by the roles' names.
func (c *Controller) collect(role *rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	rules := []rbacv1.PolicyRule{}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, err
		}
		selected := c.roles.CachedList("", selector)
		slices.SortFunc(selected, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
		for _, other := range selected {
			if other.Name == role.Name {
				continue
			}
			for _, rule := range other.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}

// apply writes the rules and nothing else, taking them over from whoever wrote
// them before.
func (c *Controller) apply(ctx context.Context, name string, rules []rbacv1.PolicyRule) error {
	patch := map[string]any{"apiVersion": rbacv1.SchemeGroupVersion.String(), "kind": "ClusterRole", "metadata": map[string]any{"name": name}}
	if len(rules) > 0 {
		patch["rules"] = rules
	}
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	force := true
	_, err = c.api.Patch(ctx, c.roles.Resource(""), name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: manager, Force: &force})
	return err
}
