// SPDX-License-Identifier: Apache-2.0

package etcdserver

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"kaji/internal/store"
)

// maxWatches bounds the watches of one stream.
const maxWatches = 100_000

// Watch implements the Watch service: many watches over one stream.
func (s *Server) Watch(stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	w := &watchStream{s: s, ctx: ctx, stream: stream, watches: map[int64]*watch{}}
	defer func() {
		cancel()
		w.mu.Lock() // whoever is creating a watch is done, or will see that ctx has ended
		w.mu.Unlock()
		w.wg.Wait()
	}()
	w.wg.Go(w.tick)
	received := make(chan error, 1)
	go func() { received <- w.receive() }()
	select {
	case err := <-received:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return rpcError(err)
	case <-s.stopped:
		return rpctypes.ErrGRPCStopped
	}
}

// watchStream is one client's stream.
type watchStream struct {
	s      *Server
	ctx    context.Context
	stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]
	wg     sync.WaitGroup

	// mu guards sending as well: what is sent first was decided first.
	mu      sync.Mutex
	watches map[int64]*watch
	nextID  int64
	// asked is set while the client waits for a notice about all watches.
	asked bool
}

type watch struct {
	id       int64
	cancel   context.CancelFunc
	prev     bool
	progress bool
	noPut    bool
	noDelete bool
	// noticed is the revision of the newest notice since the client asked, or zero.
	noticed int64
	// due is set when the watch owes a periodic notice.
	due bool
	// busy is set when something was delivered since the last interval.
	busy bool
}

func (w *watchStream) receive() error {
	for {
		r, err := w.stream.Recv()
		if err != nil {
			return err
		}
		switch r := r.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			err = w.create(r.CreateRequest)
		case *pb.WatchRequest_CancelRequest:
			err = w.end(r.CancelRequest.WatchId)
		case *pb.WatchRequest_ProgressRequest:
			err = w.ask()
		}
		if err != nil {
			return err
		}
	}
}

// refuse answers a request for a watch that cannot be had.
func (w *watchStream) refuse(id int64, why string) error {
	revision, err := w.s.store.Revision(w.ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stream.Send(&pb.WatchResponse{
		Header: header(revision), WatchId: id, Created: true, Canceled: true, CancelReason: why,
	})
}

func (w *watchStream) create(r *pb.WatchCreateRequest) error {
	from, to := bounds(r.Key, r.RangeEnd)
	if len(r.Key) == 0 && len(r.RangeEnd) == 0 {
		to = "\x00" // etcd takes it for the lowest key
	}
	id, ok := w.assign(r.WatchId)
	if !ok {
		return w.refuse(-1, "etcdserver: duplicate watch id provided")
	}
	revision, err := w.s.store.Revision(w.ctx)
	if err != nil {
		return err
	}
	after := revision
	if r.StartRevision > 0 {
		after = r.StartRevision - 1
	}
	ctx, cancel := context.WithCancel(w.ctx)
	n := &watch{
		id: id, cancel: cancel, prev: r.PrevKv, progress: r.ProgressNotify,
		noPut:    slices.Contains(r.Filters, pb.WatchCreateRequest_NOPUT),
		noDelete: slices.Contains(r.Filters, pb.WatchCreateRequest_NODELETE),
	}
	batches, err := w.s.store.Watch(ctx, store.Watch{Start: from, End: to, After: after, Prev: n.prev})
	if err != nil && !errors.Is(err, store.ErrCompacted) {
		cancel()
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		cancel()
		return err
	}
	if err := w.stream.Send(&pb.WatchResponse{Header: header(revision), WatchId: id, Created: true}); err != nil {
		cancel()
		return err
	}
	if batches == nil {
		cancel()
		return w.stream.Send(w.compacted(id, revision))
	}
	w.watches[id] = n
	w.wg.Go(func() { w.deliver(n, batches) })
	return nil
}

// assign returns the number of a new watch: the client's choice, or the next.
func (w *watchStream) assign(id int64) (int64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.watches) >= maxWatches {
		return 0, false
	}
	if id != 0 {
		return id, w.watches[id] == nil && id > 0
	}
	for w.watches[w.nextID] != nil {
		w.nextID++
	}
	id = w.nextID
	w.nextID++
	return id, true
}

// compacted tells a client that its watch begins too early, and where it could.
func (w *watchStream) compacted(id, revision int64) *pb.WatchResponse {
	at := revision
	if s, ok := w.s.store.(interface{ Compacted() int64 }); ok {
		at = s.Compacted()
	}
	return &pb.WatchResponse{
		Header: header(revision), WatchId: id, Canceled: true, CompactRevision: at,
		CancelReason: store.ErrCompacted.Error(),
	}
}

// end cancels a watch at the client's wish.
func (w *watchStream) end(id int64) error {
	revision, err := w.s.store.Revision(w.ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.watches[id]
	if n == nil {
		return nil
	}
	n.cancel()
	delete(w.watches, id)
	if err := w.stream.Send(&pb.WatchResponse{Header: header(revision), WatchId: id, Canceled: true}); err != nil {
		return err
	}
	return w.answer()
}

// deliver is the goroutine of one watch.
func (w *watchStream) deliver(n *watch, batches <-chan store.Batch) {
	defer n.cancel()
	for b := range batches {
		if err := w.send(n, b); err != nil || b.Err != nil {
			return
		}
	}
}

func (w *watchStream) send(n *watch, b store.Batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watches[n.id] != n {
		return nil // cancelled meanwhile
	}
	switch {
	case b.Err != nil:
		delete(w.watches, n.id)
		return w.stream.Send(w.lost(n.id, b.Err))
	case len(b.Events) == 0:
		n.noticed = b.Revision
		if n.due {
			n.due = false
			if err := w.stream.Send(&pb.WatchResponse{Header: header(b.Revision), WatchId: n.id}); err != nil {
				return err
			}
		}
		return w.answer()
	}
	n.busy = true
	res := &pb.WatchResponse{Header: header(b.Revision), WatchId: n.id, Events: w.events(n, b.Events)}
	if len(res.Events) == 0 {
		return nil
	}
	return w.stream.Send(res)
}

func (w *watchStream) lost(id int64, err error) *pb.WatchResponse {
	if errors.Is(err, store.ErrCompacted) {
		return w.compacted(id, 0)
	}
	return &pb.WatchResponse{Header: header(0), WatchId: id, Canceled: true, CancelReason: err.Error()}
}

func (w *watchStream) events(n *watch, in []store.Event) []*mvccpb.Event {
	out := make([]*mvccpb.Event, 0, len(in))
	for i := range in {
		e := &in[i]
		if e.Deleted && n.noDelete || !e.Deleted && n.noPut {
			continue
		}
		next := &mvccpb.Event{Kv: w.s.keyValue(&e.KV)}
		if e.Deleted {
			next.Type, next.Kv.Lease = mvccpb.Event_DELETE, 0
		}
		if n.prev && e.Prev.ModRevision != 0 {
			next.PrevKv = w.s.keyValue(&e.Prev)
		}
		out = append(out, next)
	}
	return out
}

// ask answers a client's progress request: with the revision up to which all
// watches of the stream have been told everything.
func (w *watchStream) ask() error {
	w.mu.Lock()
	w.asked = true
	for _, n := range w.watches {
		n.noticed = 0
	}
	none := len(w.watches) == 0
	w.mu.Unlock()
	if !none {
		return w.s.store.Progress(w.ctx)
	}
	revision, err := w.s.store.Revision(w.ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = false
	return w.stream.Send(&pb.WatchResponse{Header: header(revision), WatchId: -1})
}

// answer sends the notice the client waits for once every watch has its own.
func (w *watchStream) answer() error {
	if !w.asked || len(w.watches) == 0 {
		return nil
	}
	revision := int64(0)
	for _, n := range w.watches {
		if n.noticed == 0 {
			return nil
		}
		if revision == 0 || n.noticed < revision {
			revision = n.noticed
		}
	}
	w.asked = false
	return w.stream.Send(&pb.WatchResponse{Header: header(revision), WatchId: -1})
}

// tick lets the quiet watches that want notices have one each interval.
func (w *watchStream) tick() {
	ticker := time.NewTicker(w.s.cfg.ProgressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-w.ctx.Done():
			return
		}
		if w.owe() && w.s.store.Progress(w.ctx) != nil {
			return
		}
	}
}

func (w *watchStream) owe() (any bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.watches {
		n.due = n.progress && !n.busy
		n.busy = false
		any = any || n.due
	}
	return any
}
