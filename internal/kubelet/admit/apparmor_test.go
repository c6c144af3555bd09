// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestAppArmor refuses pods that ask to be confined where the kernel cannot.
func TestAppArmor(t *testing.T) {
	profile := func(kind corev1.AppArmorProfileType) *corev1.AppArmorProfile {
		return &corev1.AppArmorProfile{Type: kind}
	}
	container := func(kind corev1.AppArmorProfileType) corev1.PodSpec {
		return corev1.PodSpec{InitContainers: []corev1.Container{{SecurityContext: &corev1.SecurityContext{AppArmorProfile: profile(kind)}}}}
	}
	annotated := func(value string) *corev1.Pod {
		pod := &corev1.Pod{}
		pod.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/c": value}
		return pod
	}
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		asks bool
	}{
		"nothing":              {&corev1.Pod{}, false},
		"unconfined":           {&corev1.Pod{Spec: container(corev1.AppArmorProfileTypeUnconfined)}, false},
		"localhost":            {&corev1.Pod{Spec: container(corev1.AppArmorProfileTypeLocalhost)}, true},
		"runtime's":            {&corev1.Pod{Spec: container(corev1.AppArmorProfileTypeRuntimeDefault)}, true},
		"the pod":              {&corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{AppArmorProfile: profile(corev1.AppArmorProfileTypeRuntimeDefault)}}}, true},
		"annotated":            {annotated("runtime/default"), true},
		"annotated unconfined": {annotated("unconfined"), false},
	} {
		r := Pod(Node{}, c.pod)
		if refused := r != nil; refused != c.asks {
			t.Errorf("%s: %v", name, r)
		} else if refused && (r.Reason != "AppArmor" || r.Message != "Cannot enforce AppArmor: AppArmor is not enabled on the host") {
			t.Errorf("%s: %+v", name, r)
		}
		if r := Pod(Node{AppArmor: true}, c.pod); r != nil {
			t.Errorf("%s, on a host with AppArmor: %+v", name, r)
		}
	}
}

func TestAppArmorOfHost(t *testing.T) {
	root := t.TempDir()
	parameter := filepath.Join(root, "sys/module/apparmor/parameters/enabled")
	for _, dir := range []string{filepath.Dir(parameter), filepath.Join(root, "sys/kernel/security/apparmor")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]bool{"Y\n": true, "N\n": false} {
		if err := os.WriteFile(parameter, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := AppArmor(root); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	if AppArmor(t.TempDir()) {
		t.Error("a host without")
	}
}
