// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/client/lease"
)

// lead runs f while this instance holds the lease.
func (s *Scheduler) lead(ctx context.Context, f func(context.Context) error) error {
	le := &s.cfg.LeaderElection
	return lease.Lead(ctx, lease.Config{
		Client: s.client, Namespace: le.ResourceNamespace, Name: le.ResourceName, Hostname: s.identity,
		LeaseDuration: le.LeaseDuration.Duration, RenewDeadline: le.RenewDeadline.Duration, RetryPeriod: le.RetryPeriod.Duration,
		Event: func(about *coordinationv1.Lease, message string) {
			s.recorder.event("default-scheduler", about, nil, corev1.EventTypeNormal, "LeaderElection", "LeaderElection", message)
		},
	}, f)
}
