// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"bytes"
	"encoding/json"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/diff"

	"kaji/internal/api/badvalue"
)

// Diff shows what changed between two pod specs, as clients of the reference
// implementation see it: its own form of the spec has the same fields in
// another order.
func Diff(old, spec *corev1.PodSpec) string { return diff.Diff(internalSpec{old}, internalSpec{spec}) }

type internalSpec struct{ spec *corev1.PodSpec }

func (s internalSpec) MarshalJSON() ([]byte, error) {
	v := reflect.ValueOf(s.spec).Elem()
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range []string{
		"Volumes", "InitContainers", "Containers", "EphemeralContainers", "RestartPolicy", "TerminationGracePeriodSeconds",
		"ActiveDeadlineSeconds", "DNSPolicy", "NodeSelector", "ServiceAccountName", "DeprecatedServiceAccount",
		"AutomountServiceAccountToken", "NodeName", "HostNetwork", "HostPID", "HostIPC", "ShareProcessNamespace", "SecurityContext",
		"ImagePullSecrets", "Hostname", "Subdomain", "Affinity", "SchedulerName", "Tolerations", "HostAliases", "PriorityClassName",
		"Priority", "DNSConfig", "ReadinessGates", "RuntimeClassName", "EnableServiceLinks", "PreemptionPolicy", "Overhead",
		"TopologySpreadConstraints", "SetHostnameAsFQDN", "OS", "HostUsers", "SchedulingGates", "ResourceClaims", "Resources",
		"HostnameOverride", "SchedulingGroup", "EvictionResponders",
	} {
		if i > 0 {
			b.WriteByte(',')
		}
		raw, err := json.Marshal(badvalue.Of(v.FieldByName(name).Interface()))
		if err != nil {
			return nil, err
		}
		b.WriteString(`"` + name + `":`)
		b.Write(raw)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
