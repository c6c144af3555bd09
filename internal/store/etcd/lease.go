// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// leases lends etcd's leases to keys with a time to live. A lease is shared by
// the keys put within a twentieth of its time, a minute at most, because each
// costs the cluster a write of its own; keys then live that much longer.
type leases struct {
	client *clientv3.Client

	mu struct {
		sync.Mutex
		byTTL map[int64]lent
		// granted remembers how long a lease was asked for; -1 is unknown.
		granted map[clientv3.LeaseID]int64
	}
}

// lent is a lease that further keys may share for a while.
type lent struct {
	id    clientv3.LeaseID
	until time.Time
	keys  int
}

// Bounds of what is shared and remembered.
const (
	leaseKeys      = 1000
	leasesRemember = 8192
)

func newLeases(client *clientv3.Client) *leases {
	l := &leases{client: client}
	l.forget()
	l.mu.granted = map[clientv3.LeaseID]int64{}
	return l
}

// forget makes the next key ask for a new lease.
func (l *leases) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.byTTL = map[int64]lent{}
}

// grant returns a lease that runs at least ttl seconds from now; none for zero.
func (l *leases) grant(ctx context.Context, ttl int64) (clientv3.LeaseID, error) {
	if ttl == 0 {
		return clientv3.NoLease, nil
	}
	now := time.Now()
	l.mu.Lock()
	if known, ok := l.mu.byTTL[ttl]; ok && now.Before(known.until) && known.keys < leaseKeys {
		known.keys++
		l.mu.byTTL[ttl] = known
		l.mu.Unlock()
		return known.id, nil
	}
	l.mu.Unlock()
	share := min(ttl/20, 60)
	res, err := l.client.Grant(ctx, ttl+share)
	if err != nil {
		return clientv3.NoLease, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remember(res.ID, ttl)
	if share > 0 {
		l.mu.byTTL[ttl] = lent{id: res.ID, until: now.Add(time.Duration(share) * time.Second), keys: 1}
	}
	return res.ID, nil
}

func (l *leases) remember(id clientv3.LeaseID, ttl int64) {
	if len(l.mu.granted) >= leasesRemember {
		clear(l.mu.granted)
	}
	l.mu.granted[id] = ttl
}

// ttl returns what a lease was granted for; the cluster is asked about leases of
// other clients, once each.
func (l *leases) ttl(ctx context.Context, id clientv3.LeaseID) int64 {
	if id == clientv3.NoLease {
		return 0
	}
	l.mu.Lock()
	ttl, ok := l.mu.granted[id]
	l.mu.Unlock()
	if ok {
		return ttl
	}
	res, err := l.client.TimeToLive(ctx, id)
	if err != nil {
		return 0 // it has run out, and the key with it
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remember(id, res.GrantedTTL)
	return res.GrantedTTL
}
