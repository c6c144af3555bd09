// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/http"
	"slices"
	"sync/atomic"

	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/apiserver/request"
)

// inflight bounds requests in flight where fairness is turned off.
type inflight struct {
	flow              *Flow
	reading, mutating counter
}

// counter counts up to a limit; zero means none.
type counter struct {
	limit int64
	now   atomic.Int64
}

func (c *counter) take() bool {
	if n := c.now.Add(1); c.limit > 0 && n > c.limit {
		c.now.Add(-1)
		return false
	}
	return true
}

func newInflight(f *Flow) *inflight {
	i := &inflight{flow: f}
	i.reading.limit, i.mutating.limit = int64(f.cfg.Limits.ReadOnly), int64(f.cfg.Limits.Mutating)
	return i
}

func (i *inflight) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := request.From(r.Context())
		if i.flow.cfg.LongRunning(in) {
			next.ServeHTTP(w, r)
			return
		}
		c := &i.mutating
		if in.Verb == "get" || in.Verb == "list" || in.Verb == "watch" {
			c = &i.reading
		}
		if !c.take() {
			// Administrators must get in to end the flood.
			if !slices.Contains(request.User(r.Context()).GetGroups(), user.SystemPrivilegedGroup) {
				refuse(w)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		defer c.now.Add(-1)
		next.ServeHTTP(w, r)
	})
}
