// SPDX-License-Identifier: Apache-2.0

// Package pebble is the durable store engine: one data directory, written
// through Pebble. The API server opens it by default; kaji etcd serves it to
// others.
//
// The way of a write: Commit hands the transaction to the committer, one
// goroutine that checks guards against the index, gathers what arrived
// meanwhile into one batch, syncs it, then shows it: index, watches, callers.
// Nothing is visible before it is on disk.
//
// The way of a read: the index, an ordered tree in memory, knows every key's
// revisions (not the values); the values are read from Pebble by revision.
//
// Superseded revisions are history. They stay for Config.History, then leave
// in small steps. It never interprets a value.
package pebble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"kaji/internal/store"
	"kaji/internal/store/watchhub"
	"kaji/internal/vfs"
)

// Config says where the store lives and what it may use. Only Dir is required.
type Config struct {
	// Dir is the data directory; it is made if it does not exist.
	Dir string
	// FS holds Dir; nil means the operating system's files.
	FS vfs.FS
	// Logger receives what operators should know; nil means slog's default.
	Logger *slog.Logger
	// History is how long superseded revisions stay readable, counted anew
	// after a restart; zero means 5 minutes, negative until Compact is called.
	History time.Duration
	// HistoryBytes bounds the superseded values kept; beyond it history is
	// shorter than History. Zero means 1 GiB.
	HistoryBytes int64
	// ExpiringBytes bounds the values that have a time to live; beyond it
	// those next to expire go early, so that a storm of events cannot fill
	// the disk. Zero means 512 MiB.
	ExpiringBytes int64
	// RequestBytes bounds one transaction's keys and values; zero means 8 MiB.
	RequestBytes int
	// MinFreeBytes is the free disk space below which only deletions are
	// accepted; zero means 32 MiB, negative none.
	MinFreeBytes int64
	// VerifyBytes bounds the table files whose checksums are verified before
	// Open returns; the rest is verified in the background. Zero means 64 MiB.
	VerifyBytes int64
	// MemTableBytes and CacheBytes size Pebble's write buffer and block
	// cache; zero means 4 MiB and 4 MiB.
	MemTableBytes, CacheBytes int64
}

func (c *Config) defaults() {
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	orDefault(&c.History, 5*time.Minute)
	orDefault(&c.HistoryBytes, 1<<30)
	orDefault(&c.ExpiringBytes, 512<<20)
	orDefault(&c.RequestBytes, 8<<20)
	orDefault(&c.MinFreeBytes, 32<<20)
	orDefault(&c.VerifyBytes, 64<<20)
	orDefault(&c.MemTableBytes, 4<<20)
	orDefault(&c.CacheBytes, 4<<20)
}

func orDefault[T int | int64 | time.Duration](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

// Store implements store.Store. Besides the interface's promises, a full disk
// makes Commit fail until there is room again, while reads go on.
type Store struct {
	cfg Config
	fs  *vfs.Patient
	db  *pebble.DB
	hub *watchhub.Hub

	requests chan *request
	expiry   chan struct{} // signals a new nearest deadline
	// ctx ends the tasks below.
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	// readers holds Close back while reads use db; closed is read under it.
	readers sync.RWMutex
	closed  bool

	// failure is set once when the disk can no longer be trusted.
	failure atomic.Pointer[error]
	lowDisk atomic.Bool

	// mu guards the index. The committer alone adds revisions.
	mu struct {
		sync.RWMutex
		index    index
		revision int64
		// compacted is the oldest revision that can be read.
		compacted int64
		garbage   garbage
		deadlines deadlines
		expiring  int64 // bytes of the current values with a time to live
	}
}

var _ store.Store = (*Store)(nil)

// Open opens the store in cfg.Dir, making it if there is none. A store whose
// files are damaged is refused with an error that names the file (see
// CorruptError), and left as it is.
func Open(cfg Config) (*Store, error) {
	cfg.defaults()
	s := &Store{
		cfg:      cfg,
		fs:       vfs.NewPatient(cfg.FS, 200*time.Millisecond),
		requests: make(chan *request, 256),
		expiry:   make(chan struct{}, 1),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := vfs.Private(s.fs, cfg.Dir); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db, err := pebble.Open(cfg.Dir, s.options())
	if err != nil {
		return nil, openError(cfg.Dir, err)
	}
	s.db = db
	rest, err := s.verifyFirst()
	if err == nil {
		err = s.load()
	}
	if err != nil {
		return nil, errors.Join(openError(cfg.Dir, err), db.Close())
	}
	s.hub = watchhub.New(watchhub.Config{Revision: s.mu.revision, History: s.history})
	s.tasks.Go(s.commitLoop)
	s.tasks.Go(s.expireLoop)
	s.tasks.Go(s.maintainLoop)
	if len(rest) > 0 {
		s.tasks.Go(func() { s.verifyRest(rest) })
	}
	return s, nil
}

// options keeps Pebble small: the values are read seldom, because the API
// server caches what they decode to.
func (s *Store) options() *pebble.Options {
	o := &pebble.Options{
		FS:                          s.fs,
		CacheSize:                   s.cfg.CacheBytes,
		MemTableSize:                uint64(s.cfg.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		MaxOpenFiles:                256,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      pebbleLog{s},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				s.cfg.Logger.Error("The store failed in the background and tries again", "err", err.Error())
			},
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				s.fail(&CorruptError{File: info.Path, Err: info.Details})
			},
		},
	}
	o.CompactionConcurrencyRange = func() (int, int) { return 1, 1 }
	o.Experimental.SpanPolicyFunc = apart
	return o
}

// apart keeps records and values in tables of their own. New ones of either are
// behind all older ones, so that a table that is flushed moves down the levels as
// it is; one with both would overlap everything, and each would be merged into
// all that is there.
func apart(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	switch {
	case len(start) == 0 || start[0] < prefixRecord:
		end = []byte{prefixRecord}
	case start[0] < prefixValue:
		end = []byte{prefixValue}
	}
	return policy, end, nil
}

// pebbleLog passes Pebble's messages on. Pebble expects Fatalf not to return;
// here it marks the store as failed, and nothing is written any more.
type pebbleLog struct{ s *Store }

func (l pebbleLog) Infof(format string, args ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.s.cfg.Logger.Error("Pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLog) Fatalf(format string, args ...any) {
	l.s.fail(fmt.Errorf("store: "+format, args...))
}

// fail stops all writes for good; the first cause stays.
func (s *Store) fail(err error) {
	if s.failure.CompareAndSwap(nil, &err) {
		s.cfg.Logger.Error("The store accepts no more writes", "err", err.Error())
	}
}

// Err returns why the store accepts no writes at present, or nil: for
// readiness checks.
func (s *Store) Err() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	select {
	case <-s.fs.Stalled():
		return errFull
	default:
	}
	if s.lowDisk.Load() {
		return errLowDisk
	}
	return nil
}

// Close implements store.Store. Writes in flight are finished or refused; on a
// full disk they are given up.
func (s *Store) Close() error {
	s.cancel()
	s.fs.GiveUp()
	s.readers.Lock()
	closed := s.closed
	s.closed = true
	s.readers.Unlock()
	if closed {
		return nil
	}
	s.hub.Close()
	s.tasks.Wait()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("store: close: %w", err)
	}
	return nil
}

// use admits a reader to the database; the caller calls the result when done.
func (s *Store) use(ctx context.Context) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.readers.RLock()
	if s.closed {
		s.readers.RUnlock()
		return nil, store.ErrClosed
	}
	return s.readers.RUnlock, nil
}

// Progress implements store.Store.
func (s *Store) Progress(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.hub.Progress()
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, w store.Watch) (<-chan store.Batch, error) {
	done, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	s.mu.RLock()
	compacted := s.mu.compacted
	s.mu.RUnlock()
	if w.After < compacted {
		return nil, store.ErrCompacted
	}
	return s.hub.Watch(ctx, w)
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	done, err := s.use(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.revision, nil
}

// Size implements store.Store: the bytes of all files, including those about to
// be deleted.
func (s *Store) Size(ctx context.Context) (int64, error) {
	done, err := s.use(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	return int64(s.db.Metrics().DiskSpaceUsage()), nil
}
