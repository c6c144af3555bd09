// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/source"
)

const manifest = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: web, image: "web:1"}]
`

// A static pod gets the node's name, defaults, and an identity that follows
// from its content.
func TestDecode(t *testing.T) {
	pod, err := source.Decode([]byte(manifest), "n1", "file", "/etc/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if pod.Name != "web-n1" || pod.Namespace != "default" || pod.Spec.NodeName != "n1" || !podspec.Static(pod) || pod.Annotations[podspec.HashAnnotation] != string(pod.UID) {
		t.Errorf("got %+v", pod.ObjectMeta)
	}
	if pod.Spec.RestartPolicy != corev1.RestartPolicyAlways || pod.Spec.Containers[0].ImagePullPolicy != corev1.PullIfNotPresent {
		t.Errorf("got no defaults: %+v", pod.Spec)
	}
	same, err := source.Decode([]byte(manifest), "n1", "file", "/etc/web.yaml")
	if err != nil || same.UID != pod.UID {
		t.Errorf("got %v, %v: equal content is the same pod", same, err)
	}
	if _, err := source.Decode([]byte("kind: Pod\nmetadata: {name: x}\nspec: {}\n"), "n1", "file", "x"); err == nil {
		t.Error("a pod without containers was taken")
	}
}

// Whatever a file holds, reading it does not panic.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(manifest))
	f.Fuzz(func(t *testing.T, data []byte) {
		pod, err := source.Decode(data, "n1", "file", "f")
		if (pod == nil) == (err == nil) {
			t.Errorf("got %v, %v", pod, err)
		}
	})
}
