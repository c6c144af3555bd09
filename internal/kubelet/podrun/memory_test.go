// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/cgroup"
)

// memoryHost has 8 GiB.
type memoryHost struct{ Host }

func (memoryHost) MemoryCapacity() int64 { return 8 << 30 }

func quantities(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		list[corev1.ResourceName(name)] = resource.MustParse(value)
	}
	return list
}

// TestResources gives containers the limits that upstream's agent gives them, on
// both versions of control groups, with and without swap.
func TestResources(t *testing.T) {
	burstable := corev1.ResourceRequirements{Requests: quantities("memory=1Gi", "cpu=250m"), Limits: quantities("memory=2Gi")}
	v1, v2 := Memory{Accounted: true, Swap: 4 << 30, HugePages: []string{"2MB", "1GB"}}, Memory{Unified: true, Accounted: true, Swap: 4 << 30, Off: true}
	qos := Memory{Unified: true, KillOne: true, Allocatable: func() int64 { return 4 << 30 }}
	tiers := qos
	tiers.QoS = cgroup.MemoryQoS{Reserve: true, Throttle: 0.5}
	guaranteed := corev1.ResourceRequirements{Requests: quantities("memory=1Gi", "cpu=1"), Limits: quantities("memory=1Gi", "cpu=1")}
	limited := v2
	limited.Limited = true
	limitedV1 := v1
	limitedV1.Limited = true
	one := v2
	one.KillOne, one.Accounted = true, false
	for _, c := range []struct {
		name      string
		memory    Memory
		pod       *corev1.ResourceRequirements
		container corev1.ResourceRequirements
		priority  int32
		want      string
	}{
		{"version 1", v1, nil, burstable, 0, "shares 256 quota 0 memory 2147483648 swap 2147483648 2MB=0 1GB=0"},
		{"version 1 has no limited swap", limitedV1, nil, burstable, 0, "shares 256 quota 0 memory 2147483648 swap 2147483648 2MB=0 1GB=0"},
		{"huge pages", v1, &corev1.ResourceRequirements{Limits: quantities("hugepages-1Gi=2Gi", "hugepages-2Mi=2Mi")}, corev1.ResourceRequirements{Limits: quantities("hugepages-2Mi=8Mi")}, 0,
			"shares 2 quota 0 memory 0 swap 0 2MB=8388608 1GB=2147483648"},
		{"version 2", v2, nil, burstable, 0, "shares 256 quota 0 memory 2147483648 swap 0 memory.high=max memory.oom.group=1 memory.swap.max=0"},
		{"version 2, one process, swap not accounted for", one, nil, burstable, 0, "shares 256 quota 0 memory 2147483648 swap 0 memory.high=max"},
		{"limited swap: an eighth of the memory, an eighth of the swap", limited, nil, burstable, 0,
			"shares 256 quota 0 memory 2147483648 swap 0 memory.high=max memory.oom.group=1 memory.swap.max=536870912"},
		{"limited swap, no memory asked for", limited, nil, corev1.ResourceRequirements{Requests: quantities("cpu=1")}, 0,
			"shares 1024 quota 0 memory 0 swap 0 memory.high=max memory.oom.group=1 memory.swap.max=0"},
		{"limited swap, request and limit the same", limited, nil, corev1.ResourceRequirements{Requests: quantities("cpu=1", "memory=1Gi"), Limits: quantities("memory=1Gi")}, 0,
			"shares 1024 quota 0 memory 1073741824 swap 0 memory.high=max memory.oom.group=1 memory.swap.max=0"},
		{"limited swap, critical", limited, nil, burstable, 2_000_000_000, "shares 256 quota 0 memory 2147483648 swap 0 memory.high=max memory.oom.group=1 memory.swap.max=0"},
		{"memory QoS without tiers and throttling", qos, nil, burstable, 0, "shares 256 quota 0 memory 2147483648 swap 0 memory.low=0 memory.min=0"},
		{"memory QoS, burstable: what is requested is kept, half way to the limit it is slow", tiers, nil, burstable, 0,
			"shares 256 quota 0 memory 2147483648 swap 0 memory.high=1610612736 memory.low=1073741824"},
		{"memory QoS, guaranteed", tiers, nil, guaranteed, 0, "shares 1024 quota 100000 memory 1073741824 swap 0 memory.min=1073741824"},
		{"memory QoS, no limit: the node's", tiers, nil, corev1.ResourceRequirements{}, 0, "shares 2 quota 0 memory 0 swap 0 memory.high=2147483648 memory.low=0 memory.min=0"},
		{"memory QoS, limit of the pod", tiers, &corev1.ResourceRequirements{Limits: quantities("memory=1Gi")}, corev1.ResourceRequirements{}, 0,
			"shares 2 quota 0 memory 1073741824 swap 0 memory.low=0 memory.min=0"},
		{"limits of the pod as a whole", one, &corev1.ResourceRequirements{Limits: quantities("cpu=2", "memory=1Gi")}, corev1.ResourceRequirements{}, 0,
			"shares 2048 quota 200000 memory 1073741824 swap 0 memory.high=max"},
		{"a container's limits before those of its pod", one, &corev1.ResourceRequirements{Limits: quantities("cpu=2", "memory=1Gi")},
			corev1.ResourceRequirements{Limits: quantities("cpu=500m", "memory=1Mi")}, 0, "shares 512 quota 50000 memory 1048576 swap 0 memory.high=max"},
	} {
		r := &Runner{cfg: Config{Host: memoryHost{}, Memory: c.memory, CPUPeriod: 100 * time.Millisecond}}
		pod := &corev1.Pod{Spec: corev1.PodSpec{Priority: ptr.To(c.priority), Resources: c.pod, Containers: []corev1.Container{{Name: "c", Resources: c.container}}}}
		if got := written(r.resources(pod, &pod.Spec.Containers[0])); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// A container with processors for itself has no quota, and is not taken for
// resized because of that.
func TestExclusive(t *testing.T) {
	r := &Runner{cfg: Config{Host: memoryHost{}, CPUPeriod: 100 * time.Millisecond, Exclusive: func(pod types.UID, name string) bool { return pod == "u" && name == "own" }}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "own",
		Resources: corev1.ResourceRequirements{Requests: quantities("memory=1Gi", "cpu=1"), Limits: quantities("memory=1Gi", "cpu=1")}}}}}
	c := &pod.Spec.Containers[0]
	given := r.resources(pod, c)
	if got := written(given); got != "shares 1024 quota -1 memory 1073741824 swap 0" {
		t.Errorf("got %s", got)
	}
	if Resized(pod, c, &actual.Container{Resources: given}) {
		t.Error("it is taken for resized")
	}
	given.MemoryLimitInBytes++
	if !Resized(pod, c, &actual.Container{Resources: given}) {
		t.Error("another limit of memory is not seen")
	}
}

func written(l *runtimeapi.LinuxContainerResources) string {
	text := fmt.Sprintf("shares %d quota %d memory %d swap %d", l.CpuShares, l.CpuQuota, l.MemoryLimitInBytes, l.MemorySwapLimitInBytes)
	for _, h := range l.HugepageLimits {
		text += fmt.Sprintf(" %s=%d", h.PageSize, h.Limit)
	}
	for _, file := range slices.Sorted(maps.Keys(l.Unified)) {
		text += " " + file + "=" + l.Unified[file]
	}
	return text
}
