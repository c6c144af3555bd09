// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func node() *api.Kind {
	status, info := corev1.NodeStatus{}.SwaggerDoc(), corev1.NodeSystemInfo{}.SwaggerDoc()
	return &api.Kind{
		Name: "Node", Resource: "nodes", Singular: "node",
		ShortNames: []string{"no"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Node], NewList: api.NewList[corev1.NodeList],
			Default: api.Default(defaultNode),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/minions",
		New:     api.New[corev1.Node], NewList: api.NewList[corev1.NodeList],
		Rules: api.For[*corev1.Node]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, n *corev1.Node) {
				n.Spec.ConfigSource, n.Status.Config = nil, nil
				// What nodes say of preemption is alpha, behind a closed gate.
				n.Spec.PodPreemptionPolicy = nil
			},
			PrepareForUpdate: func(_ context.Context, n, old *corev1.Node) {
				n.Status = old.Status
				if old.Spec.ConfigSource == nil {
					n.Spec.ConfigSource = nil
				}
				if old.Spec.PodPreemptionPolicy == nil {
					n.Spec.PodPreemptionPolicy = nil
				}
			},
			Validate:       validateNode,
			ValidateUpdate: validateNodeUpdate,
			Warnings:       nodeWarnings,
			Fields: func(n *corev1.Node) fields.Set {
				return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Status", "The status of the node"),
				table.String("Roles", "The roles of the node"),
				table.Age(),
				table.String("Version", info["kubeletVersion"]),
				table.Wide(table.String("Internal-IP", status["addresses"])),
				table.Wide(table.String("External-IP", status["addresses"])),
				table.Wide(table.String("OS-Image", info["osImage"])),
				table.Wide(table.String("Kernel-Version", info["kernelVersion"])),
				table.Wide(table.String("Container-Runtime", info["containerRuntimeVersion"])),
			},
			Cells: nodeCells,
		}.Rules(),
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, n, old *corev1.Node) {
				n.Spec = old.Spec
				if old.Status.Config == nil {
					n.Status.Config = nil
				}
			}),
			ValidateUpdate: api.Update(validateNodeChange),
			Warnings:       api.Warn(nodeWarnings),
			ResetFields:    []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
		ResetFields:              []string{"status"},
	}
}

// defaultNode lets a node give away all it has, and keeps the older field of
// its first pod range in step with the list.
func defaultNode(n *corev1.Node) {
	if n.Status.Allocatable == nil && len(n.Status.Capacity) > 0 {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	rule.RoundUp(n.Status.Capacity)
	rule.RoundUp(n.Status.Allocatable)
	switch spec := &n.Spec; {
	case spec.PodCIDR != "" && (len(spec.PodCIDRs) == 0 || spec.PodCIDRs[0] != spec.PodCIDR):
		spec.PodCIDRs = []string{spec.PodCIDR}
	case len(spec.PodCIDRs) > 0:
		spec.PodCIDR = spec.PodCIDRs[0]
	}
}

func nodeWarnings(n, _ *corev1.Node) []string {
	var out []string
	if n.Spec.ConfigSource != nil {
		out = append(out, "spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	return out
}

func nodeCells(n *corev1.Node) []any {
	info := &n.Status.NodeInfo
	kernel := orUnknown(info.KernelVersion)
	if info.KernelVersion != "" && info.Architecture != "" {
		kernel += " (" + info.Architecture + ")"
	}
	return []any{n.Name, nodeState(n), orNone(strings.Join(nodeRoles(n), ",")), table.Since(n.CreationTimestamp), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		orUnknown(info.OSImage), kernel, orUnknown(info.ContainerRuntimeVersion)}
}

func orUnknown(s string) string {
	if s == "" {
		return "<unknown>"
	}
	return s
}

func nodeState(n *corev1.Node) string {
	state := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if state = "Not" + string(c.Type); c.Status == corev1.ConditionTrue {
			state = string(c.Type)
		}
	}
	if n.Spec.Unschedulable {
		state += ",SchedulingDisabled"
	}
	return state
}

func nodeRoles(n *corev1.Node) []string {
	var roles []string
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok && role != "" {
			roles = append(roles, role)
		} else if key == "kubernetes.io/role" && value != "" {
			roles = append(roles, value)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return "<none>"
}
