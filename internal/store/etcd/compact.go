// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// compactKey is where upstream's API servers agree on who compacts: its version
// counts the rounds, its value is the revision of the last one.
const compactKey = "compact_rev_key"

// compactLoop compacts history that is older than the interval. All API servers
// of a cluster try each round, and one wins it.
func (s *Store) compactLoop(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var r round
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		next, err := r.run(s.ctx, s.client)
		if err != nil && s.ctx.Err() == nil {
			s.log.Warn("Compacting etcd failed and is tried again", "err", err.Error())
		}
		if err == nil {
			s.compacted.Store(r.revision)
		}
		r = next
	}
}

// round is what a participant knows of the last round: its number, and the
// revision the cluster had then.
type round struct {
	number   int64
	revision int64
}

// run takes part in the next round, and compacts when it wins.
func (r round) run(ctx context.Context, client *clientv3.Client) (round, error) {
	res, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.Version(compactKey), "=", r.number)).
		Then(clientv3.OpPut(compactKey, strconv.FormatInt(r.revision, 10))).
		Else(clientv3.OpGet(compactKey)).
		Commit()
	if err != nil {
		return r, err
	}
	next := round{number: r.number + 1, revision: res.Header.Revision}
	if !res.Succeeded {
		next.number = 0
		if kvs := res.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			next.number = kvs[0].Version
		}
		return next, nil
	}
	if r.revision == 0 {
		return next, nil // just begun: it does not know how old anything is
	}
	_, err = client.Compact(ctx, r.revision)
	return next, err
}
