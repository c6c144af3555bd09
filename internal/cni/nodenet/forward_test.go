// SPDX-License-Identifier: Apache-2.0

package nodenet

import (
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/google/nftables"
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
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
