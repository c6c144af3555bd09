// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/request"
)

var pods = schema.GroupResource{Resource: "pods"}

// bindings are where the scheduler says which node a pod runs on.
func (v *Verbs) bindings() Subresource {
	return Subresource{
		Resource: pods, Name: "binding", GVK: corev1.SchemeGroupVersion.WithKind("Binding"),
		New:    func() runtime.Object { return &corev1.Binding{} },
		Verbs:  []string{"create"},
		Create: v.bind,
	}
}

// legacyBind serves the resource "bindings", where the pod is named in the body.
func (v *Verbs) legacyBind(ctx context.Context, in *request.Info, obj runtime.Object) (runtime.Object, error) {
	binding := obj.(*corev1.Binding)
	if errs := targetErrors(binding); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if binding.Name == "" {
		return nil, apierrors.NewBadRequest("the name of the pod to bind is required")
	}
	sub := *in
	sub.Resource, sub.Subresource, sub.Name = "pods", "binding", binding.Name
	sub.Served = v.Kinds.Resource(corev1.SchemeGroupVersion.WithResource("pods"))
	return v.assign(ctx, &sub, binding, nil)
}

func (v *Verbs) bind(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, error) {
	binding := obj.(*corev1.Binding)
	if binding.Name != in.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if err := object.MatchNamespace(binding, in.Namespace); err != nil {
		return nil, err
	}
	if err := v.admitSpecial(ctx, in, binding, opts); err != nil {
		return nil, err
	}
	return v.assign(ctx, in, binding, opts.DryRun)
}

// admitSpecial runs admission for a subresource with a type of its own.
func (v *Verbs) admitSpecial(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.CreateOptions) error {
	attrs := admission.Of(ctx, in, admission.Create, opts, len(opts.DryRun) > 0).With(obj, nil)
	attrs.Kind = obj.GetObjectKind().GroupVersionKind()
	if err := v.Objects.Admission.Mutate(ctx, attrs); err != nil {
		return err
	}
	return v.Objects.Admission.Validate(ctx, attrs)
}

// targetErrors are what is wrong with the node a binding names. Upstream does
// not word them as an invalid object's.
func targetErrors(binding *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := field.NewPath("target")
	if kind := binding.Target.Kind; kind != "" && kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), kind, []string{"Node", "<empty>"}))
	}
	if binding.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	return errs
}

// assign writes what a binding says into the pod.
func (v *Verbs) assign(ctx context.Context, in *request.Info, binding *corev1.Binding, dryRun []string) (runtime.Object, error) {
	if errs := targetErrors(binding); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	change := object.Change{
		UID: binding.UID, ResourceVersion: binding.ResourceVersion, Unadmitted: true, View: &api.Subresource{Name: "binding"},
		Apply: func(_ context.Context, old api.Object) (api.Object, error) {
			pod := old.DeepCopyObject().(*corev1.Pod)
			if err := assignNode(pod, binding); err != nil {
				return nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, in.Name, err)
			}
			return pod, nil
		},
	}
	if _, _, err := v.Objects.Update(ctx, in, change, &metav1.UpdateOptions{DryRun: dryRun}); err != nil {
		return nil, err
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess}, nil
}

func assignNode(pod *corev1.Pod, binding *corev1.Binding) error {
	switch {
	case pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName = binding.Target.Name
	pod.Status.NominatedNodeName = "" // a hint that has served
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	maps.Copy(pod.Annotations, binding.Annotations)
	if len(binding.Labels) > 0 && pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	maps.Copy(pod.Labels, binding.Labels)
	setPodCondition(pod, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
	return nil
}

// setPodCondition writes a condition, with the time when its status changed.
func setPodCondition(pod *corev1.Pod, condition corev1.PodCondition) {
	condition.LastTransitionTime = metav1.Now()
	for i := range pod.Status.Conditions {
		if have := &pod.Status.Conditions[i]; have.Type == condition.Type {
			if have.Status == condition.Status {
				condition.LastTransitionTime = have.LastTransitionTime
			}
			*have = condition
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, condition)
}

// uidOf is a precondition on an object's identity.
func uidOf(obj api.Object) *types.UID {
	uid := obj.GetUID()
	return &uid
}

// trackView records in managedFields what was posted to a subresource with a
// type of its own.
func (v *Verbs) trackView(in *request.Info, obj runtime.Object, manager string) error {
	s := v.special(in)
	fields, err := v.Objects.ViewFieldManager(in.Served, in.Subresource, s.GVK, s.New)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	empty := s.New()
	empty.GetObjectKind().SetGroupVersionKind(s.GVK)
	obj.GetObjectKind().SetGroupVersionKind(s.GVK)
	fields.UpdateNoErrors(empty, obj, object.Manager(manager, in.UserAgent))
	return nil
}
