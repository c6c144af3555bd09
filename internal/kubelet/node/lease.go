// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

// beat renews the node's Lease until ctx ends.
func (k *Keeper) beat(ctx context.Context, owner types.UID) {
	interval := k.cfg.LeaseDuration / 4
	timer := time.NewTimer(0)
	defer timer.Stop()
	var lease *coordinationv1.Lease
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := interval
		renewed, err := k.renew(ctx, lease, owner)
		if err != nil {
			if ctx.Err() == nil {
				k.cfg.Logger.Warn("node lease was not renewed", "err", err)
			}
			wait = min(time.Second, interval)
			renewed = nil // read it afresh
		}
		lease = renewed
		timer.Reset(wait)
	}
}

func (k *Keeper) renew(ctx context.Context, lease *coordinationv1.Lease, owner types.UID) (*coordinationv1.Lease, error) {
	leases := client.For[*coordinationv1.Lease](k.cfg.Client)
	now := metav1.NewMicroTime(time.Now())
	if lease == nil {
		found, err := leases.Get(ctx, corev1.NamespaceNodeLease, k.cfg.Name)
		if apierrors.IsNotFound(err) {
			seconds := int32(k.cfg.LeaseDuration / time.Second)
			return leases.Create(ctx, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Name: k.cfg.Name, Namespace: corev1.NamespaceNodeLease, OwnerReferences: []metav1.OwnerReference{
					{APIVersion: "v1", Kind: "Node", Name: k.cfg.Name, UID: owner}}},
				Spec: coordinationv1.LeaseSpec{HolderIdentity: &k.cfg.Name, LeaseDurationSeconds: &seconds, RenewTime: &now},
			})
		}
		if err != nil {
			return nil, err
		}
		lease = found
	}
	lease = lease.DeepCopy()
	lease.Spec.RenewTime = &now
	return leases.Update(ctx, lease)
}
