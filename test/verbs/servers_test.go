// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kaji/test/machine"
)

// Two servers share a store: one leads, either serves. A server without the
// cluster's keys is refused. kill -9 of the leader makes the other one lead, and
// what is asked for then is done; the first one comes back.
func TestServersShareStore(t *testing.T) {
	m := machine.New(t)
	other := m.Name + "-b"
	store := m.Command(t.Context(), "kaji", "etcd", "--data-dir="+t.TempDir(), "--listen-client-urls=http://10.9.0.1:2379")
	if err := m.Start(store); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = m.Run(t, "kaji", "down", "--purge", "--name="+other) // it may have gone
		_ = store.Process.Signal(syscall.SIGTERM)
		_ = store.Wait() // its end is all that counts
	})
	m.Eventually(t, func(string) bool { return true }, "curl", "-sf", "-m", "5", "10.9.0.1:2379/version")
	const etcd = "--etcd-servers=http://10.9.0.1:2379"
	m.Must(t, "kaji", "up", etcd, "--node-name=first")
	up := []string{"up", etcd, "--name=" + other, "--node-name=second"}
	if out, err := m.Run(t, "kaji", up...); err == nil || !strings.Contains(out, "has another certificate authority") {
		t.Errorf("a server without the cluster's keys: %v\n%s", err, out)
	}
	keys := filepath.Join("/var/lib/kaji", other)
	if _, err := os.Stat(keys); err == nil {
		t.Errorf("%s is left over", keys)
	}
	if err := os.CopyFS(filepath.Join(keys, "pki"), os.DirFS(filepath.Join(m.DataDir(), "pki"))); err != nil {
		t.Fatal(err)
	}
	m.Must(t, "kaji", up...)
	second := func(args ...string) []string { return append([]string{"--context=" + other}, args...) }
	m.Eventually(t, contains("condition met"), "kubectl", second("wait", "--for=condition=Ready", "node/first", "node/second", "--timeout=60s")...)
	for _, lease := range []string{"kube-scheduler", "kube-controller-manager"} {
		if out := m.Must(t, "kubectl", second("get", "lease", "-n", "kube-system", lease, "-o", "jsonpath={.spec.holderIdentity}")...); !strings.HasPrefix(out, "first_") {
			t.Errorf("%s is held by %s", lease, out)
		}
	}
	servers := second("get", "endpointslice", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[*]}")
	m.Eventually(t, func(out string) bool { return len(strings.Fields(out)) == 2 }, "kubectl", servers...)

	if err := syscall.Kill(processOf(t, m), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, lease := range []string{"kube-scheduler", "kube-controller-manager"} {
		m.Eventually(t, func(out string) bool { return strings.HasPrefix(out, "second_") },
			"kubectl", second("get", "lease", "-n", "kube-system", lease, "-o", "jsonpath={.spec.holderIdentity}")...)
	}
	m.Must(t, "kubectl", second("cordon", "first")...)
	m.Must(t, "kubectl", second("create", "deployment", "web", "--image=localhost/kaji")...)
	m.Eventually(t, contains("condition met"), "kubectl", second("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")...)
	m.Eventually(t, func(out string) bool { return len(strings.Fields(out)) == 1 }, "kubectl", servers...)

	m.Must(t, "kaji", "up")
	m.Eventually(t, contains("condition met"), "kubectl", "--context="+m.Name, "wait", "--for=condition=Ready", "node/first", "--timeout=60s")
	if out := m.Must(t, "kubectl", "--context="+m.Name, "get", "deployment", "web"); !strings.Contains(out, "1/1") {
		t.Errorf("the first server shows\n%s", out)
	}
}
