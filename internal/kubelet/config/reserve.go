// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/cpuset"

	"kaji/internal/kubelet/evict"
)

// Reserved is what systemReserved and kubeReserved keep from pods together.
func Reserved(c *configv1beta1.KubeletConfiguration) (corev1.ResourceList, error) {
	sum := corev1.ResourceList{}
	for _, list := range []map[string]string{c.SystemReserved, c.KubeReserved} {
		part, err := Reservation(list)
		if err != nil {
			return nil, err
		}
		for name, q := range part {
			q.Add(sum[name])
			sum[name] = q
		}
	}
	if c.ReservedSystemCPUs != "" { // they are what is kept, whatever else is said
		cpus, err := cpuset.Parse(c.ReservedSystemCPUs)
		if err != nil {
			return nil, fmt.Errorf("unable to parse reservedSystemCPUs (--reserved-cpus) %v, error: %w", c.ReservedSystemCPUs, err)
		}
		sum[corev1.ResourceCPU] = *resource.NewQuantity(int64(cpus.Size()), resource.DecimalSI)
	}
	return sum, nil
}

// Reservation reads systemReserved or kubeReserved.
func Reservation(list map[string]string) (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	for name, text := range list {
		switch corev1.ResourceName(name) {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "pid":
		default:
			return nil, fmt.Errorf("cannot reserve %q resource", name)
		}
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, fmt.Errorf("failed to parse quantity %q for %q resource: %w", text, name, err)
		}
		if q.Sign() < 0 {
			return nil, fmt.Errorf("resource quantity for %q cannot be negative: %v", name, text)
		}
		out[corev1.ResourceName(name)] = q
	}
	return out, nil
}

// Eviction are the thresholds: upstream's defaults where no hard ones are
// given, or besides those given where that is asked for.
func Eviction(c *configv1beta1.KubeletConfiguration) ([]evict.Threshold, error) {
	given, err := evict.Parse(c.EvictionHard, c.EvictionSoft, c.EvictionSoftGracePeriod)
	if err != nil {
		return nil, err
	}
	if len(c.EvictionHard) > 0 && !*c.MergeDefaultEvictionSettings {
		return evict.WithMinimum(given, c.EvictionMinimumReclaim)
	}
	named := maps.Clone(c.EvictionHard)
	for _, t := range evict.Defaults() {
		if _, ok := named[string(t.Signal)]; !ok {
			given = append(given, t)
		}
	}
	return evict.WithMinimum(given, c.EvictionMinimumReclaim)
}
