// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"maps"
	"os"
	"time"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
)

// Every server of a cluster has a Lease of its own in kube-system, by which
// others count the servers and find them (KEP-1965).
const (
	identityLabel    = "apiserver.kubernetes.io/identity"
	identityOf       = "kube-apiserver"
	identitySeconds  = 3600
	identityRenewal  = 10 * time.Second
	identityCleaning = time.Hour
)

func leaseResource() client.Resource {
	return client.Resource{GroupVersionResource: coordinationv1.SchemeGroupVersion.WithResource("leases"), Namespace: metav1.NamespaceSystem}
}

// keepIdentity renews this server's Lease and removes those of servers that are
// long gone, until ctx ends.
func (s *Server) keepIdentity(ctx context.Context) {
	if s.cfg.Identity == "" || s.kinds.Resource(leaseResource().GroupVersionResource) == nil {
		return
	}
	holder := s.cfg.Identity + "_" + uuid.NewString()
	renew, clean := time.NewTicker(identityRenewal), time.NewTicker(identityCleaning)
	defer renew.Stop()
	defer clean.Stop()
	report := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			s.log.Error(what, "lease", s.cfg.Identity, "err", err)
		}
	}
	const cannotRenew, cannotClean = "cannot renew the server's identity lease", "cannot remove identity leases that expired"
	report(cannotRenew, s.renewIdentity(ctx, holder))
	report(cannotClean, s.cleanIdentities(ctx, time.Now()))
	for {
		select {
		case <-renew.C:
			report(cannotRenew, s.renewIdentity(ctx, holder))
		case <-clean.C:
			report(cannotClean, s.cleanIdentities(ctx, time.Now()))
		case <-ctx.Done():
			return
		}
	}
}

// renewIdentity writes the Lease, which others may have deleted.
func (s *Server) renewIdentity(ctx context.Context, holder string) error {
	wanted := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Name: s.cfg.Identity, Namespace: metav1.NamespaceSystem,
		Labels: map[string]string{identityLabel: identityOf},
	}}
	self, r := s.Self(), leaseResource()
	have, err := self.Get(ctx, r, s.cfg.Identity, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return err
	}
	if !missing {
		wanted = have.(*coordinationv1.Lease).DeepCopy()
	}
	s.fillIdentity(wanted, holder)
	if missing {
		_, err = self.Create(ctx, r, "", wanted, metav1.CreateOptions{})
	} else {
		_, err = self.Update(ctx, r, wanted.Name, wanted, metav1.UpdateOptions{})
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // somebody was faster: the next renewal sees it
	}
	return err
}

func (s *Server) fillIdentity(l *coordinationv1.Lease, holder string) {
	more := map[string]string{identityLabel: identityOf}
	if host, err := os.Hostname(); err == nil {
		more[corev1.LabelHostname] = host
	}
	if l.Labels == nil {
		l.Labels = map[string]string{}
	}
	maps.Copy(l.Labels, more)
	if s.cfg.Advertise.IsValid() {
		if l.Annotations == nil {
			l.Annotations = map[string]string{}
		}
		l.Annotations[corev1.AnnotationPeerAdvertiseAddress] = s.cfg.Advertise.String()
	}
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = &holder, new(int32(identitySeconds))
	l.Spec.RenewTime = new(metav1.NowMicro())
}

// cleanIdentities removes the Leases of servers that did not renew them.
func (s *Server) cleanIdentities(ctx context.Context, now time.Time) error {
	kind := s.kinds.Resource(leaseResource().GroupVersionResource).Kind
	all, err := s.cache.Snapshot(ctx, kind)
	if err != nil {
		return err
	}
	ours := labels.SelectorFromSet(labels.Set{identityLabel: identityOf})
	self := s.Self()
	for e := range all.All(metav1.NamespaceSystem, "") {
		l := e.Object.(*coordinationv1.Lease)
		if !ours.Matches(labels.Set(l.Labels)) || !expired(l, now) {
			continue
		}
		err := self.Delete(ctx, leaseResource(), l.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &l.ResourceVersion}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

func expired(l *coordinationv1.Lease, now time.Time) bool {
	return l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil ||
		l.Spec.RenewTime.Add(time.Duration(*l.Spec.LeaseDurationSeconds)*time.Second).Before(now)
}
