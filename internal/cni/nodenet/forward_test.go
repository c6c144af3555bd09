// SPDX-License-Identifier: Apache-2.0

package nodenet

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kaji/internal/netfilter"
)

// A chain that drops what is forwarded is named, one that only filters what comes
// in is not.
func TestBlocked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes a network namespace")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			if got, err := Blocked(); err != nil || len(got) > 0 {
				t.Errorf("an empty machine: %v %v", got, err)
			}
			conn, err := netfilter.Open(0)
			if err != nil {
				return err
			}
			defer conn.CloseLasting()
			drop := nftables.ChainPolicyDrop
			for name, hook := range map[string]*nftables.ChainHook{"FORWARD": nftables.ChainHookForward, "INPUT": nftables.ChainHookInput} {
				table := conn.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
				conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop})
			}
			if err := conn.Flush(); err != nil {
				return err
			}
			if got, err := Blocked(); err != nil || !slices.Equal(got, []string{"filter FORWARD"}) {
				t.Errorf("got %v %v", got, err)
			}
			// One whose policy is to accept, and whose last rule refuses all the same.
			firewall := conn.AddTable(&nftables.Table{Name: "firewalld", Family: nftables.TableFamilyINet})
			chain := conn.AddChain(&nftables.Chain{Name: "filter_FORWARD", Table: firewall, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
			conn.AddRule(&nftables.Rule{Table: firewall, Chain: chain, Exprs: netfilter.Join(netfilter.FromLink("eth0", false), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})})
			if err := conn.Flush(); err != nil {
				return err
			}
			if got, err := Blocked(); err != nil || !slices.Equal(got, []string{"filter FORWARD"}) {
				t.Errorf("beside one that drops what comes from somewhere: %v %v", got, err)
			}
			conn.AddRule(&nftables.Rule{Table: firewall, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}})
			if err := conn.Flush(); err != nil {
				return err
			}
			if got, err := Blocked(); err != nil || !slices.Equal(got, []string{"filter FORWARD", "firewalld filter_FORWARD"}) {
				t.Errorf("beside one that refuses: %v %v", got, err)
			}
			return legacy(t)
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// legacy asks the old iptables, where they are there.
func legacy(t *testing.T) error {
	for _, tool := range []string{"iptables-legacy", "ip6tables-legacy"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Logf("%s is not there", tool)
			continue
		}
		for policy, want := range map[string]bool{"ACCEPT": false, "DROP": true} {
			for _, args := range [][]string{{"-A", "FORWARD", "-i", "eth0", "-j", "DROP"}, {"-P", "FORWARD", policy}} {
				if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
					return fmt.Errorf("%s %v: %w: %s", tool, args, err, out)
				}
			}
			if got, err := Blocked(); err != nil || slices.Contains(got, tool+" FORWARD") != want {
				t.Errorf("%s with the policy %s: %v %v", tool, policy, got, err)
			}
		}
	}
	return nil
}
