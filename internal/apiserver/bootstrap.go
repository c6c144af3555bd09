// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/api"
	"kaji/internal/client"
)

// systemNamespaces exist in every cluster.
var systemNamespaces = []string{metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, metav1.NamespaceDefault}

// Self is the server's own identity, which may do everything.
func (s *Server) Self() *Direct {
	d := s.Direct(&user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}, "kube-apiserver")
	d.trusted = true
	return d
}

// ensureNamespaces creates the namespaces every cluster has. Watchers rely on
// them, so that it goes on until all are there.
func (s *Server) ensureNamespaces(ctx context.Context) {
	self := s.Self()
	r := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("namespaces")}
	var all sync.WaitGroup
	for _, name := range systemNamespaces {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		all.Go(func() { s.ensure(ctx, "namespace "+name, func() error { return create(ctx, self, r, ns) }) })
	}
	all.Wait()
}

// create creates obj unless it is there.
func create(ctx context.Context, d *Direct, r client.Resource, obj api.Object) error {
	// A look first: creating again what is there fails with more errors than
	// AlreadyExists, such as a cluster IP that is taken.
	if _, err := d.Get(ctx, r, obj.GetName(), metav1.GetOptions{}); err == nil || !apierrors.IsNotFound(err) {
		return err
	}
	_, err := d.Create(ctx, r, "", obj, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// ensure calls do until it succeeds or ctx ends.
func (s *Server) ensure(ctx context.Context, what string, do func() error) {
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		s.log.Error("cannot create what every cluster has", "object", what, "err", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}
