// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"encoding/json"
	"errors"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"kaji/internal/client"
)

// errLeadershipLost ends Run: another instance schedules now.
var errLeadershipLost = errors.New("leaderelection lost")

// lead runs f while this instance holds the lease.
func (s *Scheduler) lead(ctx context.Context, f func(context.Context) error) error {
	le := &s.cfg.LeaderElection
	lock := &leaseLock{
		leases: client.For[*coordinationv1.Lease](s.client), namespace: le.ResourceNamespace, name: le.ResourceName,
		identity: s.identity + "_" + string(uuid.NewUUID()), event: s.recorder.event,
	}
	var result error
	done := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: le.ResourceName, ReleaseOnCancel: true,
		LeaseDuration: le.LeaseDuration.Duration, RenewDeadline: le.RenewDeadline.Duration, RetryPeriod: le.RetryPeriod.Duration,
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
	elector.Run(ctx)
	if lock.led {
		<-done
	}
	if ctx.Err() == nil && result == nil {
		return errLeadershipLost
	}
	return result
}

// leaseLock keeps the leader's record in a Lease, through the component's own
// client.
type leaseLock struct {
	leases                    client.Typed[*coordinationv1.Lease]
	namespace, name, identity string
	lease                     *coordinationv1.Lease
	led                       bool
	event                     func(controller string, regarding, related client.Object, kind, reason, action, note string)
}

var _ resourcelock.Interface = (*leaseLock)(nil)

// Get implements resourcelock.Interface.
func (l *leaseLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	lease, err := l.leases.Get(ctx, l.namespace, l.name)
	if err != nil {
		return nil, nil, err
	}
	l.lease = lease
	record := resourcelock.LeaseSpecToLeaderElectionRecord(&lease.Spec)
	raw, err := json.Marshal(*record)
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l *leaseLock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	lease, err := l.leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: l.name, Namespace: l.namespace},
		Spec:       resourcelock.LeaderElectionRecordToLeaseSpec(&r),
	})
	l.lease = lease
	l.led = l.led || err == nil
	return err
}

// Update implements resourcelock.Interface.
func (l *leaseLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
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
func (l *leaseLock) RecordEvent(what string) {
	if l.lease != nil {
		l.event("default-scheduler", l.lease, nil, corev1.EventTypeNormal, "LeaderElection", "LeaderElection", l.identity+" "+what)
	}
}

// Identity implements resourcelock.Interface.
func (l *leaseLock) Identity() string { return l.identity }

// Describe implements resourcelock.Interface.
func (l *leaseLock) Describe() string { return l.namespace + "/" + l.name }
