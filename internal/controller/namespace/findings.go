// SPDX-License-Identifier: Apache-2.0

package namespace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// findings is what one pass over a namespace found.
type findings struct {
	discovery  error
	errs       []error
	objects    map[schema.GroupVersionResource]int
	finalizers map[string]int
	longest    time.Duration
}

func newFindings() *findings {
	return &findings{objects: map[schema.GroupVersionResource]int{}, finalizers: map[string]int{}}
}

func (f *findings) undiscovered(err error) { f.discovery = err }
func (f *findings) failed(err error)       { f.errs = append(f.errs, err) }
func (f *findings) wait(d time.Duration)   { f.longest = max(f.longest, d) }
func (f *findings) left() time.Duration    { return f.longest }
func (f *findings) remains() bool          { return len(f.objects) > 0 || len(f.errs) > 0 }
func (f *findings) err() error {
	if f.discovery != nil {
		return errors.Join(append([]error{f.discovery}, f.errs...)...)
	}
	return errors.Join(f.errs...)
}

// count notes objects that are left and says whether finalizers hold one.
func (f *findings) count(gvr schema.GroupVersionResource, left []metav1.Object) (held bool) {
	f.objects[gvr] = len(left)
	for _, o := range left {
		for _, name := range o.GetFinalizers() {
			f.finalizers[name]++
			held = true
		}
	}
	return held
}

// condition is one of the conditions of a namespace in deletion: what it says
// when there is nothing to tell.
type condition struct {
	kind            corev1.NamespaceConditionType
	reason, message string
}

var conditions = []condition{
	{corev1.NamespaceDeletionDiscoveryFailure, "ResourcesDiscovered", "All resources successfully discovered"},
	{corev1.NamespaceDeletionGVParsingFailure, "ParsedGroupVersions", "All legacy kube types successfully parsed"},
	{corev1.NamespaceDeletionContentFailure, "ContentDeleted", "All content successfully deleted, may be waiting on finalization"},
	{corev1.NamespaceContentRemaining, "ContentRemoved", "All content successfully removed"},
	{corev1.NamespaceFinalizersRemaining, "ContentHasNoFinalizers", "All content-preserving finalizers finished"},
}

// problems returns the conditions that have something to tell, as reason and
// message.
func (f *findings) problems() map[corev1.NamespaceConditionType][2]string {
	out := map[corev1.NamespaceConditionType][2]string{}
	if f.discovery != nil {
		message := f.discovery.Error()
		var some *discovery.ErrGroupDiscoveryFailed
		if errors.As(f.discovery, &some) {
			message = fmt.Sprintf("Discovery failed for some groups, %d failing: %v", len(some.Groups), f.discovery)
		}
		out[corev1.NamespaceDeletionDiscoveryFailure] = [2]string{"DiscoveryFailed", message}
	}
	if len(f.errs) > 0 {
		var texts []string
		for _, err := range f.errs {
			texts = append(texts, err.Error())
		}
		slices.Sort(texts)
		out[corev1.NamespaceDeletionContentFailure] = [2]string{"ContentDeletionFailed",
			fmt.Sprintf("Failed to delete all resource types, %d remaining: %v", len(texts), strings.Join(texts, ", "))}
	}
	if len(f.objects) > 0 {
		out[corev1.NamespaceContentRemaining] = [2]string{"SomeResourcesRemain", "Some resources are remaining: " + list(f.objects,
			func(r schema.GroupVersionResource, n int) string {
				return fmt.Sprintf("%s.%s has %d resource instances", r.Resource, r.Group, n)
			})}
	}
	if len(f.finalizers) > 0 {
		out[corev1.NamespaceFinalizersRemaining] = [2]string{"SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: " + list(f.finalizers,
			func(name string, n int) string { return fmt.Sprintf("%s in %d resource instances", name, n) })}
	}
	return out
}

func list[K comparable](counts map[K]int, word func(K, int) string) string {
	var out []string
	for k, n := range counts {
		out = append(out, word(k, n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// tell writes the conditions if they changed and returns the namespace as it
// is then.
func (c *Controller) tell(ctx context.Context, ns *corev1.Namespace, found *findings) (*corev1.Namespace, error) {
	changed := ns.DeepCopy()
	problems, differs := found.problems(), false
	for _, cond := range conditions {
		status, reason, message := corev1.ConditionFalse, cond.reason, cond.message
		if p, ok := problems[cond.kind]; ok {
			status, reason, message = corev1.ConditionTrue, p[0], p[1]
		}
		i := slices.IndexFunc(changed.Status.Conditions, func(o corev1.NamespaceCondition) bool { return o.Type == cond.kind })
		if i < 0 {
			changed.Status.Conditions = append(changed.Status.Conditions, corev1.NamespaceCondition{Type: cond.kind})
			i = len(changed.Status.Conditions) - 1
		}
		o := &changed.Status.Conditions[i]
		if o.Status == status && o.Reason == reason && o.Message == message {
			continue
		}
		differs = true
		if o.Status != status {
			o.LastTransitionTime = metav1.Now()
		}
		o.Status, o.Reason, o.Message = status, reason, message
	}
	if !differs {
		return ns, nil
	}
	now, err := c.namespaces.UpdateStatus(ctx, changed)
	return cmp.Or(now, ns), err
}
