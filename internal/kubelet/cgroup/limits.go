// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"

	"kaji/internal/kubelet/podspec"
)

// MemoryQoS says how requests and limits of memory count besides the bounds.
type MemoryQoS struct {
	// Reserve keeps what guaranteed pods request from reclaim, and what burstable
	// ones do as far as can be.
	Reserve bool
	// Throttle is the part of the way from a request to its limit from which on
	// more memory is slow to get; zero never is.
	Throttle float64
}

// High is where memory gets slow to get between a request and a limit, in bytes;
// zero where nothing is throttled.
func (q MemoryQoS) High(request, limit int64) int64 {
	page := int64(os.Getpagesize())
	high := int64(float64(request)+float64(limit-request)*q.Throttle) / page * page
	if q.Throttle == 0 || limit == 0 || request == limit || high <= request {
		return 0
	}
	return high
}

// Limits are what a group gets. Zero values are not written; a negative quota
// or memory takes the limit away.
type Limits struct {
	Shares, Quota, Period, Memory, Pids int64
	// HugePages are bytes by page size, as the kernel writes it.
	HugePages map[string]int64
	// Unified are files that version 2 alone has.
	Unified map[string]string
}

// pages are the huge pages in a list, by size; those that it does not have are none.
func (t *Tree) pages(list corev1.ResourceList) map[string]int64 {
	out := map[string]int64{}
	for _, size := range t.cfg.HugePages {
		out[size] = 0
	}
	for name, amount := range list {
		text, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
		size, err := apiresource.ParseQuantity(text)
		if !ok || err != nil {
			continue
		}
		if kernel := PageSize(size.Value()); slices.Contains(t.cfg.HugePages, kernel) {
			out[kernel] += amount.Value()
		}
	}
	return out
}

// PageSize writes a size in bytes as the kernel does in names of files: "2MB".
func PageSize(bytes int64) string {
	n, unit := bytes/1024, 0
	for n >= 1024 && n%1024 == 0 && unit < 3 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + []string{"KB", "MB", "GB", "TB"}[unit]
}

// bounds are the limits of a group that is given resources as a whole.
func bounds(r corev1.ResourceList, compressible bool) (l Limits) {
	if cpu, ok := r[corev1.ResourceCPU]; ok {
		l.Shares = shares(cpu.MilliValue())
	}
	if !compressible {
		processes := r[PIDs]
		l.Memory, l.Pids = r.Memory().Value(), processes.Value()
	}
	return l
}

func shares(milli int64) int64 { return min(max(milli*1024/1000, 2), 262144) }

// PodLimits are those of a pod's group.
func (t *Tree) PodLimits(pod *corev1.Pod) Limits {
	l := Limits{Shares: 2, Pids: t.cfg.PodPids}
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	if podspec.QOS(pod) != corev1.PodQOSBestEffort {
		l.Shares = shares(requests.Cpu().MilliValue())
	}
	if allHave(pod, corev1.ResourceCPU) && t.cfg.Quota && (t.cfg.Exclusive == nil || !t.cfg.Exclusive(pod)) {
		l.Period = t.cfg.QuotaPeriod.Microseconds()
		l.Quota = max(limits.Cpu().MilliValue()*l.Period/1000, 1000)
	}
	if allHave(pod, corev1.ResourceMemory) {
		l.Memory = limits.Memory().Value()
	}
	l.HugePages = t.pages(requests)
	l.Unified = t.memoryQoS(pod, requests.Memory().Value(), l.Memory)
	return l
}

// memoryQoS is what a pod's group has of requests and limits of memory besides
// its bound.
func (t *Tree) memoryQoS(pod *corev1.Pod, request, limit int64) map[string]string {
	files := map[string]string{}
	if t.unified && t.cfg.Memory.Reserve && request > 0 {
		file := "memory.low"
		if podspec.QOS(pod) == corev1.PodQOSGuaranteed {
			file = "memory.min"
		}
		files[file] = strconv.FormatInt(request, 10)
	}
	if high := t.cfg.Memory.High(request, limit); t.unified && pod.Spec.Resources != nil && high > 0 {
		files["memory.high"] = strconv.FormatInt(high, 10)
	}
	return files
}

// allHave says whether the pod as a whole is limited: by itself, or because
// every container is.
func allHave(pod *corev1.Pod, name corev1.ResourceName) bool {
	if r := pod.Spec.Resources; r != nil {
		if limit, ok := r.Limits[name]; ok && !limit.IsZero() {
			return true
		}
	}
	limited := func(c *corev1.Container) bool {
		limit := c.Resources.Limits[name]
		return !limit.IsZero()
	}
	for i := range pod.Spec.Containers {
		if !limited(&pod.Spec.Containers[i]) {
			return false
		}
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; podspec.Sidecar(c) && !limited(c) {
			return false
		}
	}
	return true
}

// Weight converts version 1's shares to version 2's weight, as the field does.
func Weight(shares int64) int64 {
	if shares <= 0 {
		return 0
	}
	return 1 + (min(max(shares, 2), 262144)-2)*9999/262142
}
