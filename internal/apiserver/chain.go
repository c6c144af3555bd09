// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	audited "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
)

// chain puts the stations of a request before next. The last named is the
// outermost: requests pass them from the bottom up.
func (s *Server) chain(next http.Handler) http.Handler {
	h := s.authorize(next)
	if s.flow != nil {
		h = s.flow.Wrap(h)
	}
	if s.cfg.Impersonate != nil {
		h = s.cfg.Impersonate(h)
	}
	if s.cfg.Audit != nil {
		h = s.cfg.Audit.Wrap(h)
	}
	h = s.authenticate(h)
	h = s.timeout(h)
	h = withWarnings(h)
	h = s.metrics.Instrument(h)
	h = s.parse(h)
	return s.recover(h)
}

// recover turns a panic into a 500 and a line in the log.
func (s *Server) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if reason == http.ErrAbortHandler { //nolint:errorlint // the value itself is the signal
				panic(reason)
			}
			s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", reason, "stack", string(debug.Stack()))
			http.Error(w, "This request caused apiserver to panic. Look in the logs for details.", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// parse puts the request's Info into the context and sets the headers every
// answer has.
func (s *Server) parse(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		id := r.Header.Get("Audit-Id")
		if id == "" {
			id = uuid.NewString()
			r.Header.Set("Audit-Id", id)
		}
		h.Set("Audit-Id", id)
		h.Set("Cache-Control", "no-cache, private")
		in, err := request.Parse(r, s.kinds)
		if err != nil {
			verb.Fail(w, r, apierrors.NewInternalError(fmt.Errorf("failed to create RequestInfo: %v", err)))
			return
		}
		ctx := request.With(r.Context(), in)
		if s.cfg.Audit != nil {
			ctx = audit.Init(ctx, id)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// snapshotPath is where the server's user may serve a copy of the store, which
// takes as long as the store is large.
const snapshotPath = "/debug/kaji/snapshot"

// LongRunning says whether a request may last: a watch, a stream, or a profile.
func LongRunning(in *request.Info) bool {
	if in.Verb == "watch" || in.Verb == "proxy" || in.Path == snapshotPath || strings.HasPrefix(in.Path, "/debug/pprof/") {
		return true
	}
	return slices.Contains([]string{"attach", "exec", "proxy", "log", "portforward"}, in.Subresource)
}

// timeout bounds requests that are not long running.
func (s *Server) timeout(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if LongRunning(request.From(r.Context())) {
			next.ServeHTTP(w, r)
			return
		}
		limit := s.cfg.RequestTimeout
		if asked := r.URL.Query().Get("timeout"); asked != "" {
			d, err := time.ParseDuration(asked)
			if err != nil {
				verb.Fail(w, r, apierrors.NewBadRequest(fmt.Sprintf("invalid timeout specified in the request URL - %v", err)))
				return
			}
			if d > 0 {
				limit = min(limit, d)
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// authenticate finds out who asks.
func (s *Server) authenticate(next http.Handler) http.Handler {
	if s.cfg.Authenticator == nil {
		anonymous := &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), anonymous)))
		})
	}
	failed := s.unauthorized()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		who, ok, err := s.cfg.Authenticator.AuthenticateRequest(r)
		s.metrics.Authenticated(who, ok && err == nil, err, time.Since(start))
		if err != nil {
			s.log.Debug("unable to authenticate the request", "err", err)
		}
		if err != nil || !ok || who == nil {
			failed.ServeHTTP(w, r)
			return
		}
		// A token must not reach anything behind.
		r.Header.Del("Authorization")
		if r.ProtoMajor == 2 && anonymous(who.User) {
			// A connection of HTTP/2 is dear: who is not known gets one a request.
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), who.User)))
	})
}

func anonymous(u user.Info) bool {
	return u.GetName() == user.Anonymous || slices.Contains(u.GetGroups(), user.AllUnauthenticated)
}

// unauthorized answers who is not known.
func (s *Server) unauthorized() http.Handler {
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			w.Header().Set("Connection", "close")
		}
		verb.Fail(w, r, apierrors.NewUnauthorized("Unauthorized"))
	})
	if s.cfg.Audit != nil {
		h = s.cfg.Audit.Unauthenticated(h)
	}
	return h
}

// authorize lets pass what the authorizer allows.
func (s *Server) authorize(next http.Handler) http.Handler {
	if s.cfg.Authorizer == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if err := s.permit(ctx, request.From(ctx)); err != nil {
			if apierrors.IsInternalError(err) {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("X-Content-Type-Options", "nosniff")
			verb.Fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Annotations of audit events about the authorizers' judgement.
const (
	decisionKey = "authorization.k8s.io/decision"
	reasonKey   = "authorization.k8s.io/reason"
)

// permit returns the refusal of a request, or nil.
func (s *Server) permit(ctx context.Context, in *request.Info) error {
	if s.cfg.Authorizer == nil {
		return nil
	}
	attrs := in.Attributes(request.User(ctx))
	start := time.Now()
	decision, reason, err := s.cfg.Authorizer.Authorize(ctx, attrs)
	s.metrics.Authorized(decision, err, time.Since(start))
	if decision == authorizer.DecisionAllow {
		audited.AddAuditAnnotations(ctx, decisionKey, "allow", reasonKey, reason)
		return nil
	}
	if err != nil {
		audited.AddAuditAnnotation(ctx, reasonKey, "internal error")
		s.log.Error("authorization failed", "err", err)
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
			Message: fmt.Sprintf("Internal Server Error: %q: %v", in.Path, err),
		}}
	}
	audited.AddAuditAnnotations(ctx, decisionKey, "forbid", reasonKey, reason)
	return object.Forbidden(attrs, reason)
}
