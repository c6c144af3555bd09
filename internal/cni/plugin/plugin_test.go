// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kaji/internal/podnet"
)

// script is a plug-in that keeps what it was told and gives one address.
const script = `#!/bin/sh
cat > "%DIR%/$CNI_COMMAND"
env | grep ^CNI_ >> "%DIR%/$CNI_COMMAND"
[ -e "%DIR%/fail" ] && { echo '{"cniVersion":"1.0.0","code":11,"msg":"try later"}'; exit 1; }
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}' ;;
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"host0"},{"name":"eth0","sandbox":"/x"}],
  "ips":[{"address":"10.1.2.3/24","interface":1},{"address":"fd00::3/64","interface":1},{"address":"10.9.9.9/24","interface":0}]}' ;;
esac
`

const chain = `{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"recorder","capabilities":{"portMappings":true,"bandwidth":true}}]}`

// directories makes a plug-in and the configuration of a network.
func directories(t *testing.T) (Config, string) {
	t.Helper()
	dir := t.TempDir()
	c := Config{ConfDir: filepath.Join(dir, "conf"), BinDirs: []string{filepath.Join(dir, "bin")}, CacheDir: filepath.Join(dir, "cache")}
	for _, d := range []string{c.ConfDir, c.BinDirs[0]} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(c.BinDirs[0], "recorder"), []byte(strings.ReplaceAll(script, "%DIR%", dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// told returns what the plug-in heard with a command, and forgets it.
func told(t *testing.T, dir, command string) string {
	t.Helper()
	path := filepath.Join(dir, command)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%s was not called: %v", command, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestChain(t *testing.T) {
	c, dir := directories(t)
	n := New(c)
	if err := n.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "no network config found in "+c.ConfDir) {
		t.Errorf("without a configuration: %v", err)
	}
	write(t, c.ConfDir, "20-other.conflist", `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"absent"}]}`)
	write(t, c.ConfDir, "10-test.conflist", chain)
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod := podnet.Sandbox{ID: "abc", Namespace: "ns", Name: "web", UID: "u1", Netns: "/proc/self/ns/net", IngressBandwidth: 1e6,
		Ports: []podnet.PortMapping{{Protocol: "TCP", HostPort: 8080, ContainerPort: 80}}}
	got, err := n.Setup(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")}
	if !slices.Equal(got.IPs, want) || got.Interface != "eth0" {
		t.Errorf("connected as %v, want %v", got, want)
	}
	heard := told(t, dir, "ADD")
	for _, part := range []string{"CNI_CONTAINERID=abc", "CNI_IFNAME=eth0", "CNI_NETNS=/proc/self/ns/net", "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web",
		"K8S_POD_UID=u1", `"hostPort":8080`, `"protocol":"tcp"`, `"ingressRate":1000000`} {
		if !strings.Contains(heard, part) {
			t.Errorf("ADD lacks %s:\n%s", part, heard)
		}
	}
	if got, err := n.Check(t.Context(), pod); err != nil || !slices.Equal(got.IPs, want) {
		t.Errorf("Check: %v, %v", got, err)
	}
	told(t, dir, "CHECK")
	// Another network now comes first; the pod leaves by the one it came by.
	write(t, c.ConfDir, "00-new.conflist", `{"cniVersion":"1.0.0","name":"new","plugins":[{"type":"absent"}]}`)
	pod.Netns = filepath.Join(dir, "gone")
	if err := New(c).Teardown(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if heard := told(t, dir, "DEL"); strings.Contains(heard, "CNI_NETNS="+dir) || !strings.Contains(heard, `"prevResult"`) {
		t.Errorf("DEL heard\n%s", heard)
	}
}

// TestFailures tells what went wrong in the plug-in's words.
func TestFailures(t *testing.T) {
	c, dir := directories(t)
	write(t, c.ConfDir, "10-test.conflist", strings.ReplaceAll(chain, "1.0.0", "1.1.0"))
	write(t, dir, "fail", "")
	n, pod := New(c), podnet.Sandbox{ID: "abc", Netns: "/proc/self/ns/net"}
	if err := n.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "try later") {
		t.Errorf("Ready although the plug-in is not: %v", err)
	}
	if _, err := n.Setup(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "try later") {
		t.Errorf("Setup: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "fail")); err != nil {
		t.Fatal(err)
	}
	if err := n.Teardown(t.Context(), pod); err != nil {
		t.Errorf("Teardown after a failed Setup: %v", err)
	}
	told(t, dir, "DEL")
	write(t, c.ConfDir, "10-test.conflist", "no JSON")
	if err := n.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "cni config load failed") {
		t.Errorf("with a broken configuration: %v", err)
	}
	write(t, c.ConfDir, "20-good.conf", `{"cniVersion":"1.0.0","name":"single","type":"recorder"}`)
	if err := n.Ready(t.Context()); err != nil {
		t.Errorf("with a usable configuration after a broken one: %v", err)
	}
}
