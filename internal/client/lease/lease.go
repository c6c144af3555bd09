// SPDX-License-Identifier: Apache-2.0

// Package lease elects the leader of several instances of a component by a
// Lease, as upstream's components do, so that theirs and ours can stand in for
// one another. Components that must work alone run their work through Lead.
package lease

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"kaji/internal/client"
)

// ErrLost ends Lead: another instance leads now.
var ErrLost = errors.New("leaderelection lost")

// Config says which lease, and how patient its holders are.
type Config struct {
	Client          client.Interface
	Namespace, Name string
	// Hostname names this instance; something unique is added.
	Hostname                                  string
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	// Event, if set, is told when this instance becomes leader or stops being it.
	Event func(about *coordinationv1.Lease, message string)
}

// Lead waits for the lease and runs f while this instance holds it. It returns
// when f has, with f's error, or ErrLost.
func Lead(ctx context.Context, c Config, f func(context.Context) error) error {
	l := &lock{leases: client.For[*coordinationv1.Lease](c.Client), config: c, identity: c.Hostname + "_" + string(uuid.NewUUID())}
	var result error
	done := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: l, Name: c.Name, ReleaseOnCancel: true,
		LeaseDuration: c.LeaseDuration, RenewDeadline: c.RenewDeadline, RetryPeriod: c.RetryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				defer close(done)
				result = f(ctx)
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return err
	}
	inner, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		// Work that ends by itself gives the lease back.
		select {
		case <-done:
			stop()
		case <-inner.Done():
		}
	}()
	elector.Run(inner)
	if l.led {
		<-done
	}
	if ctx.Err() == nil && result == nil {
		return ErrLost
	}
	return result
}

// lock keeps the leader's record in a Lease.
type lock struct {
	leases   client.Typed[*coordinationv1.Lease]
	config   Config
	identity string
	lease    *coordinationv1.Lease
	led      bool
}

var _ resourcelock.Interface = (*lock)(nil)

// Get implements resourcelock.Interface.
func (l *lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	lease, err := l.leases.Get(ctx, l.config.Namespace, l.config.Name)
	if err != nil {
		return nil, nil, err
	}
	l.lease = lease
	record := resourcelock.LeaseSpecToLeaderElectionRecord(&lease.Spec)
	raw, err := json.Marshal(*record)
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l *lock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	lease, err := l.leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: l.config.Name, Namespace: l.config.Namespace},
		Spec:       resourcelock.LeaderElectionRecordToLeaseSpec(&r),
	})
	if err != nil {
		return err
	}
	l.lease, l.led = lease, true
	return nil
}

// Update implements resourcelock.Interface.
func (l *lock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if l.lease == nil {
		return errors.New("lease not initialized, call get or create first")
	}
	next := l.lease.DeepCopy()
	next.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&r)
	lease, err := l.leases.Update(ctx, next)
	if err != nil {
		return err
	}
	l.lease = lease
	l.led = l.led || r.HolderIdentity == l.identity
	return nil
}

// RecordEvent implements resourcelock.Interface.
func (l *lock) RecordEvent(what string) {
	if l.lease != nil && l.config.Event != nil {
		l.config.Event(l.lease, l.identity+" "+what)
	}
}

// Identity implements resourcelock.Interface.
func (l *lock) Identity() string { return l.identity }

// Describe implements resourcelock.Interface.
func (l *lock) Describe() string { return l.config.Namespace + "/" + l.config.Name }
