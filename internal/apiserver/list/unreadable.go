// SPDX-License-Identifier: Apache-2.0

package list

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/request"
)

// Unreadable says that an object could not be had in a version, for what its
// webhook answered. Clients are told what they are told of a stored object
// that cannot be decoded: elsewhere conversion is a part of that.
type Unreadable struct {
	Key      string // the store key
	Revision int64
	Err      error
}

func (u *Unreadable) Error() string {
	return fmt.Sprintf("object not decodable revision=%d: %v", u.Revision, u.Err)
}

// Unwrap returns what hinders the conversion.
func (u *Unreadable) Unwrap() error { return u.Err }

// corrupt words the error as the storage of a single object does, or of many.
func (u *Unreadable) corrupt(key string) string {
	return fmt.Sprintf("StorageError: corrupt object, Code: 7, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: %v", key, u)
}

// OfOne words an error of reading one object for a client.
func OfOne(err error) error {
	var u *Unreadable
	if !errors.As(err, &u) {
		return err
	}
	return apierrors.NewInternalError(errors.New(u.corrupt(strings.TrimPrefix(u.Key, "/registry"))))
}

// maxUnreadable bounds how many objects of a list are told to be unreadable,
// and slow is how long a conversion that fails may take for the next object to
// be tried.
const (
	maxUnreadable = 100
	slow          = time.Second
)

// eachUnreadable finds out which of entries, which could not be converted
// together, hinder that, and words it. It is nil when each for itself could be
// converted, which they then are.
func eachUnreadable(s *request.Served, entries []*cache.Entry) error {
	var all []*Unreadable
	for _, e := range entries {
		began := time.Now()
		_, err := InVersion(s, e)
		var u *Unreadable
		switch {
		case errors.As(err, &u):
			all = append(all, u)
		case err != nil:
			return err
		}
		if len(all) == maxUnreadable || len(all) > 0 && time.Since(began) > slow {
			break
		}
	}
	if len(all) == 0 {
		return nil
	}
	resource := s.GVR.GroupResource()
	message := fmt.Sprintf("failed to read one or more %s from the storage: %s", resource, all[0].corrupt(all[0].Key))
	if len(all) > 1 {
		message += fmt.Sprintf(" (and %d more)", len(all)-1)
	}
	status := metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError, Message: message,
		Details: &metav1.StatusDetails{Group: resource.Group, Kind: resource.Resource, Name: "list"},
	}
	for _, u := range all {
		status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{
			Type: metav1.CauseTypeUnexpectedServerResponse, Field: u.Key, Message: u.corrupt(u.Key),
		})
	}
	if len(all) == maxUnreadable {
		status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{
			Type: metav1.CauseTypeTooMany, Message: "too many errors, the list is truncated",
		})
	}
	return &apierrors.StatusError{ErrStatus: status}
}
