// SPDX-License-Identifier: Apache-2.0

package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// verdict is what the Job's podFailurePolicy says of a failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction // empty when no rule matched
	message string                         // why the Job fails, with FailJob
}

// counts says whether the failure counts against the limits.
func (v verdict) counts() bool { return v.action != batchv1.PodFailurePolicyActionIgnore }

// judge applies the first rule that matches.
func judge(policy *batchv1.PodFailurePolicy, pod *corev1.Pod) verdict {
	if policy == nil {
		return verdict{}
	}
	for i, rule := range policy.Rules {
		var what string
		if rule.OnExitCodes != nil {
			s := exited(pod, rule.OnExitCodes)
			if s == nil {
				continue
			}
			what = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d",
				s.Name, pod.Namespace, pod.Name, s.State.Terminated.ExitCode, rule.Action, i)
		} else {
			c := conditioned(pod, rule.OnPodConditions)
			if c == nil {
				continue
			}
			what = fmt.Sprintf("Pod %s/%s has condition %v matching %v rule at index %d", pod.Namespace, pod.Name, c.Type, rule.Action, i)
		}
		if rule.Action != batchv1.PodFailurePolicyActionFailJob {
			what = ""
		}
		return verdict{rule.Action, what}
	}
	return verdict{}
}

func conditioned(pod *corev1.Pod, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if slices.ContainsFunc(patterns, func(p batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
			return p.Type == c.Type && p.Status == c.Status
		}) {
			return c
		}
	}
	return nil
}

// exited returns the first container that ended with a code the rule names.
func exited(pod *corev1.Pod, rule *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			s := &list[i]
			if s.State.Terminated == nil || s.State.Terminated.ExitCode == 0 || rule.ContainerName != nil && *rule.ContainerName != s.Name {
				continue
			}
			in := slices.Contains(rule.Values, s.State.Terminated.ExitCode)
			if rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && in || rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpNotIn && !in {
				return s
			}
		}
	}
	return nil
}

// succeededEarly says which rule of a successPolicy the succeeded indexes meet.
func succeededEarly(job *batchv1.Job, succeeded spans) (message string, met bool) {
	if job.Spec.SuccessPolicy == nil || len(succeeded) == 0 {
		return "", false
	}
	for i, rule := range job.Spec.SuccessPolicy.Rules {
		have, all := succeeded.total(), false
		if rule.SucceededIndexes != nil {
			wanted := parseSpans(*rule.SucceededIndexes, int(*job.Spec.Completions))
			if len(wanted) == 0 {
				continue
			}
			have = wanted.common(succeeded)
			all = have == wanted.total()
		}
		if all || rule.SucceededCount != nil && have >= int(*rule.SucceededCount) {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}
