// SPDX-License-Identifier: Apache-2.0

// Package defaultbinder is the plugin DefaultBinder: it binds pods through the
// API's binding subresource.
package defaultbinder

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
)

// Name is the plugin's name.
const Name = "DefaultBinder"

// Plugin implements Bind.
type Plugin struct {
	client client.Interface
	pods   client.Typed[*corev1.Pod]
}

// New returns the plugin.
func New(c client.Interface) *Plugin { return &Plugin{c, client.For[*corev1.Pod](c)} }

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Bind implements plugin.Binder.
func (p *Plugin) Bind(ctx context.Context, c *plugin.Cycle, nodeName string) *plugin.Status {
	pod := c.Pod.Object
	r := p.pods.Resource(pod.Namespace)
	r.Subresource = "binding"
	_, err := p.client.Create(ctx, r, pod.Name, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}, metav1.CreateOptions{})
	return plugin.AsStatus(Name, err)
}
