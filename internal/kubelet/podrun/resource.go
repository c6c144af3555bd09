// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/podspec"
)

const (
	minShares       = 2
	sharesPerCPU    = 1024
	minQuotaMicros  = 1000
	guaranteedScore = -997
	bestEffortScore = 1000
)

// Shares converts a CPU request to the kernel's weight.
func Shares(milliCPU int64) int64 {
	if milliCPU == 0 {
		return minShares
	}
	return min(max(milliCPU*sharesPerCPU/1000, minShares), 262144)
}

// Quota converts a CPU limit to microseconds of each period; zero is no limit.
func Quota(milliCPU int64, period time.Duration) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*period.Microseconds()/1000, minQuotaMicros)
}

// resources are the limits that the runtime enforces on a container.
func (r *Runner) resources(pod *corev1.Pod, c *corev1.Container) *runtimeapi.LinuxContainerResources {
	capacity := r.cfg.Host.MemoryCapacity()
	linux := &runtimeapi.LinuxContainerResources{
		MemoryLimitInBytes: limit(pod, c, corev1.ResourceMemory).Value(),
		OomScoreAdj:        oomScore(pod, c, capacity),
		CpuShares:          Shares(requestedCPU(pod, c)),
		HugepageLimits:     r.cfg.Memory.hugePages(pod, c),
	}
	if !r.cfg.NoCPUQuota {
		linux.CpuPeriod = r.cfg.CPUPeriod.Microseconds()
		linux.CpuQuota = Quota(limit(pod, c, corev1.ResourceCPU).MilliValue(), r.cfg.CPUPeriod)
		if r.cfg.Exclusive != nil && r.cfg.Exclusive(pod.UID, c.Name) {
			linux.CpuQuota = -1 // its processors are bound enough
		}
	}
	r.cfg.Memory.unified(linux, pod, c)
	r.cfg.Memory.swap(linux, pod, c, capacity)
	return linux
}

// limit is that of a container, or else of its pod as a whole; zero for none.
func limit(pod *corev1.Pod, c *corev1.Container, name corev1.ResourceName) *resource.Quantity {
	quantity := c.Resources.Limits[name]
	if quantity.IsZero() && pod.Spec.Resources != nil {
		quantity = pod.Spec.Resources.Limits[name]
	}
	return &quantity
}

// requestedCPU is what a container asks for, in thousandths of a CPU.
func requestedCPU(pod *corev1.Pod, c *corev1.Container) int64 {
	if _, asked := c.Resources.Requests[corev1.ResourceCPU]; asked {
		return c.Resources.Requests.Cpu().MilliValue()
	}
	return limit(pod, c, corev1.ResourceCPU).MilliValue()
}

// kernelPageSize writes "2Mi" as the kernel does: "2MB".
func kernelPageSize(s string) string { return strings.TrimSuffix(s, "i") + "B" }

// oomScore ranks a container for the kernel's out-of-memory killer.
func oomScore(pod *corev1.Pod, c *corev1.Container, capacity int64) int64 {
	if podspec.Critical(pod) {
		return guaranteedScore
	}
	switch podspec.QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteedScore
	case corev1.PodQOSBestEffort:
		return bestEffortScore
	}
	if capacity == 0 {
		return bestEffortScore - 1
	}
	score := 1000 - 1000*c.Resources.Requests.Memory().Value()/capacity
	if score < 1000+guaranteedScore {
		return 1000 + guaranteedScore
	}
	return min(score, bestEffortScore-1)
}

// Resized says whether a running container is held to other limits than its
// specification asks for.
func Resized(pod *corev1.Pod, c *corev1.Container, seen *actual.Container) bool {
	cpu, memory := changed(pod, c, seen)
	return cpu || memory
}

// ResizeRestarts says whether what changed asks for a restart.
func ResizeRestarts(pod *corev1.Pod, c *corev1.Container, seen *actual.Container) bool {
	cpu, memory := changed(pod, c, seen)
	for _, policy := range c.ResizePolicy {
		if policy.RestartPolicy == corev1.RestartContainer &&
			(policy.ResourceName == corev1.ResourceCPU && cpu || policy.ResourceName == corev1.ResourceMemory && memory) {
			return true
		}
	}
	return false
}

func changed(pod *corev1.Pod, c *corev1.Container, seen *actual.Container) (cpu, memory bool) {
	have := seen.Resources
	if have == nil {
		return false, false
	}
	if have.CpuShares != 0 && have.CpuShares != Shares(requestedCPU(pod, c)) {
		cpu = true
	}
	// A guaranteed container without a quota has processors for itself.
	exclusive := have.CpuQuota <= 0 && podspec.QOS(pod) == corev1.PodQOSGuaranteed
	if have.CpuPeriod > 0 && !exclusive && max(have.CpuQuota, 0) != Quota(limit(pod, c, corev1.ResourceCPU).MilliValue(), time.Duration(have.CpuPeriod)*time.Microsecond) {
		cpu = true
	}
	memory = max(have.MemoryLimitInBytes, 0) != limit(pod, c, corev1.ResourceMemory).Value()
	return cpu, memory
}
