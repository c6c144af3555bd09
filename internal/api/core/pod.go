// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/podspec"
)

func pod() *api.Kind {
	return &api.Kind{
		Name: "Pod", Resource: "pods", Singular: "pod",
		ShortNames: []string{"po"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Pod], NewList: api.NewList[corev1.PodList],
			Default: api.Default(defaultPod),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/pods",
		New:     api.New[corev1.Pod], NewList: api.NewList[corev1.PodList],
		Rules: api.For[*corev1.Pod]{
			ValidateName:        apivalidation.NameIsDNSSubdomain,
			PrepareForCreate:    preparePod,
			PrepareForUpdate:    preparePodUpdate,
			Validate:            validatePod,
			ValidateUpdate:      validatePodUpdate,
			Warnings:            podWarnings,
			CheckGracefulDelete: checkGracefulPodDelete,
			Fields:              podFields,
			Columns:             podColumns(),
			Cells:               podCells,
			RowConditions:       podRowConditions,
		}.Rules(),
		Status: &api.Subresource{
			Name:             "status",
			PrepareForUpdate: api.PrepareUpdate(preparePodStatusUpdate),
			ValidateUpdate:   api.Update(validatePodStatusUpdate),
			Warnings:         api.Warn(podStatusWarnings),
			ResetFields:      []string{"spec", "metadata.deletionTimestamp", "metadata.ownerReferences"},
		},
		Subresources: []api.Subresource{{
			Name:             "ephemeralcontainers",
			PrepareForUpdate: api.PrepareUpdate(prepareEphemeralContainers),
			ValidateUpdate:   api.Update(validateEphemeralContainers),
			ResetFields:      append(podSpecFieldsExcept("ephemeralContainers"), "status", "metadata"),
		}, {
			Name:             "resize",
			PrepareForUpdate: api.PrepareUpdate(preparePodResize),
			ValidateUpdate:   api.Update(validatePodResize),
			ResetFields:      append(podSpecFieldsExcept("containers", "initContainers", "resources"), "status", "metadata"),
		}},
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		ResetFields:              []string{"status"},
		IndexedFields:            []string{"spec.nodeName"},
	}
}

// podSpecFieldsExcept are the dotted paths of all fields of the spec but some.
func podSpecFieldsExcept(names ...string) []string {
	except := map[string]bool{}
	for _, name := range names {
		except[name] = true
	}
	var out []string
	t := reflect.TypeFor[corev1.PodSpec]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if !except[name] {
			out = append(out, "spec."+name)
		}
	}
	return out
}

// The annotations in which init containers were kept before they were a field.
func dropInitContainerAnnotations(meta *metav1.ObjectMeta) {
	for _, key := range []string{
		"pod.beta.kubernetes.io/init-containers", "pod.alpha.kubernetes.io/init-containers",
		"pod.beta.kubernetes.io/init-container-statuses", "pod.alpha.kubernetes.io/init-container-statuses",
	} {
		delete(meta.Annotations, key)
	}
}

func defaultPod(p *corev1.Pod) {
	podspec.DefaultPod(p)
	dropInitContainerAnnotations(&p.ObjectMeta)
	// A negative grace period means what it was always taken for.
	if grace := p.Spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		*grace = 1
	}
}

func preparePod(_ context.Context, p *corev1.Pod) {
	p.Generation = 1
	podspec.CompletePodResources(p)
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: podspec.ComputeQOSClass(p)}
	podspec.DropDisabled(&p.Spec, nil)
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now(),
			Reason: corev1.PodReasonSchedulingGated, Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	podspec.MergeMatchLabelKeys(&p.Spec, p.Labels)
	podspec.AppArmorFromAnnotations(p)
}

func preparePodUpdate(_ context.Context, p, old *corev1.Pod) {
	p.Status = old.Status
	podspec.DropDisabled(&p.Spec, &old.Spec)
	bumpPodGeneration(p, old)
}

func bumpPodGeneration(p, old *corev1.Pod) {
	p.Generation = old.Generation
	if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
		p.Generation++
	}
}

func podWarnings(p, old *corev1.Pod) []string {
	if old != nil {
		return nil // pods are updated often, and rarely by people
	}
	var out []string
	if messages := validation.IsDNS1123Label(p.Name); len(messages) > 0 {
		out = append(out, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", messages))
	}
	return append(out, podspec.Warnings(&p.Spec, &p.ObjectMeta, nil)...)
}

func podStatusWarnings(p, _ *corev1.Pod) []string {
	var out []string
	for i, ip := range p.Status.PodIPs {
		out = append(out, validation.GetWarningsForIP(field.NewPath("status", "podIPs").Index(i).Child("ip"), ip.IP)...)
	}
	for i, ip := range p.Status.HostIPs {
		out = append(out, validation.GetWarningsForIP(field.NewPath("status", "hostIPs").Index(i).Child("ip"), ip.IP)...)
	}
	return out
}

// checkGracefulPodDelete settles how long a pod has to end: not at all when no
// node has it, or when it has ended.
func checkGracefulPodDelete(p *corev1.Pod, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	var period int64
	if options.GracePeriodSeconds != nil {
		period = *options.GracePeriodSeconds
	} else if p.Spec.TerminationGracePeriodSeconds != nil {
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	switch {
	case p.Spec.NodeName == "", p.Status.Phase == corev1.PodFailed, p.Status.Phase == corev1.PodSucceeded:
		period = 0
	case period < 0:
		period = 1
	}
	options.GracePeriodSeconds = &period
	return true
}

func podFields(p *corev1.Pod) fields.Set {
	ip := p.Status.PodIP
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.podIPs":            "", // may be asked for, and never says more
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}
