// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"kaji/internal/cni/veth"
)

// ledger is the network while this process alone may change it.
type ledger struct {
	network *veth.Network
	dir     string
	lock    *os.File
}

// open waits for its turn and brings the network up.
func open(c *config, release string) (_ *ledger, err error) {
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(c.StateDir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := lockFile(lock); err != nil {
		return nil, fmt.Errorf("waiting for another call: %w", err)
	}
	l := &ledger{dir: c.StateDir, lock: lock}
	l.network = veth.New(veth.Config{ClusterCIDRs: c.ClusterCIDRs, MTU: c.MTU, After: l.after()})
	mark := c.mark(release)
	if written, err := os.ReadFile(l.rules()); err == nil && string(written) == mark {
		return l, l.network.Resume(c.PodCIDRs)
	}
	if err := l.network.SetPodCIDRs(context.Background(), c.PodCIDRs); err != nil {
		return nil, err
	}
	return l, os.WriteFile(l.rules(), []byte(mark), 0o600)
}

func lockFile(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// close lets the next process have its turn.
func (l *ledger) close() { l.lock.Close() }

// rules is the file that says which rules are written.
func (l *ledger) rules() string { return filepath.Join(l.dir, "rules") }

// mark tells rules apart.
func (c *config) mark(release string) string {
	sum := sha256.Sum256(fmt.Append(nil, release, c.PodCIDRs, c.ClusterCIDRs))
	return hex.EncodeToString(sum[:])
}

func (l *ledger) last() string { return filepath.Join(l.dir, "last") }

// after reads which addresses were given last. Without them, the worst is that
// one comes again soon.
func (l *ledger) after() []netip.Addr {
	var out []netip.Addr
	if data, err := os.ReadFile(l.last()); err == nil {
		_ = json.Unmarshal(data, &out)
	}
	return out
}

func (l *ledger) remember(given []netip.Addr) error {
	data, err := json.Marshal(given)
	if err != nil {
		return err
	}
	return os.WriteFile(l.last(), data, 0o600)
}
