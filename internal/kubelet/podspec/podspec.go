// SPDX-License-Identifier: Apache-2.0

// Package podspec answers questions that a pod's specification alone decides.
// All functions are pure.
package podspec

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Annotations by which a pod's source is told.
const (
	// SourceAnnotation is "file" or "http" on static pods and "api" or absent on others.
	SourceAnnotation = "kubernetes.io/config.source"
	// HashAnnotation is a static pod's content hash.
	HashAnnotation = "kubernetes.io/config.hash"
	// MirrorAnnotation is on the copy that the API server holds of a static pod.
	MirrorAnnotation = "kubernetes.io/config.mirror"
	// SeenAnnotation is when a static pod was read first.
	SeenAnnotation = "kubernetes.io/config.seen"
)

// Static says whether the pod comes from a file or a URL.
func Static(pod *corev1.Pod) bool {
	source := pod.Annotations[SourceAnnotation]
	return source == "file" || source == "http"
}

// Mirror says whether the pod stands for a static one.
func Mirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[MirrorAnnotation]
	return ok
}

// UID is a pod's identity on the node: the content hash of a static pod, also
// where its mirror is asked.
func UID(pod *corev1.Pod) types.UID {
	if hash, ok := pod.Annotations[MirrorAnnotation]; ok {
		return types.UID(hash)
	}
	return pod.UID
}

// FullName is "name_namespace", the name of a pod in paths and messages.
func FullName(pod *corev1.Pod) string { return pod.Name + "_" + pod.Namespace }

// Sidecar says whether an init container keeps running beside the others.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Finished says whether the API server has the pod in a final phase.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Containers calls yield for every container of the pod: init containers,
// ordinary ones, ephemeral ones.
func Containers(pod *corev1.Pod) []*corev1.Container {
	all := make([]*corev1.Container, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers)+len(pod.Spec.EphemeralContainers))
	for i := range pod.Spec.InitContainers {
		all = append(all, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		all = append(all, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		all = append(all, Ephemeral(&pod.Spec.EphemeralContainers[i]))
	}
	return all
}

// Ephemeral views an ephemeral container as an ordinary one.
func Ephemeral(e *corev1.EphemeralContainer) *corev1.Container {
	return (*corev1.Container)(&e.EphemeralContainerCommon)
}

// Container returns the container of a name, nil for none.
func Container(pod *corev1.Pod, name string) *corev1.Container {
	for _, c := range Containers(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// ShouldRestart says whether a container that ended with exitCode is to run
// again, by its own rules, its own policy, or the pod's (KEP-5307).
func ShouldRestart(pod *corev1.Pod, c *corev1.Container, exitCode int32) bool {
	if rule := MatchingRule(c, exitCode); rule != nil {
		return true
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	return true
}

// MatchingRule returns the first restart rule that an exit code meets.
func MatchingRule(c *corev1.Container, exitCode int32) *corev1.ContainerRestartRule {
	for i, rule := range c.RestartPolicyRules {
		if rule.ExitCodes == nil {
			continue
		}
		in := slices.Contains(rule.ExitCodes.Values, exitCode)
		if in == (rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return &c.RestartPolicyRules[i]
		}
	}
	return nil
}

// RestartsAll says whether the end of a container restarts the whole pod where it
// is (KEP-5532).
func RestartsAll(c *corev1.Container, exitCode int32) bool {
	rule := MatchingRule(c, exitCode)
	return rule != nil && rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers
}

// CouldRestartAll says whether there is an exit code for RestartsAll.
func CouldRestartAll(pod *corev1.Pod) bool {
	return slices.ContainsFunc(Containers(pod), func(c *corev1.Container) bool {
		return slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
			return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
		})
	})
}

// RestartsOnFailure says whether any exit of a container could be followed by
// a restart.
func RestartsOnFailure(pod *corev1.Pod, c *corev1.Container) bool {
	if len(c.RestartPolicyRules) > 0 {
		return true
	}
	if c.RestartPolicy != nil {
		return *c.RestartPolicy != corev1.ContainerRestartPolicyNever
	}
	return pod.Spec.RestartPolicy != corev1.RestartPolicyNever
}

// Grace is how long the pod may take to end, by its deletion where it is being
// deleted and by its specification otherwise.
func Grace(pod *corev1.Pod) time.Duration {
	switch {
	case pod.DeletionGracePeriodSeconds != nil:
		return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	return 30 * time.Second
}

// Critical says whether the pod must not be evicted or refused for lack of
// resources: static pods and those of the system's priority classes.
func Critical(pod *corev1.Pod) bool {
	return Static(pod) || Mirror(pod) || pod.Spec.Priority != nil && *pod.Spec.Priority >= 2_000_000_000
}
