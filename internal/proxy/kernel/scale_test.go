// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"net"
	"sync"
	"testing"
	"time"

	"kaji/internal/netfilter/nstest"
	"kaji/internal/proxy/plan"
)

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
