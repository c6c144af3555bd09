// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Facts are what a pod can learn of itself while it is being started.
type Facts struct {
	// PodIPs and HostIPs have the primary address first.
	PodIPs, HostIPs []string
	// Allocatable stands in for the limits that a container does not have.
	Allocatable corev1.ResourceList
}

// Field returns the value of a field of the pod that the downward API offers.
func Field(pod *corev1.Pod, path string, facts Facts) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("fieldPath %q does not support subscript", path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return lines(pod.Labels), nil
	case "metadata.annotations":
		return lines(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return first(facts.PodIPs), nil
	case "status.podIPs":
		return strings.Join(facts.PodIPs, ","), nil
	case "status.hostIP":
		return first(facts.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(facts.HostIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

// subscript splits "metadata.labels['key']".
func subscript(path string) (name, key string, ok bool) {
	name, rest, found := strings.Cut(path, "['")
	if !found || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return name, strings.TrimSuffix(rest, "']"), true
}

// lines writes a map as sorted lines of key="value".
func lines(m map[string]string) string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+strconv.Quote(v))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// ResourceOf returns the value of a container's resource, divided and rounded
// up as the reference says. Limits that are not set are those of the node.
func ResourceOf(ref *corev1.ResourceFieldSelector, pod *corev1.Pod, c *corev1.Container, facts Facts) (string, error) {
	limits, requests := c.Resources.Limits, c.Resources.Requests
	kind, name, _ := strings.Cut(ref.Resource, ".")
	resourceName := corev1.ResourceName(name)
	if !slices.Contains([]string{"cpu", "memory", "ephemeral-storage"}, name) && !strings.HasPrefix(name, "hugepages-") {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	var quantity resource.Quantity
	switch kind {
	case "limits":
		limit, ok := limits[resourceName]
		if !ok || limit.IsZero() {
			limit = nodeLimit(pod, resourceName, facts)
		}
		quantity = limit
	case "requests":
		quantity = requests[resourceName]
	default:
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == "cpu" {
		return strconv.FormatInt(int64(math.Ceil(float64(quantity.MilliValue())/float64(divisor.MilliValue()))), 10), nil
	}
	return strconv.FormatInt(int64(math.Ceil(float64(quantity.Value())/float64(divisor.Value()))), 10), nil
}

// nodeLimit is what bounds a container that has no limit of its own: the pod's
// limit where it has one, and the node's allocatable amount.
func nodeLimit(pod *corev1.Pod, name corev1.ResourceName, facts Facts) resource.Quantity {
	allocatable := facts.Allocatable[name]
	if pod.Spec.Resources != nil {
		if limit, ok := pod.Spec.Resources.Limits[name]; ok && !limit.IsZero() && (allocatable.IsZero() || limit.Cmp(allocatable) < 0) {
			return limit
		}
	}
	return allocatable
}
