// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"kaji/internal/api/kindtest"
)

const container = "metadata: {name: p}\nspec: {containers: [{name: c, image: i"

// The resources of a pod as a whole are completed from its containers'.
func TestPodLevelResources(t *testing.T) {
	type list = map[corev1.ResourceName]string
	for _, test := range []struct {
		text             string
		limits, requests list
	}{
		{container + ", resources: {limits: {cpu: 1, memory: 1Gi}}}], resources: {limits: {cpu: 2}}}", list{"cpu": "2", "memory": "1Gi"}, list{"cpu": "1", "memory": "1Gi"}},
		{container + ", resources: {limits: {memory: 1Gi}}}, {name: d, image: i}], resources: {limits: {cpu: 2}}}", list{"cpu": "2"}, list{"cpu": "2", "memory": "1Gi"}},
		{container + ", resources: {limits: {cpu: 1, memory: 1Gi}}}], resources: {limits: {cpu: 2}, requests: {memory: 3Gi}}}", list{"cpu": "2", "memory": "3Gi"}, list{"cpu": "1", "memory": "3Gi"}},
		{container + ", resources: {requests: {cpu: 1}}}], resources: {requests: {memory: 2Gi}}}", list{}, list{"cpu": "1", "memory": "2Gi"}},
		{container + ", resources: {limits: {hugepages-2Mi: 2Mi, cpu: 1}}}, {name: d, image: i}], resources: {limits: {memory: 1Gi}}}", list{"memory": "1Gi", "hugepages-2Mi": "2Mi"}, list{"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "2Mi"}},
	} {
		obj, errs := kindtest.Create(t, pod(), test.text)
		kindtest.Expect(t, errs)
		r := obj.(*corev1.Pod).Spec.Resources
		for what, got := range map[string][2]any{"limits": {r.Limits, test.limits}, "requests": {r.Requests, test.requests}} {
			have, want := got[0].(corev1.ResourceList), got[1].(list)
			if len(have) != len(want) {
				t.Errorf("%s\n%s are %v, want %v", test.text, what, have, want)
			}
			for name, value := range want {
				if q := have[name]; q.Cmp(resource.MustParse(value)) != 0 {
					t.Errorf("%s\n%s of %s are %s, want %s", test.text, what, name, &q, value)
				}
			}
		}
	}
}

func TestPodClosedGates(t *testing.T) {
	obj, errs := kindtest.Create(t, pod(), container+", livenessProbe: {httpGet: {port: 80, protocol: X}}, readinessProbe: {grpc: {port: 1, mode: TLS}}, "+
		"lifecycle: {preStop: {httpGet: {port: 80, protocol: X}}}}], volumes: [{name: a, secret: {secretName: s, defaultUser: 5, items: [{key: k, path: p, user: 5}]}}, "+
		"{name: b, projected: {defaultUser: 5, sources: [{serviceAccountToken: {path: t, user: 5}}]}}], serviceAccountName: d}")
	kindtest.Expect(t, errs)
	spec := obj.(*corev1.Pod).Spec
	c := spec.Containers[0]
	if c.LivenessProbe.HTTPGet.Protocol != nil || c.ReadinessProbe.GRPC.Mode != nil || c.Lifecycle.PreStop.HTTPGet.Protocol != nil {
		t.Errorf("probes keep what is behind closed gates: %+v", c)
	}
	if s, p := spec.Volumes[0].Secret, spec.Volumes[1].Projected; s.DefaultUser != nil || s.Items[0].User != nil || p.DefaultUser != nil || p.Sources[0].ServiceAccountToken.User != nil {
		t.Errorf("volumes keep the owners of files: %+v", spec.Volumes)
	}
}

func TestPodErrors(t *testing.T) {
	for text, want := range map[string][]string{
		container + "}], initContainers: [{name: i, image: i, restartPolicyRules: [{action: x}]}]}": {
			"spec.initContainers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"},
		container + "}], volumes: [{name: v, projected: {sources: [{podCertificate: {signerName: a.b/c, keyType: ED25519, credentialBundlePath: c, userAnnotations: {a: b, UP.x/z: c}}}]}}]}": {
			`spec.volumes[0].projected.sources[0].podCertificate.userAnnotations: Invalid value: "a": must be a domain-prefixed key (such as "acme.io/foo")`},
	} {
		_, errs := kindtest.Create(t, pod(), text)
		kindtest.Expect(t, errs, want...)
	}
}

func TestEventChange(t *testing.T) {
	old := &corev1.Event{Related: &corev1.ObjectReference{Name: "a"}}
	now := &corev1.Event{Related: &corev1.ObjectReference{Name: "b"}}
	kindtest.Expect(t, kindtest.Messages(validateEventChange(now, old)),
		`related: Invalid value: {"Kind":"","Namespace":"","Name":"b","UID":"","APIVersion":"","ResourceVersion":"","FieldPath":""}: field is immutable`)
}

func TestQuotaScope(t *testing.T) {
	_, errs := kindtest.Create(t, kindtest.Find(t, Kinds(), "ResourceQuota"), "metadata: {name: q, namespace: n}\nspec: {scopes: [NotTerminating], hard: {hugepages-2Mi: 1, pods: 1}}")
	kindtest.Expect(t, errs, `spec.scopes: Invalid value: ["NotTerminating"]: unsupported scope applied to resource`)
}

func TestClaimDataSource(t *testing.T) {
	const text = "metadata: {name: c, namespace: n}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, dataSource: {kind: X, name: y, apiGroup: a.b}"
	k := kindtest.Find(t, Kinds(), "PersistentVolumeClaim")
	obj, errs := kindtest.Create(t, k, text+"}")
	kindtest.Expect(t, errs)
	if got := obj.(*corev1.PersistentVolumeClaim).Spec.DataSource; got != nil {
		t.Errorf("data source %v is kept", got)
	}
	_, errs = kindtest.Create(t, k, text+", dataSourceRef: {kind: X, name: z, apiGroup: a.b}}")
	kindtest.Expect(t, errs, "spec: Invalid value: {}: must match dataSourceRef")
}

func TestVolumes(t *testing.T) {
	obj, errs := kindtest.Create(t, kindtest.Find(t, Kinds(), "PersistentVolume"), "metadata: {name: v}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], nfs: {server: s, path: /p}, flexVolume: {driver: a}}")
	kindtest.Expect(t, errs)
	kindtest.Cells(t, kindtest.Find(t, Kinds(), "PersistentVolume"), obj)
}

func TestNodeClosedGates(t *testing.T) {
	obj, errs := kindtest.Create(t, kindtest.Find(t, Kinds(), "Node"), "metadata: {name: n}\nspec: {podPreemptionPolicy: {disableResizePreemption: [a]}}")
	kindtest.Expect(t, errs)
	if obj.(*corev1.Node).Spec.PodPreemptionPolicy != nil {
		t.Error("the node keeps a preemption policy")
	}
}

func TestStatusClosedGates(t *testing.T) {
	old, _ := kindtest.Create(t, pod(), container+"}]}")
	now, errs := kindtest.UpdateStatus(t, pod(), old, "metadata: {name: p}\nstatus: {nodeAllocatableResourceClaimStatuses: [{resourceClaimName: a}], "+
		"containerStatuses: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /a, volumeStatus: {image: {imageRef: x}}}]}]}")
	kindtest.Expect(t, errs)
	status := now.(*corev1.Pod).Status
	if status.NodeAllocatableResourceClaimStatuses != nil || status.ContainerStatuses[0].VolumeMounts[0].VolumeStatus != nil {
		t.Errorf("status keeps what is behind closed gates: %+v", status)
	}
}
