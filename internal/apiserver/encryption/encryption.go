// SPDX-License-Identifier: Apache-2.0

// Package encryption encrypts stored values as an EncryptionConfiguration says:
// with keys of the file or of a KMS plug-in, byte for byte as upstream stores
// them, so that either can read what the other wrote. The wiring makes one
// Sealer for --encryption-provider-config; the object layer and the cache use it
// for every value, with the value's key in the store as authenticated data.
//
// Ciphers and formats are upstream's packages k8s.io/apiserver/pkg/storage/value;
// nothing of them runs without a configuration. Keys and plain values are never
// logged.
package encryption

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"

	"kaji/internal/api"
	"kaji/internal/apiserver/object"
)

// healthy bounds how long the plug-ins of a changed file may take.
const healthy = 30 * time.Second

// Sealer encrypts and decrypts by the configuration taken over last. It is safe
// for concurrent use.
type Sealer struct {
	// reload says that configurations may follow the first.
	reload   bool
	serverID string

	mu   sync.Mutex // held while a configuration is exchanged
	live atomic.Pointer[set]
}

var _ object.Sealer = (*Sealer)(nil)

// set is one configuration. Its plug-ins are watched until stop is called.
type set struct {
	serverID     string
	transformers map[schema.GroupResource]value.Transformer
	plugins      []*plugin
	timeouts     time.Duration // of all plug-ins together
	stop         context.CancelFunc
	closed       chan struct{}
	running      sync.WaitGroup
}

// New returns a sealer of a configuration file's contents. A plug-in that does
// not answer yet is no error: what it encrypts cannot be read or written until
// it does.
func New(ctx context.Context, data []byte, reload bool, serverID string) (*Sealer, error) {
	value.RegisterMetrics()
	s := &Sealer{reload: reload, serverID: serverID}
	first, err := s.open(ctx, data)
	if err != nil {
		return nil, err
	}
	s.live.Store(first)
	return s, nil
}

func (s *Sealer) open(ctx context.Context, data []byte) (*set, error) {
	config, err := load(data, s.reload)
	if err != nil {
		return nil, err
	}
	lifetime, stop := context.WithCancel(context.WithoutCancel(ctx))
	next := &set{serverID: s.serverID, stop: stop, closed: make(chan struct{})}
	if err := next.build(lifetime, config); err != nil {
		next.close()
		return nil, err
	}
	return next, nil
}

// Use takes another configuration over once all its plug-ins are healthy, or
// returns why it cannot and keeps the former one.
func (s *Sealer) Use(ctx context.Context, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.open(ctx, data)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, healthy)
	defer cancel()
	for _, p := range next.plugins {
		if err := p.wait(wait); err != nil {
			next.close()
			return err
		}
	}
	former := s.live.Swap(next)
	// Requests under way may still ask the former plug-ins.
	next.running.Go(func() {
		defer former.close()
		select {
		case <-time.After(2 * former.timeouts):
		case <-next.closed:
		}
	})
	return nil
}

// close ends a set; it is called once.
func (s *set) close() {
	s.stop()
	close(s.closed)
	s.running.Wait()
}

// Close stops watching the plug-ins.
func (s *Sealer) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live.Load().close()
}

// Seal implements object.Sealer.
func (s *Sealer) Seal(ctx context.Context, kind *api.Kind, key string, data []byte) ([]byte, error) {
	sealed, err := s.live.Load().of(kind.GroupResource()).TransformToStorage(ctx, data, value.DefaultContext(key))
	if err != nil {
		return nil, fmt.Errorf("unable to transform key %q: %w", key, err)
	}
	return sealed, nil
}

// Open implements object.Sealer. stale says that the value is to be written
// anew: another key is the first one now.
func (s *Sealer) Open(ctx context.Context, kind *api.Kind, key string, sealed []byte) (data []byte, stale bool, err error) {
	data, stale, err = s.live.Load().of(kind.GroupResource()).TransformFromStorage(ctx, sealed, value.DefaultContext(key))
	if err != nil {
		return nil, false, fmt.Errorf("unable to transform key %q: %w", key, err)
	}
	return data, stale, nil
}

// HasPlugins says whether there is anything for Check to look at, now or after
// a reload.
func (s *Sealer) HasPlugins() bool { return s.reload || len(s.live.Load().plugins) > 0 }

// Recheck is Check that asks anew.
func (s *Sealer) Recheck(ctx context.Context) error {
	for _, p := range s.live.Load().plugins {
		p.forget()
	}
	return s.Check(ctx)
}

// Check returns which plug-ins are not healthy.
func (s *Sealer) Check(ctx context.Context) error {
	var errs []error
	for i, p := range s.live.Load().plugins {
		if err := p.check(ctx); err != nil {
			errs = append(errs, fmt.Errorf("kms-provider-%d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}
