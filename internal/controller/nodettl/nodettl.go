// SPDX-License-Identifier: Apache-2.0

// Package nodettl tells every node, by an annotation, for how many seconds it
// may hold ConfigMaps and Secrets without asking again: the more nodes, the
// longer. The controller manager runs it.
package nodettl

import (
	"context"
	"log/slog"
	"math"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

// steps are the sizes of a cluster and their seconds. They overlap, so that a
// cluster at a bound does not rewrite all its nodes for each that comes or goes.
var steps = []struct{ least, most, seconds int }{
	{0, 100, 0}, {90, 500, 15}, {450, 1000, 30}, {900, 2000, 60}, {1800, math.MaxInt, 300},
}

// Controller annotates nodes.
type Controller struct {
	nodes client.Typed[*corev1.Node]
	queue *queue.Queue[string]

	mu          sync.Mutex
	count, step int // guarded by mu
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{nodes: client.For[*corev1.Node](api)}
	c.queue = queue.New("ttlcontroller", log, c.reconcile)
	c.nodes.AddHandler(client.Handler[*corev1.Node]{
		Add: func(node *corev1.Node) { c.resized(1); c.queue.Add(node.Name) },
		Update: func(_, node *corev1.Node) {
			if node.Annotations[corev1.ObjectTTLAnnotationKey] != c.seconds() {
				c.queue.Add(node.Name)
			}
		},
		Delete: func(*corev1.Node) { c.resized(-1) },
	})
	return c
}

// resized finds the step of the cluster's size; a new one concerns all nodes.
func (c *Controller) resized(by int) {
	c.mu.Lock()
	before := c.step
	c.count += by
	for c.step > 0 && c.count < steps[c.step].least {
		c.step--
	}
	for c.count > steps[c.step].most {
		c.step++
	}
	changed := c.step != before
	c.mu.Unlock()
	if !changed {
		return
	}
	for _, node := range c.nodes.CachedList("", nil) {
		c.queue.Add(node.Name)
	}
}

// seconds is what every node is to say.
func (c *Controller) seconds() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strconv.Itoa(steps[c.step].seconds)
}

// Run annotates nodes until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.nodes.Informer()) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	node, err := c.nodes.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	seconds := c.seconds()
	if node.Annotations[corev1.ObjectTTLAnnotationKey] == seconds {
		return nil
	}
	_, err = c.nodes.MergePatch(ctx, "", name, map[string]any{"metadata": map[string]any{"annotations": map[string]string{corev1.ObjectTTLAnnotationKey: seconds}}}, "")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
