// SPDX-License-Identifier: Apache-2.0

package list

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver/cache"
)

// Page is the answer to a list.
type Page struct {
	Revision int64
	Entries  []*cache.Entry
	// Continue is the token of the next page, empty at the end.
	Continue string
	// Remaining is the number of objects after this page, where it is known.
	Remaining *int64
}

// freshTimeout is how long a read waits for a revision it was asked to be at
// least as new as.
const freshTimeout = 3 * time.Second

// Read selects objects as the options say. The errors are those to answer with.
func Read(ctx context.Context, c *cache.Cache, o *Options) (*Page, error) {
	at, start, err := snapshot(ctx, c, o)
	if err != nil {
		return nil, err
	}
	page := &Page{Revision: at.Revision}
	// A list at whatever revision the cache has is never cut, as upstream's
	// cache never did.
	limit := int(o.Limit)
	if o.Continue == "" && o.ResourceVersion == "0" {
		limit = 0
	}
	if o.All() {
		size := at.Remaining(o.Namespace, start)
		if limit > 0 {
			size = min(size, limit)
		}
		page.Entries = make([]*cache.Entry, 0, size)
	}
	for e := range o.from(at, start) {
		page.Entries = append(page.Entries, e)
		if len(page.Entries) == limit {
			break
		}
	}
	if limit == 0 || len(page.Entries) < limit {
		return page, nil
	}
	next := page.Entries[limit-1].Key + "\x00"
	left := int64(at.Remaining(o.Namespace, next))
	if left == 0 || o.Name != "" && (o.Namespace != "" || !o.Served.Kind.Namespaced) {
		return page, nil
	}
	page.Continue = encodeToken(next, o.prefix(), at.Revision)
	if o.All() {
		page.Remaining = &left
	}
	return page, nil
}

// prefix is the directory the options list.
func (o *Options) prefix() string {
	prefix := o.Served.Kind.Prefix + "/"
	if o.Namespace != "" && o.Served.Kind.Namespaced {
		prefix += o.Namespace + "/"
	}
	return prefix
}

// snapshot returns the state the options ask for, and the key to begin at.
func snapshot(ctx context.Context, c *cache.Cache, o *Options) (*cache.Snapshot, string, error) {
	kind := o.Served.Kind
	switch {
	case o.Continue != "":
		start, revision, err := decodeToken(o.Continue, o.prefix())
		if err != nil {
			return nil, "", apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: %v", err))
		}
		if o.ResourceVersion != "" && o.ResourceVersion != "0" {
			return nil, "", apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		if revision < 0 {
			at, err := newest(ctx, c, o)
			return at, start, err
		}
		if err := Fresh(ctx, c, revision); err != nil {
			return nil, "", err
		}
		at, err := c.SnapshotAt(ctx, kind, revision)
		if errors.Is(err, cache.ErrTooOld) {
			return nil, "", continueExpired(encodeToken(start, o.prefix(), -1))
		}
		return at, start, unavailable(err)
	case o.exact():
		if err := Fresh(ctx, c, o.Revision); err != nil {
			return nil, "", err
		}
		at, err := c.SnapshotAt(ctx, kind, o.Revision)
		if errors.Is(err, cache.ErrTooOld) {
			return nil, "", apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
		}
		return at, "", unavailable(err)
	}
	at, err := Newest(ctx, c, o)
	return at, "", err
}

// exact says whether the list must show one revision: a limit with a revision
// asks for that too.
func (o *Options) exact() bool {
	return o.Match == metav1.ResourceVersionMatchExact ||
		o.Match == "" && o.Limit > 0 && o.Revision > 0
}

// Newest returns the state a watch of these options begins with: one at least
// as new as their revision, whatever is at hand for "0", and for none what is
// newest in the store.
func Newest(ctx context.Context, c *cache.Cache, o *Options) (*cache.Snapshot, error) {
	if o.ResourceVersion == "" {
		return newest(ctx, c, o)
	}
	if err := Fresh(ctx, c, o.Revision); err != nil {
		return nil, err
	}
	at, err := c.Snapshot(ctx, o.Served.Kind)
	return at, unavailable(err)
}

func newest(ctx context.Context, c *cache.Cache, o *Options) (*cache.Snapshot, error) {
	if _, err := c.WaitNewest(ctx); err != nil {
		return nil, unavailable(err)
	}
	at, err := c.Snapshot(ctx, o.Served.Kind)
	return at, unavailable(err)
}

// Fresh waits until the cache has reached a revision, or answers that it is
// too large.
func Fresh(ctx context.Context, c *cache.Cache, revision int64) error {
	if c.Revision() >= revision {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	err := c.WaitFor(ctx, revision)
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		return unavailable(err)
	}
	tooLarge := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", revision, c.Revision()), 1)
	tooLarge.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return tooLarge
}

// continueExpired is the answer to a token whose revision is forgotten; it
// carries one that goes on with what is newest.
func continueExpired(next string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old " +
		"to display a consistent list result. You can start a new list without " +
		"the continue parameter, or use the continue token in this response to " +
		"retrieve the remainder of the results. Continuing with the provided " +
		"token results in an inconsistent list - objects that were created, " +
		"modified, or deleted between the time the first chunk was returned " +
		"and now may show up in the list.")
	err.ErrStatus.ListMeta.Continue = next
	return err
}

// unavailable words what went wrong below.
func unavailable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cache.ErrUnknownKind), errors.Is(err, cache.ErrEnded):
		return apierrors.NewTooManyRequests("storage is (re)initializing", 1)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return apierrors.NewInternalError(err)
}
