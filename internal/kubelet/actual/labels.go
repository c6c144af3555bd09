// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"hash/fnv"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// Hash identifies what of a container's specification makes it another
// container when it changes: its name and its image, as upstream has it.
func Hash(c *corev1.Container) uint64 {
	picked, err := json.Marshal(map[string]string{"image": c.Image, "name": c.Name})
	if err != nil {
		return 0 // two strings always marshal
	}
	sum := fnv.New32a()
	sum.Write(picked)
	return uint64(sum.Sum32())
}

// PodLabels are the labels of a pod's sandbox: the pod's own and its identity.
func PodLabels(pod *corev1.Pod) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+3)
	maps.Copy(labels, pod.Labels)
	labels[kubelettypes.KubernetesPodNameLabel] = pod.Name
	labels[kubelettypes.KubernetesPodNamespaceLabel] = pod.Namespace
	labels[kubelettypes.KubernetesPodUIDLabel] = string(pod.UID)
	return labels
}

// ContainerLabels are the labels of a container.
func ContainerLabels(pod *corev1.Pod, c *corev1.Container) map[string]string {
	return map[string]string{
		kubelettypes.KubernetesPodNameLabel:       pod.Name,
		kubelettypes.KubernetesPodNamespaceLabel:  pod.Namespace,
		kubelettypes.KubernetesPodUIDLabel:        string(pod.UID),
		kubelettypes.KubernetesContainerNameLabel: c.Name,
	}
}

// ContainerAnnotations are what a later agent must know of a container.
func ContainerAnnotations(pod *corev1.Pod, c *corev1.Container, restarts int32) map[string]string {
	a := map[string]string{
		annotationHash:                   strconv.FormatUint(Hash(c), 16),
		annotationRestartCount:           strconv.Itoa(int(restarts)),
		annotationTerminationMessagePath: c.TerminationMessagePath,
		annotationTerminationPolicy:      string(c.TerminationMessagePolicy),
	}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil {
		a[annotationGracePeriod] = strconv.FormatInt(*grace, 10)
	}
	return a
}
