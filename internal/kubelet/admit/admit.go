// SPDX-License-Identifier: Apache-2.0

// Package admit decides whether the node takes a pod that was bound to it, and
// whether it grants a pod other resources than it has. All functions are pure;
// reasons and messages are upstream's.
package admit

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"kaji/internal/kubelet/podspec"
)

// Rejection is why a pod is not taken.
type Rejection struct{ Reason, Message string }

// Node is what a decision rests on.
type Node struct {
	// Object is the Node; nil while it is not known.
	Object *corev1.Node
	// Allocatable is what pods may have.
	Allocatable corev1.ResourceList
	// Pods are those that the node has taken and that are not over.
	Pods []*corev1.Pod
	// Sysctls are patterns of unsafe sysctls that are allowed here.
	Sysctls []string
	// AppArmor says whether the host can enforce profiles.
	AppArmor bool
	// Pressure are the conditions of pressure that hold.
	Pressure map[corev1.NodeConditionType]bool
	// Stopping says that the node is shutting down.
	Stopping bool
	// Allocate gives a pod what is not merely counted, or says why not; Given is
	// the least that the node has to be thought to have for a pod with devices.
	// Both may be nil.
	Allocate func(*corev1.Pod) *Rejection
	Given    func(types.UID) corev1.ResourceList
	// Preempt ends pods to make room for a critical one, that has too little of a
	// resource, and returns when they are over; nil makes none.
	Preempt func(pods []*corev1.Pod, resource string)
}

// Pod decides on a pod; nil takes it.
func Pod(n Node, pod *corev1.Pod) *Rejection {
	for _, check := range []func(Node, *corev1.Pod) *Rejection{pressure, sysctls, allocate, system, fits, appArmor, stopping} {
		if r := check(n, pod); r != nil {
			return r
		}
	}
	return nil
}

func allocate(n Node, pod *corev1.Pod) *Rejection {
	if n.Allocate == nil {
		return nil
	}
	return n.Allocate(pod)
}

func stopping(n Node, _ *corev1.Pod) *Rejection {
	if n.Stopping {
		return &Rejection{"NodeShutdown", "Pod was rejected as the node is shutting down."}
	}
	return nil
}

func pressure(n Node, pod *corev1.Pod) *Rejection {
	var held []string
	for t, holds := range n.Pressure {
		if holds {
			held = append(held, string(t))
		}
	}
	if len(held) == 0 || podspec.Critical(pod) {
		return nil
	}
	slices.Sort(held)
	if len(held) == 1 && held[0] == string(corev1.NodeMemoryPressure) {
		if podspec.QOS(pod) != corev1.PodQOSBestEffort || tolerates(pod, corev1.TaintNodeMemoryPressure) {
			return nil
		}
	}
	return &Rejection{"Evicted", fmt.Sprintf("The node had condition: %v. ", held)}
}

func tolerates(pod *corev1.Pod, key string) bool {
	return slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
		return (t.Key == key || t.Key == "") && (t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule)
	})
}

// safe are the sysctls that one pod can set without touching another.
var safe = []string{"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}

func sysctls(n Node, pod *corev1.Pod) *Rejection {
	s := pod.Spec.SecurityContext
	if s == nil {
		return nil
	}
	for _, one := range s.Sysctls {
		name := strings.ReplaceAll(one.Name, "/", ".")
		forbid := func(why string) *Rejection {
			return &Rejection{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q %s", name, why)}
		}
		if !slices.Contains(safe, name) && !slices.ContainsFunc(n.Sysctls, func(p string) bool {
			prefix, star := strings.CutSuffix(p, "*")
			return p == name || star && strings.HasPrefix(name, prefix)
		}) {
			return forbid("not allowlisted")
		}
		if pod.Spec.HostNetwork && strings.HasPrefix(name, "net.") {
			return forbid("not allowed with host net enabled")
		}
		ipc := strings.HasPrefix(name, "fs.mqueue.") || strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem"
		if pod.Spec.HostIPC && ipc {
			return forbid("not allowed with host ipc enabled")
		}
	}
	return nil
}

func system(n Node, pod *corev1.Pod) *Rejection {
	// It is the pod's own label that upstream looks at; selectors are for fits.
	if want, ok := pod.Labels[corev1.LabelOSStable]; ok && want != runtime.GOOS {
		return &Rejection{"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if os := pod.Spec.OS; os != nil && string(os.Name) != runtime.GOOS {
		return &Rejection{"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"}
	}
	s := pod.Spec.SecurityContext
	if s == nil || s.SupplementalGroupsPolicy == nil || *s.SupplementalGroupsPolicy != corev1.SupplementalGroupsPolicyStrict || n.Object == nil {
		return nil
	}
	if f := n.Object.Status.Features; f == nil || f.SupplementalGroupsPolicy == nil || !*f.SupplementalGroupsPolicy {
		return &Rejection{"SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node"}
	}
	return nil
}

func appArmor(n Node, pod *corev1.Pod) *Rejection {
	if n.AppArmor {
		return nil
	}
	enforced := func(p *corev1.AppArmorProfile) bool {
		return p != nil && p.Type != corev1.AppArmorProfileTypeUnconfined
	}
	asks := pod.Spec.SecurityContext != nil && enforced(pod.Spec.SecurityContext.AppArmorProfile)
	for _, c := range podspec.Containers(pod) {
		asks = asks || c.SecurityContext != nil && enforced(c.SecurityContext.AppArmorProfile)
	}
	for key, value := range pod.Annotations {
		asks = asks || strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) && value != corev1.DeprecatedAppArmorBetaProfileNameUnconfined
	}
	if asks {
		return &Rejection{"AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"}
	}
	return nil
}

// fits asks what the scheduler asked, with the node as it is now.
func fits(n Node, pod *corev1.Pod) *Rejection {
	if n.Object == nil {
		return nil
	}
	predicate := func(name, why string) *Rejection {
		return &Rejection{name, fmt.Sprintf("Predicate %s failed: %s", name, why)}
	}
	lacking := enough(n, pod)
	if lacking != nil && !podspec.Critical(pod) {
		return lacking
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n.Object); err != nil || !ok {
		return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	if pod.Spec.NodeName != "" && pod.Spec.NodeName != n.Object.Name {
		return predicate("NodeName", "node(s) didn't match the requested node name")
	}
	if portsTaken(n.Pods, pod) {
		return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
	}
	if !podspec.Static(pod) {
		for i := range n.Object.Spec.Taints {
			taint := &n.Object.Spec.Taints[i]
			if taint.Effect == corev1.TaintEffectNoExecute && !schedulinghelper.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, taint, true) {
				return predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
			}
		}
	}
	if lacking != nil {
		return preempt(n, pod, lacking)
	}
	return nil
}

// enough compares requests with what is left.
func enough(n Node, pod *corev1.Pod) *Rejection {
	short := func(name corev1.ResourceName, requested, used, capacity int64) *Rejection {
		return &Rejection{"OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity)}
	}
	if most := n.Allocatable[corev1.ResourcePods]; !most.IsZero() && int64(len(n.Pods))+1 > most.Value() {
		return short(corev1.ResourcePods, 1, int64(len(n.Pods)), most.Value())
	}
	used := sum(n.Pods)
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	var given corev1.ResourceList
	if n.Given != nil {
		given = n.Given(pod.UID)
	}
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		request := requests[name]
		if request.IsZero() {
			continue
		}
		have, known := n.Allocatable[name]
		if least, ok := given[name]; ok && least.Cmp(have) > 0 {
			have, known = least, true
		}
		if !known && strings.Contains(string(name), "/") {
			continue // extended resources are checked by whoever has the devices
		}
		taken := used[name]
		requested, inUse, capacity := request.Value(), taken.Value(), have.Value()
		if name == corev1.ResourceCPU {
			requested, inUse, capacity = request.MilliValue(), taken.MilliValue(), have.MilliValue()
		}
		if requested > capacity-inUse {
			return short(name, requested, inUse, capacity)
		}
	}
	return nil
}

func sum(pods []*corev1.Pod) corev1.ResourceList {
	used := corev1.ResourceList{}
	for _, p := range pods {
		for name, q := range resource.PodRequests(p, resource.PodResourcesOptions{}) {
			total := used[name]
			total.Add(q)
			used[name] = total
		}
	}
	return used
}

type port struct {
	protocol corev1.Protocol
	number   int32
}

func portsTaken(pods []*corev1.Pod, pod *corev1.Pod) bool {
	taken := map[port][]string{}
	for _, p := range pods {
		for at, ips := range hostPorts(p) {
			taken[at] = append(taken[at], ips...)
		}
	}
	for at, ips := range hostPorts(pod) {
		for _, ip := range ips {
			for _, other := range taken[at] {
				if ip == other || wildcard(ip) || wildcard(other) {
					return true
				}
			}
		}
	}
	return false
}

func wildcard(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

func hostPorts(pod *corev1.Pod) map[port][]string {
	ports := map[port][]string{}
	add := func(list []corev1.Container, all bool) {
		for i := range list {
			if !all && !podspec.Sidecar(&list[i]) {
				continue
			}
			for _, p := range list[i].Ports {
				if p.HostPort == 0 {
					continue
				}
				protocol := p.Protocol
				if protocol == "" {
					protocol = corev1.ProtocolTCP
				}
				at := port{protocol, p.HostPort}
				ports[at] = append(ports[at], p.HostIP)
			}
		}
	}
	add(pod.Spec.Containers, true)
	add(pod.Spec.InitContainers, false)
	return ports
}
