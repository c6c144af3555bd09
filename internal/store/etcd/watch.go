// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"kaji/internal/store"
)

// Watch implements store.Store. The client's watcher resumes after a lost
// connection where it left off; what a slow reader has not taken waits in it.
func (s *Store) Watch(ctx context.Context, w store.Watch) (<-chan store.Batch, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	start, end := bounds(w.Start, w.End)
	// Without a leader an answer could be old for ever: end the watch then.
	inner, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	options := []clientv3.OpOption{end, clientv3.WithRev(w.After + 1)}
	if w.Prev {
		options = append(options, clientv3.WithPrevKV())
	}
	responses := s.client.Watch(inner, start, options...)
	out := make(chan store.Batch)
	go func() {
		defer close(out)
		defer cancel()
		for {
			b, open := s.next(ctx, responses, w.After)
			if !open {
				return
			}
			w.After = max(w.After, b.Revision)
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
			if b.Err != nil {
				return
			}
		}
	}()
	return out, nil
}

// next returns the next response as a batch; open is false when ctx has ended.
func (s *Store) next(ctx context.Context, responses clientv3.WatchChan, after int64) (b store.Batch, open bool) {
	for {
		var res clientv3.WatchResponse
		select {
		case res, open = <-responses:
		case <-s.ctx.Done():
			return store.Batch{Err: store.ErrClosed}, true
		case <-ctx.Done():
			return store.Batch{}, false
		}
		switch {
		case !open && ctx.Err() != nil:
			return store.Batch{}, false
		case !open:
			return store.Batch{Err: store.ErrClosed}, true
		case res.CompactRevision != 0:
			return store.Batch{Err: store.ErrCompacted}, true
		case res.Err() != nil:
			return store.Batch{Err: s.translate(res.Err())}, true
		case res.IsProgressNotify() && res.Header.Revision >= after:
			return store.Batch{Revision: res.Header.Revision}, true
		case len(res.Events) > 0:
			return s.batch(ctx, res.Events), true
		}
	}
}

func (s *Store) batch(ctx context.Context, events []*clientv3.Event) store.Batch {
	b := store.Batch{Events: make([]store.Event, len(events))}
	for i, e := range events {
		out := &b.Events[i]
		if out.Deleted = e.Type == clientv3.EventTypeDelete; out.Deleted {
			out.KV = store.KeyValue{Key: string(e.Kv.Key), ModRevision: e.Kv.ModRevision}
		} else {
			out.KV = s.keyValue(ctx, e.Kv)
		}
		if e.PrevKv != nil {
			out.Prev = s.keyValue(ctx, e.PrevKv)
		}
	}
	b.Revision = events[len(events)-1].Kv.ModRevision
	return b
}

// Progress implements store.Store: all watches share one stream, which answers
// once all of them have caught up.
func (s *Store) Progress(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	return s.translate(s.client.RequestProgress(clientv3.WithRequireLeader(ctx)))
}
