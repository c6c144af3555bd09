// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"kaji/internal/netfilter"
	"kaji/internal/netfilter/nstest"
	"kaji/internal/proxy/plan"
)

// A packet keeps to the rules that it has begun with, while its maps change: what
// it may meet in that moment is made to last here.
func TestAPacketUnderWay(t *testing.T) {
	l := newLab(t)
	service := tcp("10.96.0.1", 80)
	three := targets{service: {Backends: backends(80, 0, 1, 2)}}
	k := l.kernel

	if err := k.prepare(three); err != nil {
		t.Fatal(err)
	}
	rules, err := k.conn.GetRules(k.table, &nftables.Chain{Table: k.table, Name: "cluster-3"})
	if err != nil || len(rules) == 0 {
		t.Errorf("nothing is in a chain that a map is about to lead to: %v", err)
	}
	l.apply(three)

	// Old rules, new maps: of three backends the first is left.
	var gone []nftables.SetElement
	for i := range 2 {
		gone = append(gone, nftables.SetElement{Key: append(frontendKey(service), binaryutil.NativeEndian.PutUint32(uint32(i+1))...)})
	}
	if err := errors.Join(netfilter.DeleteElements(k.conn, k.sets.backends, gone), k.conn.Flush()); err != nil {
		t.Fatal(err)
	}
	l.expect(l.pods[2], "tcp", "10.96.0.1:80", "pod0<-10.244.2.2")
	first := nftables.SetElement{Key: append(frontendKey(service), binaryutil.NativeEndian.PutUint32(0)...)}
	if err := errors.Join(netfilter.DeleteElements(k.conn, k.sets.backends, []nftables.SetElement{first}), k.conn.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.pods[2].Ask("tcp", "10.96.0.1:80"); err == nil || strings.Contains(err.Error(), "refused") {
		t.Errorf("without a backend: %v, want silence", err)
	}

	// A pod that leaves may have a packet to itself under way.
	l.reset(three)
	l.apply(targets{service: {Backends: backends(80, 0)}})
	if n := l.hairpins(); n != 3 {
		t.Errorf("%d pods are known to speak to themselves right after two left, want 3", n)
	}
	l.apply(targets{service: {Backends: backends(81, 0)}})
	if n := l.hairpins(); n != 1 {
		t.Errorf("%d pods are known to speak to themselves after the next change, want 1", n)
	}
}

func (l *lab) hairpins() int {
	l.Helper()
	elements, err := l.kernel.conn.GetSetElements(l.kernel.sets.hairpin)
	if err != nil {
		l.Fatal(err)
	}
	return len(elements)
}

// While the number of endpoints changes as fast as can be, every connection is
// answered: a packet may meet the new table after it has drawn from the old one.
func TestNoConnectionIsLostWhileEndpointsComeAndGo(t *testing.T) {
	l := newLab(t)
	const address = "10.96.0.1:80"
	service := tcp("10.96.0.1", 80)
	sizes := [][]plan.Backend{backends(80, 0, 1, 2), backends(80, 0)}
	l.reset(targets{service: {Backends: sizes[0]}})

	var asking sync.WaitGroup
	failed := make(chan error, 4)
	for i := range cap(failed) {
		asking.Go(func() {
			for range 1000 {
				if err := dial(l.pods[i%len(l.pods)], address); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { asking.Wait(); close(done) }()
	changes := 0
	for running := true; running; changes++ {
		select {
		case <-done:
			running = false
		default:
			l.apply(targets{service: {Backends: sizes[changes%2]}})
		}
	}
	close(failed)
	for err := range failed {
		t.Errorf("after %d changes: %v", changes, err)
	}
}

// dial connects with the patience of a busy machine: what is lost never comes.
func dial(from *nstest.Namespace, address string) (err error) {
	from.Do(func() error {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", address, 30*time.Second); err == nil {
			err = conn.Close()
		}
		return nil
	})
	return err
}
