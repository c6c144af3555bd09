// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"strings"
	"testing"

	"kaji/test/machine"
)

// Two clusters run side by side on one machine, with the same ports and ranges:
// the second has a network of its own, chosen by itself. Their pods and Services
// do not meet; ending one leaves the other alone, and nothing of it stays.
func TestSideBySide(t *testing.T) {
	m := machine.New(t)
	other := m.Name + "-b"
	t.Cleanup(func() { _, _ = m.Run(t, "kaji", "down", "--purge", "--name="+other) }) // when the test has failed
	m.Must(t, "kaji", "up")
	before := traces(t, m)
	if out := m.Must(t, "kaji", "up", "--name="+other, "--nodes=2"); !strings.Contains(out, "kaji status --name "+other) {
		t.Errorf("up says\n%s", out)
	}
	if out, err := m.Run(t, "kaji", "server", "--name="+m.Name+"-c", "--secure-port=7443"); err == nil || !strings.Contains(out, "give this one its own with --network=own") {
		t.Errorf("a server in a network that is taken: %v\n%s", err, out)
	}
	names := map[string]bool{}
	for _, name := range []string{m.Name, other} {
		kubectl := func(args ...string) string {
			return m.Must(t, "kubectl", append([]string{"--context=" + name}, args...)...)
		}
		kubectl("create", "deployment", "web", "--image=localhost/kaji")
		kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080", "--type=NodePort", `--overrides={"spec":{"clusterIP":"10.96.5.5","ports":[{"port":80,"targetPort":8080,"nodePort":30500}]}}`)
		kubectl("rollout", "status", "deployment/web", "--timeout=60s")
		for _, address := range strings.Fields(kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.addresses[0].address}")) {
			out := m.Eventually(t, contains("web-"), "curl", "-sf", "-m", "5", address+":30500/hostname")
			if pods := kubectl("get", "pods", "-o", "name"); !strings.Contains(pods, strings.TrimSpace(out)) {
				t.Errorf("%s: %s answers at its node %s, which is none of\n%s", name, out, address, pods)
			}
			names[address] = true
		}
		m.Eventually(t, contains("web-"), "kubectl", "--context="+name, "exec", "deploy/web", "--", "wget", "-qO-", "http://web/hostname")
		if out := m.Must(t, "kaji", "status", "--name="+name); !strings.Contains(out, name) || !strings.Contains(out, "ready       yes") {
			t.Errorf("status of %s:\n%s", name, out)
		}
	}
	if len(names) != 3 {
		t.Errorf("three nodes have the addresses %v", names)
	}
	m.Must(t, "kaji", "down", "--name="+other)
	m.Must(t, "kubectl", "--context="+m.Name, "exec", "deploy/web", "--", "wget", "-qO-", "http://web/hostname")
	m.Must(t, "kaji", "up", "--name="+other)
	m.Eventually(t, contains("web-"), "kubectl", "--context="+other, "exec", "deploy/web", "--", "wget", "-qO-", "http://web/hostname")
	m.Must(t, "kaji", "down", "--purge", "--name="+other)
	for _, left := range difference(traces(t, m), before) {
		// What else is more is of the first cluster's pods.
		if strings.Contains(left, m.Name+"-") && !strings.Contains(left, ".kube") || strings.Contains(left, "100.126.") || strings.Contains(left, "link: kj") {
			t.Errorf("left over: %s", left)
		}
	}
	m.Must(t, "kubectl", "--context="+m.Name, "exec", "deploy/web", "--", "wget", "-qO-", "http://web/hostname")
}
