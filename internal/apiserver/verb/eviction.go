// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/request"
)

// maxDisruptedPods bounds the evictions a budget has not seen confirmed.
const maxDisruptedPods = 2000

// maxTries bounds the attempts at a pod that changes meanwhile.
const maxTries = 20

var budgets = schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudget"}

// evictions delete pods where their disruption budget allows it.
func (v *Verbs) evictions() Subresource {
	return Subresource{
		Resource: pods, Name: "eviction", GVK: policyv1.SchemeGroupVersion.WithKind("Eviction"),
		New: func() runtime.Object { return &policyv1.Eviction{} },
		// What kubectl drain sent before 1.22 differs in name only.
		Accepts: func(gvk schema.GroupVersionKind) bool {
			return gvk == schema.GroupVersionKind{Group: policyv1.GroupName, Version: "v1beta1", Kind: "Eviction"}
		},
		Verbs:  []string{"create"},
		Create: v.evict,
	}
}

func (v *Verbs) evict(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, error) {
	eviction := obj.(*policyv1.Eviction)
	if eviction.Name != in.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	if err := object.MatchNamespace(eviction, in.Namespace); err != nil {
		return nil, err
	}
	how := eviction.DeleteOptions.DeepCopy()
	if how == nil {
		how = &metav1.DeleteOptions{}
	}
	if err := invalidOptions("DeleteOptions", validation.ValidateDeleteOptions(how)); err != nil {
		return nil, err
	}
	if len(how.DryRun) == 0 {
		how.DryRun = opts.DryRun
	}
	if err := v.admitSpecial(ctx, in, eviction, opts); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		entry, err := v.Objects.Get(ctx, in.Served, in.Namespace, in.Name, "")
		if err != nil {
			return nil, err
		}
		again, err := v.tryEvict(ctx, in, entry.Object.(*corev1.Pod), how.DeepCopy())
		if err == nil {
			return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess}, nil
		}
		if !again || try == maxTries {
			return nil, err
		}
	}
}

// tryEvict evicts a pod in the state given. One that may go because of its
// state must still be in that state when it goes; again says that it was not,
// and no budget has a say.
func (v *Verbs) tryEvict(ctx context.Context, in *request.Info, pod *corev1.Pod, how *metav1.DeleteOptions) (again bool, err error) {
	named := how.Preconditions != nil && how.Preconditions.ResourceVersion != nil // by the caller
	if ignoresBudget(pod) {
		if pod.Status.Phase == corev1.PodPending && pod.DeletionTimestamp == nil && !named {
			pin(how, pod)
		}
		err := v.evictNow(ctx, in, pod, how)
		return apierrors.IsConflict(err) && !named, err
	}
	unhealthy, err := v.disrupt(ctx, pod, how)
	if err != nil {
		return false, err
	}
	err = v.evictNow(ctx, in, pod, how)
	if unhealthy != "" && !named && apierrors.IsConflict(err) {
		return false, unprocessed(unhealthy)
	}
	return false, err
}

// pin lets a deletion succeed only while the pod is as it is.
func pin(how *metav1.DeleteOptions, pod *corev1.Pod) {
	if how.Preconditions == nil {
		how.Preconditions = &metav1.Preconditions{}
	}
	rv := pod.ResourceVersion
	how.Preconditions.ResourceVersion = &rv
}

// ignoresBudget says whether a pod does not count for any budget.
func ignoresBudget(pod *corev1.Pod) bool {
	switch pod.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending:
		return true
	}
	return pod.DeletionTimestamp != nil
}

// disrupt takes one disruption from the pod's budget, or refuses. A pod that
// may go because it is not healthy takes none, and the budget's name comes back.
func (v *Verbs) disrupt(ctx context.Context, pod *corev1.Pod, how *metav1.DeleteOptions) (unhealthy string, err error) {
	served := v.Kinds.Resource(policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"))
	if served == nil {
		return "", nil
	}
	budget, err := v.budgetOf(ctx, served, pod)
	if budget == nil || err != nil {
		return "", err
	}
	if !ready(pod) {
		policy := budget.Spec.UnhealthyPodEvictionPolicy
		always := policy != nil && *policy == policyv1.AlwaysAllow
		healthy := budget.Status.CurrentHealthy >= budget.Status.DesiredHealthy && budget.Status.DesiredHealthy > 0
		if always || healthy {
			pin(how, pod)
			return budget.Name, nil
		}
	}
	in := request.Info{Served: served}
	in.APIGroup, in.APIVersion, in.Resource, in.Subresource = policyv1.GroupName, "v1", "poddisruptionbudgets", "status"
	in.Namespace, in.Name = budget.Namespace, budget.Name
	change := object.Change{
		UID: budget.UID, Unadmitted: true, View: &api.Subresource{Name: "status"},
		Apply: func(_ context.Context, old api.Object) (api.Object, error) {
			b := old.DeepCopyObject().(*policyv1.PodDisruptionBudget)
			return b, decrement(b, pod.Name)
		},
	}
	_, _, err = v.Objects.Update(ctx, &in, change, &metav1.UpdateOptions{DryRun: how.DryRun})
	return "", err
}

// budgetOf returns the budget that covers a pod, or nil.
func (v *Verbs) budgetOf(ctx context.Context, served *request.Served, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	snapshot, err := v.Cache.Snapshot(ctx, served.Kind)
	if err != nil {
		return nil, err
	}
	var found *policyv1.PodDisruptionBudget
	for e := range snapshot.All(pod.Namespace, "") {
		b := e.Object.(*policyv1.PodDisruptionBudget)
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if found != nil {
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			}}
		}
		found = b
	}
	return found, nil
}

// refused is the answer of a budget that allows nothing now.
const refused = "Cannot evict pod as it would violate the pod's disruption budget."

// unprocessed is the answer while a budget's status is behind.
func unprocessed(budget string) error {
	err := apierrors.NewTooManyRequests(refused, 10)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf("The disruption budget %s is still being processed by the server.", budget),
	})
	return err
}

// decrement takes one disruption from a budget.
func decrement(b *policyv1.PodDisruptionBudget, podName string) error {
	switch {
	case b.Status.ObservedGeneration < b.Generation:
		return unprocessed(b.Name)
	case b.Status.DisruptionsAllowed < 0:
		return apierrors.NewForbidden(budgets, b.Name, errors.New("pdb disruptions allowed is negative"))
	case len(b.Status.DisruptedPods) > maxDisruptedPods:
		return apierrors.NewForbidden(budgets, b.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case b.Status.DisruptionsAllowed == 0:
		err := apierrors.NewTooManyRequests(refused, 0)
		message := fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy)
		if c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition); c != nil && c.Reason == policyv1.SyncFailedReason {
			message = fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %v", b.Name, c.Message)
		}
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: message})
		return err
	}
	b.Status.DisruptionsAllowed--
	if b.Status.DisruptionsAllowed == 0 {
		meta.SetStatusCondition(&b.Status.Conditions, metav1.Condition{
			Type: policyv1.DisruptionAllowedCondition, Reason: policyv1.InsufficientPodsReason,
			Status: metav1.ConditionFalse, ObservedGeneration: b.Status.ObservedGeneration,
		})
	}
	if b.Status.DisruptedPods == nil {
		b.Status.DisruptedPods = map[string]metav1.Time{}
	}
	b.Status.DisruptedPods[podName] = metav1.Now()
	return nil
}

// evictNow marks the pod as disrupted and deletes it.
func (v *Verbs) evictNow(ctx context.Context, in *request.Info, pod *corev1.Pod, how *metav1.DeleteOptions) error {
	sub := *in
	sub.Subresource = "status"
	change := object.Change{
		UID: pod.UID, Unadmitted: true, View: &api.Subresource{Name: "status"},
		Apply: func(_ context.Context, old api.Object) (api.Object, error) {
			if err := object.CheckPreconditions(in.Kind, old, how); err != nil {
				return nil, err
			}
			p := old.DeepCopyObject().(*corev1.Pod)
			setPodCondition(p, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
				Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			})
			return p, nil
		},
	}
	if how.Preconditions != nil {
		change.UID = "" // what was asked for is judged above, in other words
	}
	marked, _, err := v.Objects.Update(ctx, &sub, change, &metav1.UpdateOptions{DryRun: how.DryRun})
	if err != nil {
		return err
	}
	if how.Preconditions != nil && how.Preconditions.ResourceVersion != nil && len(how.DryRun) == 0 {
		rv := marked.GetResourceVersion()
		how.Preconditions.ResourceVersion = &rv
	}
	if how.Preconditions == nil {
		how.Preconditions = &metav1.Preconditions{UID: uidOf(pod)}
	}
	whole := *in
	whole.Subresource = ""
	_, _, err = v.Objects.Remove(ctx, &whole, how)
	return err
}

func ready(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
