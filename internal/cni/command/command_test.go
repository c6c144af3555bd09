// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"kaji/internal/netfilter/nstest"
)

// TestMain lets the test's own program be the plug-in: under its name it is one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == Name {
		Main("test")
		return
	}
	os.Exit(m.Run())
}

// machine is a node whose runtime calls the plug-in through libcni.
type machine struct {
	*nstest.Namespace
	t     *testing.T
	cache string
	cni   *libcni.CNIConfig
	list  *libcni.NetworkConfigList
}

// newMachine is a node with a network of a version of the protocol; extra are
// further fields of the plug-in's configuration.
func newMachine(t *testing.T, version, cidrs, extra string) *machine {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, Name)); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"cniVersion":%q,"name":"pods","plugins":[{"type":"kaji-cni","podCIDRs":%s,"clusterCIDRs":["10.244.0.0/16"],
		"stateDir":%q,"capabilities":{"portMappings":true,"bandwidth":true}%s}]}`, version, cidrs, filepath.Join(dir, "state"), extra)
	list, err := libcni.ConfListFromBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(dir, "cache")
	m := &machine{Namespace: nstest.New(t), t: t, list: list, cache: cache, cni: libcni.NewCNIConfigWithCacheDir([]string{dir}, cache, nil)}
	world := nstest.New(t)
	m.Connect("uplink", "192.0.2.10/24", world, "node", "192.0.2.1/24")
	m.Route("default", "192.0.2.1")
	world.Serve("192.0.2.1:80", "world")
	return m
}

// attachment is a pod as libcni has it.
func attachment(id string, netns string, more map[string]any) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: "eth0", CapabilityArgs: more,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", id}}}
}

// add connects a pod.
func (m *machine) add(id string, more map[string]any) (*nstest.Namespace, *current.Result, *libcni.RuntimeConf) {
	m.t.Helper()
	pod := nstest.New(m.t)
	rt := attachment(id, pod.Path, more)
	var out *current.Result
	m.Do(func() error {
		got, err := m.cni.AddNetworkList(context.Background(), m.list, rt)
		if err != nil {
			return err
		}
		out, err = current.GetResult(got)
		return err
	})
	return pod, out, rt
}

func (m *machine) do(f func(context.Context) error) (err error) {
	m.Do(func() error { err = f(context.Background()); return nil })
	return err
}

// links counts the pods that are connected.
func (m *machine) links() int {
	n := 0
	m.Do(func() error {
		all, err := netlink.LinkList()
		for _, l := range all {
			if l.Type() == "veth" && strings.HasPrefix(l.Attrs().Name, "kaji") {
				n++
			}
		}
		return err
	})
	return n
}

func TestVersions(t *testing.T) {
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			m := newMachine(t, version, `["10.244.1.0/24","fd00:10:244:1::/64"]`, "")
			if err := m.do(func(ctx context.Context) error { return m.cni.GetStatusNetworkList(ctx, m.list) }); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			a, got, rt := m.add("a", map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}})
			b, _, _ := m.add("b", map[string]any{"bandwidth": map[string]any{"ingressRate": 8_000_000, "ingressBurst": 8_000_000}})
			if len(got.IPs) != 2 || got.IPs[0].Address.String() != "10.244.1.2/32" || got.IPs[1].Gateway.String() != "fd00:10:244:1::1" || *got.IPs[0].Interface != podEnd ||
				len(got.Interfaces) != 2 || got.Interfaces[podEnd].Sandbox != a.Path {
				t.Errorf("got %+v", got)
			}
			a.Serve(":80", "a")
			a.MustReach("tcp", "127.0.0.1:80", "a 127.0.0.1") // the plug-in brings the loopback up
			b.MustReach("tcp", "10.244.1.2:80", "a 10.244.1.3")
			b.MustReach("tcp", "[fd00:10:244:1::2]:80", "a fd00:10:244:1::3")
			b.MustReach("tcp", "192.0.2.1:80", "world 192.0.2.10")
			b.MustReach("tcp", "192.0.2.10:8080", "a 10.244.1.3")
			if err := m.do(func(ctx context.Context) error { return m.cni.CheckNetworkList(ctx, m.list, rt) }); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			a.Do(func() error {
				eth, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.AddrDel(eth, &netlink.Addr{IPNet: netlink.NewIPNet(netip.MustParseAddr("10.244.1.2").AsSlice())})
			})
			if err := m.do(func(ctx context.Context) error { return m.cni.CheckNetworkList(ctx, m.list, rt) }); err == nil || !strings.Contains(err.Error(), "has lost the address 10.244.1.2") {
				t.Errorf("CHECK of a pod that lost its address: %v", err)
			}
			for range 2 {
				if err := m.do(func(ctx context.Context) error { return m.cni.DelNetworkList(ctx, m.list, rt) }); err != nil {
					t.Errorf("DEL: %v", err)
				}
			}
			b.MustNotReach("tcp", "192.0.2.10:8080")
			if n := m.links(); n != 1 {
				t.Errorf("%d pods are connected, want 1", n)
			}
		})
	}
}

// Pods that start at once get an address each; one that is freed comes last.
func TestLeases(t *testing.T) {
	m := newMachine(t, "1.1.0", `["10.244.1.0/28"]`, "")
	var lock sync.Mutex
	seen, first := map[string]string{}, ""
	var all sync.WaitGroup
	for i := range 12 {
		pod := nstest.New(t)
		all.Go(func() {
			rt := attachment(fmt.Sprint("pod", i), pod.Path, nil)
			m.Do(func() error {
				got, err := m.cni.AddNetworkList(context.Background(), m.list, rt)
				if err != nil {
					return err
				}
				result, err := current.GetResult(got)
				lock.Lock()
				defer lock.Unlock()
				address := result.IPs[0].Address.String()
				if other := seen[address]; other != "" {
					t.Errorf("%s and %s have the address %s", other, rt.ContainerID, address)
				}
				if seen[address] = rt.ContainerID; address == "10.244.1.13/32" {
					first = rt.ContainerID
				}
				return err
			})
		})
	}
	all.Wait()
	del := func(id string) {
		if err := m.do(func(ctx context.Context) error { return m.cni.DelNetworkList(ctx, m.list, attachment(id, "", nil)) }); err != nil {
			t.Fatal(err)
		}
	}
	del(first) // had the highest address
	if _, got, _ := m.add("next", nil); got.IPs[0].Address.String() != "10.244.1.14/32" {
		t.Errorf("the next pod got %s, want one that nobody had", got.IPs[0].Address.String())
	}
	if _, got, _ := m.add("last", nil); got.IPs[0].Address.String() != "10.244.1.13/32" {
		t.Errorf("then came %s, want the one that is free", got.IPs[0].Address.String())
	}
	pod := nstest.New(t)
	err := m.do(func(ctx context.Context) error {
		_, err := m.cni.AddNetworkList(ctx, m.list, attachment("toomuch", pod.Path, nil))
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "all 13 addresses of pod CIDR 10.244.1.0/28 are in use") {
		t.Errorf("a pod too many: %v", err)
	}
}

// What the runtime forgot is disconnected, and its host port is free again.
func TestCollect(t *testing.T) {
	m := newMachine(t, "1.1.0", `["10.244.1.0/24"]`, "")
	ports := map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
	m.add("forgotten", ports)
	kept, _, _ := m.add("kept", nil)
	if err := os.RemoveAll(filepath.Join(m.cache, "results")); err != nil { // as after a crash
		t.Fatal(err)
	}
	live := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "kept", IfName: "eth0"}}}
	if err := m.do(func(ctx context.Context) error { return m.cni.GCNetworkList(ctx, m.list, live) }); err != nil {
		t.Fatal(err)
	}
	if n := m.links(); n != 1 {
		t.Errorf("%d pods are connected, want 1", n)
	}
	kept.MustReach("tcp", "192.0.2.1:80", "world 192.0.2.10")
	m.add("new", ports)
}

// A second interface of a pod is another attachment.
func TestSecondInterface(t *testing.T) {
	m := newMachine(t, "1.0.0", `["10.244.1.0/24"]`, "")
	pod, _, rt := m.add("a", nil)
	second := *rt
	second.IfName = "net1"
	// It has a default route already; of two pods' interfaces the last leads out.
	if err := m.do(func(ctx context.Context) error { _, err := m.cni.AddNetworkList(ctx, m.list, &second); return err }); err != nil {
		t.Fatal(err)
	}
	pod.Do(func() error { _, err := netlink.LinkByName("net1"); return err })
	if err := m.do(func(ctx context.Context) error { _, err := m.cni.AddNetworkList(ctx, m.list, rt); return err }); err == nil || !strings.Contains(err.Error(), "connected already") {
		t.Errorf("connecting it again: %v", err)
	}
	if err := m.do(func(ctx context.Context) error { return m.cni.DelNetworkList(ctx, m.list, &second) }); err != nil {
		t.Fatal(err)
	}
	if n := m.links(); n != 1 {
		t.Errorf("%d interfaces are left, want 1", n)
	}
}

// Wrong configurations are refused with what is wrong with them.
func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                            "cannot be read",
		`{}`:                           "podCIDRs: the ranges of this node's pods are needed",
		`{"podCIDRs":["10.0.0.0/33"]}`: "cannot be read",
		`{"podCIDRs":["10.0.0.0/24","10.1.0.0/24"]}`:                                               "want one range a family",
		`{"podCIDRs":["10.0.0.0/24"],"mtu":-1}`:                                                    "mtu -1",
		`{"podCIDRs":["10.0.0.0/24"],"stateDir":"x"}`:                                              `stateDir "x": want an absolute path`,
		`{"cniVersion":"1.0.0","podCIDRs":["10.0.0.0/24"],"prevResult":{"ips":[{"address":"x"}]}}`: "prevResult cannot be read",
	} {
		_, err := parse([]byte(text))
		if raw, _ := json.Marshal(err); err == nil || !strings.Contains(string(raw), strings.ReplaceAll(want, `"`, `\"`)) {
			t.Errorf("%s: %v (%s), want %s", text, err, raw, want)
		}
	}
}
