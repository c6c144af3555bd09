// SPDX-License-Identifier: Apache-2.0

package object

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/apiserver/request"
	"kaji/internal/store"
)

// unsafeVerb is the right that a deletion needs which does not read first.
const unsafeVerb = "unsafe-delete-ignore-read-errors"

// unsafeAnnotation marks such a deletion in the audit log.
const unsafeAnnotation = "apiserver.k8s.io/" + unsafeVerb

// unreadable words what hinders the decoding of a stored value.
func unreadable(kv store.KeyValue, err error) error {
	return fmt.Errorf("StorageError: corrupt object, Code: 7, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: object not decodable revision=%d: %w",
		kv.Key, kv.ModRevision, err)
}

// DeleteUnreadable removes an object from the store that cannot be decoded
// (KEP-3926). Its finalizers, admission and whatever else would have to read it
// are passed over; objects that can be decoded are refused.
func (o *Objects) DeleteUnreadable(ctx context.Context, in *request.Info, opts *metav1.DeleteOptions) (*metav1.Status, error) {
	audit.AddAuditAnnotation(ctx, unsafeAnnotation, "")
	if err := o.mayDeleteUnread(ctx, in); err != nil {
		return nil, err
	}
	key := in.Kind.Key(in.ObjectNamespace(), in.Name)
	resource := in.GVR().GroupResource()
	kv, ok, _, err := o.Store.Get(ctx, key)
	switch {
	case err != nil:
		return nil, o.fault(err)
	case !ok:
		return nil, apierrors.NewNotFound(resource, in.Name)
	}
	if _, err := o.Decode(in.Kind, kv); err == nil {
		return nil, apierrors.NewConflict(resource, in.Name, fmt.Errorf("StorageError: invalid object, Code: 4, Key: %s, "+
			"ResourceVersion: 0, AdditionalErrorMsg: unsafe deletion is not allowed because the object is decodable from storage", key))
	}
	if !isDryRun(opts.DryRun) {
		res, err := o.commit(ctx, store.Txn{
			Guards: []store.Guard{{Key: key, ModRevision: kv.ModRevision}},
			Ops:    []store.Op{{Key: key, Delete: true}},
		}, Side{})
		switch {
		case err != nil:
			return nil, err
		case !res.Succeeded:
			return nil, apierrors.NewConflict(resource, in.Name, errors.New(optimisticLock))
		}
	}
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess, Code: 200,
		Details: &metav1.StatusDetails{Name: in.Name, Kind: in.GVK.Kind},
	}, nil
}

// mayDeleteUnread asks for the right to delete what cannot be read, beside the
// right to delete.
func (o *Objects) mayDeleteUnread(ctx context.Context, in *request.Info) error {
	if o.Authorizer == nil {
		return nil
	}
	attrs := in.Attributes(request.User(ctx))
	attrs.Verb = unsafeVerb
	decision, reason, err := o.Authorizer.Authorize(ctx, attrs)
	if decision == authorizer.DecisionAllow {
		return nil
	}
	refused := fmt.Errorf("not permitted to do %q, reason: %s", unsafeVerb, reason)
	if err != nil {
		refused = fmt.Errorf("error while checking permission for %q, %w", unsafeVerb, err)
	}
	return apierrors.NewForbidden(in.GVR().GroupResource(), in.Name, refused)
}
