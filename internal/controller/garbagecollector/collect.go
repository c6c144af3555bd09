// SPDX-License-Identifier: Apache-2.0

package garbagecollector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

// waits says whether an owner waits until its dependents are deleted.
func waits(owner metav1.Object) bool {
	return owner.GetDeletionTimestamp() != nil && slices.Contains(owner.GetFinalizers(), metav1.FinalizerDeleteDependents)
}

// get reads an object's metadata from the API server.
func (c *Controller) get(ctx context.Context, at client.Resource, name string) (metav1.Object, error) {
	o, err := c.api.Get(ctx, at, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return meta.Accessor(o)
}

// judge deletes an object that no owner holds any more, and drops references
// to owners that are gone while others hold it.
func (c *Controller) judge(ctx context.Context, it *item) error {
	latest, err := c.get(ctx, it.at, it.name)
	if err != nil {
		return err
	}
	if latest.GetUID() != it.uid || latest.GetDeletionTimestamp() != nil {
		return nil
	}
	refs := latest.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	var solid, going []metav1.OwnerReference
	for _, ref := range refs {
		owner, err := c.owner(ctx, it, ref)
		switch {
		case errors.Is(err, errNamespaced):
			return nil // told in an event; trying again changes nothing
		case err != nil:
			return err
		case owner == nil:
		case waits(owner):
			going = append(going, ref)
		default:
			solid = append(solid, ref)
		}
	}
	switch {
	case len(solid) == len(refs):
		return nil
	case len(solid) > 0:
		return c.patch(ctx, it, latest, map[string]any{"ownerReferences": solid})
	case len(going) > 0 && len(c.graph.of(it.uid)) > 0:
		return c.deleteInForeground(ctx, it, latest, refs)
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case slices.Contains(latest.GetFinalizers(), metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(latest.GetFinalizers(), metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	return c.delete(ctx, it, latest, policy)
}

// deleteInForeground deletes a dependent that has dependents itself: those go
// before it. In a circle nobody would be first, so the object gives up its hold
// on its owners there.
func (c *Controller) deleteInForeground(ctx context.Context, it *item, latest metav1.Object, refs []metav1.OwnerReference) error {
	if slices.ContainsFunc(c.graph.of(it.uid), func(dep *item) bool { return dep.foreground }) {
		open := slices.Clone(refs)
		for i := range open {
			open[i].BlockOwnerDeletion = new(bool)
		}
		if err := c.patch(ctx, it, latest, map[string]any{"ownerReferences": open}); err != nil {
			return err
		}
		var err error
		if latest, err = c.get(ctx, it.at, it.name); err != nil {
			return err
		}
	}
	return c.delete(ctx, it, latest, metav1.DeletePropagationForeground)
}

func (c *Controller) delete(ctx context.Context, it *item, latest metav1.Object, policy metav1.DeletionPropagation) error {
	version := latest.GetResourceVersion()
	c.log.Debug("deleting an object without owners", "resource", it.at.GroupVersionResource, "namespace", it.at.Namespace, "name", it.name, "policy", policy)
	return c.api.Delete(ctx, it.at, it.name, metav1.DeleteOptions{PropagationPolicy: &policy,
		Preconditions: &metav1.Preconditions{UID: &it.uid, ResourceVersion: &version}})
}

// patch changes metadata of the object as it was read.
func (c *Controller) patch(ctx context.Context, it *item, latest metav1.Object, fields map[string]any) error {
	fields["uid"], fields["resourceVersion"] = it.uid, latest.GetResourceVersion()
	data, err := json.Marshal(map[string]any{"metadata": fields})
	if err != nil {
		return err
	}
	_, err = c.api.Patch(ctx, it.at, it.name, types.MergePatchType, data, metav1.PatchOptions{})
	return err
}

// waitForDependents lets an owner go once no dependent blocks it.
func (c *Controller) waitForDependents(ctx context.Context, it *item) error {
	blocked := false
	for _, dep := range c.graph.of(it.uid) {
		if dep.blocks(it.uid) {
			blocked = true
			if !dep.deleting {
				c.queue.Add(dep.uid)
			}
		}
	}
	if blocked {
		return nil
	}
	return c.unhold(ctx, it, metav1.FinalizerDeleteDependents)
}

// unhold takes a finalizer away from the object.
func (c *Controller) unhold(ctx context.Context, it *item, finalizer string) error {
	latest, err := c.get(ctx, it.at, it.name)
	if err != nil {
		return err
	}
	if latest.GetUID() != it.uid || !slices.Contains(latest.GetFinalizers(), finalizer) {
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(latest.GetFinalizers()), func(f string) bool { return f == finalizer })
	return c.patch(ctx, it, latest, map[string]any{"finalizers": rest})
}

// release takes the references to a deleted owner away from its dependents,
// and then lets it go.
func (c *Controller) release(ctx context.Context, it *item) error {
	deps := c.graph.of(it.uid)
	errs := make([]error, len(deps))
	slots := make(chan struct{}, workers)
	var group sync.WaitGroup
	for i, dep := range deps {
		slots <- struct{}{}
		group.Go(func() {
			errs[i] = ignoreGone(c.drop(ctx, dep, it.uid))
			<-slots
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("orphan dependents of %s %s: %w", it.at.Resource, it.name, err)
	}
	return c.unhold(ctx, it, metav1.FinalizerOrphanDependents)
}

func (c *Controller) drop(ctx context.Context, dep *item, owner types.UID) error {
	latest, err := c.get(ctx, dep.at, dep.name)
	if err != nil || latest.GetUID() != dep.uid {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(latest.GetOwnerReferences()), func(ref metav1.OwnerReference) bool { return ref.UID == owner })
	if len(rest) == len(latest.GetOwnerReferences()) {
		return nil
	}
	return c.patch(ctx, dep, latest, map[string]any{"ownerReferences": rest})
}

// errNamespaced says that a cluster-scoped object names an owner that lives in
// a namespace.
var errNamespaced = errors.New("cluster-scoped objects cannot refer to namespaced owners")

// owner returns the metadata of an owner, nil when it is gone.
func (c *Controller) owner(ctx context.Context, it *item, ref metav1.OwnerReference) (metav1.Object, error) {
	r, ok := c.watches.kind(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind())
	if !ok {
		return nil, fmt.Errorf("the owner of %s %s is of the unknown kind %s in %s", it.at.Resource, it.name, ref.Kind, ref.APIVersion)
	}
	at := client.Resource{GroupVersionResource: r.GroupVersionResource}
	if r.Namespaced {
		if at.Namespace = it.at.Namespace; at.Namespace == "" {
			c.misplaced(ctx, it, ref)
			return nil, errNamespaced
		}
	}
	key := lost{ref.APIVersion, ref.Kind, ref.Name, ref.UID, at.Namespace}
	if c.absent.has(key) {
		return nil, nil
	}
	if owner := c.watches.find(ref, it.at.Namespace); owner != nil && owner.GetDeletionTimestamp() == nil {
		return owner, nil
	}
	owner, err := c.get(ctx, at, ref.Name)
	switch {
	case apierrors.IsNotFound(err), err == nil && owner.GetUID() != ref.UID:
		c.absent.add(key)
		if c.watches.elsewhere(r, ref.UID) {
			c.misplaced(ctx, it, ref)
		}
		return nil, nil
	case err != nil:
		return nil, err
	}
	return owner, nil
}

// misplaced tells that an owner lives where the object cannot refer to.
func (c *Controller) misplaced(ctx context.Context, it *item, ref metav1.OwnerReference) {
	r, _ := c.watches.resource(it.at.GroupVersionResource)
	about := &metav1.ObjectMeta{Name: it.name, Namespace: it.at.Namespace, UID: it.uid}
	c.events.Record(ctx, about, it.at.GroupVersion().WithKind(r.Kind), corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
		"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q", ref.APIVersion, ref.Kind, it.at.Namespace, ref.Name, ref.UID, it.at.Namespace)
}

// absent remembers owners that are gone: a UID never comes back. A reference may
// be wrong about whose UID it names, so that all it says counts.
type absent struct {
	mu   sync.Mutex
	seen map[lost]bool
}

type lost struct {
	version, kind, name string
	uid                 types.UID
	namespace           string
}

// remembered bounds what absent keeps.
const remembered = 500

func (a *absent) has(k lost) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[k]
}

func (a *absent) add(k lost) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil || len(a.seen) >= remembered {
		a.seen = map[lost]bool{}
	}
	a.seen[k] = true
}
