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

// Who cannot join is told why, and leaves nothing.
func TestJoinRefused(t *testing.T) {
	m := machine.New(t)
	m.Must(t, "kaji", "up")
	_, hash, _ := strings.Cut(m.Must(t, "kaji", "token", "create"), "--ca-cert-hash ")
	hash = strings.TrimSpace(hash)
	const server, forged = "--server=https://10.9.0.1:6443", "--token=abcdef.0123456789abcdef"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"wrong token", []string{server, forged, "--ca-cert-hash=" + hash}, "the server does not take the token: it is wrong or has expired; `kaji token create` on the server makes another"},
		{"no token", []string{server, "--token=word", "--ca-cert-hash=" + hash}, "the server does not take the token"},
		{"another cluster", []string{server, forged, "--ca-cert-hash=sha256:" + strings.Repeat("0", 64)}, "does not have the expected hash: this is another cluster, or somebody is in between"},
		{"nobody there", []string{"--server=https://10.9.0.1:7", forged, "--ca-cert-hash=" + hash}, "the server cannot be reached (dial tcp 10.9.0.1:7: connect: connection refused): see that it runs"},
		{"no address", []string{"--server=10.9.0.1", forged, "--ca-cert-hash=" + hash}, `--server: "10.9.0.1" is no address of a server, such as https://`},
		{"nothing", nil, "to join a cluster, give --server, --token and --ca-cert-hash"},
	} {
		dir := filepath.Join(t.TempDir(), "node")
		out, err := m.Run(t, "kaji", append([]string{"agent", "--name=late", "--data-dir=" + dir}, c.args...)...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v, want %q in\n%s", c.name, err, c.want, out)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: %s is left over", c.name, dir)
		}
	}
}
