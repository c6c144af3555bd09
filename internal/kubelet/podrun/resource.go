// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	limits, requests := c.Resources.Limits, c.Resources.Requests
	linux := &runtimeapi.LinuxContainerResources{
		MemoryLimitInBytes: limits.Memory().Value(),
		OomScoreAdj:        oomScore(pod, c, r.cfg.Host.MemoryCapacity()),
	}
	cpu := requests.Cpu().MilliValue()
	if _, asked := requests[corev1.ResourceCPU]; !asked {
		cpu = limits.Cpu().MilliValue()
	}
	linux.CpuShares = Shares(cpu)
	if !r.cfg.NoCPUQuota {
		linux.CpuPeriod = r.cfg.CPUPeriod.Microseconds()
		linux.CpuQuota = Quota(limits.Cpu().MilliValue(), r.cfg.CPUPeriod)
	}
	for name, quantity := range limits {
		if size, ok := strings.CutPrefix(string(name), "hugepages-"); ok {
			linux.HugepageLimits = append(linux.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: kernelPageSize(size), Limit: uint64(quantity.Value())})
		}
	}
	return linux
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
	cpu, memory := changed(c, seen)
	return cpu || memory
}

// ResizeRestarts says whether what changed asks for a restart.
func ResizeRestarts(pod *corev1.Pod, c *corev1.Container, seen *actual.Container) bool {
	cpu, memory := changed(c, seen)
	for _, policy := range c.ResizePolicy {
		if policy.RestartPolicy == corev1.RestartContainer &&
			(policy.ResourceName == corev1.ResourceCPU && cpu || policy.ResourceName == corev1.ResourceMemory && memory) {
			return true
		}
	}
	return false
}

func changed(c *corev1.Container, seen *actual.Container) (cpu, memory bool) {
	have := seen.Resources
	if have == nil {
		return false, false
	}
	request := c.Resources.Requests.Cpu().MilliValue()
	if _, asked := c.Resources.Requests[corev1.ResourceCPU]; !asked {
		request = c.Resources.Limits.Cpu().MilliValue()
	}
	if have.CpuShares != 0 && have.CpuShares != Shares(request) {
		cpu = true
	}
	if have.CpuPeriod > 0 && max(have.CpuQuota, 0) != Quota(c.Resources.Limits.Cpu().MilliValue(), time.Duration(have.CpuPeriod)*time.Microsecond) {
		cpu = true
	}
	memory = max(have.MemoryLimitInBytes, 0) != c.Resources.Limits.Memory().Value()
	return cpu, memory
}
