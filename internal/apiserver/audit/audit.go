// SPDX-License-Identifier: Apache-2.0

// Package audit records who asked for what, as upstream's audit policy says: at
// which level (None, Metadata, Request, RequestResponse), at which stages, into
// a file or to a webhook.
//
// The API server puts its station behind authentication; clients in the same
// process pass it too, through Open. The verbs hand in the objects (Request,
// Response); they are encoded only when the policy asks for them. A request
// that no rule names costs the matching of the rules and nothing else.
package audit

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"
	auditapi "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"

	"kaji/internal/apiserver/request"
)

// Config configures an Audit; all fields are needed.
type Config struct {
	// Policy says what is recorded.
	Policy *auditapi.Policy
	// Backend keeps the events. Its ProcessEvents returns false when a request
	// must not go on unrecorded.
	Backend audit.Backend
	// LongRunning says whether a request lasts: its answer is recorded when it
	// starts, too.
	LongRunning func(*request.Info) bool
}

// Audit is the station. Its methods are safe for concurrent use.
type Audit struct {
	cfg    Config
	policy audit.PolicyRuleEvaluator
}

// New returns the station. Events are kept once Run runs.
func New(cfg Config) *Audit {
	return &Audit{cfg: cfg, policy: policy.NewPolicyRuleEvaluator(cfg.Policy.DeepCopy())}
}

// LoadPolicy reads a policy in YAML or JSON and checks it.
func LoadPolicy(data []byte) (*auditapi.Policy, error) { return policy.LoadPolicyFromBytes(data) }

// Run runs the back end until ctx ends and hands over what it still holds.
func (a *Audit) Run(ctx context.Context) error {
	if err := a.cfg.Backend.Run(ctx.Done()); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	<-ctx.Done()
	a.cfg.Backend.Shutdown()
	return nil
}

// Init makes room in the context for what stations before this one want to
// annotate; id is the request's Audit-ID.
func Init(ctx context.Context, id string) context.Context {
	ctx = audit.WithAuditContext(ctx)
	audit.WithAuditID(ctx, types.UID(id))
	return ctx
}

// Wrap records the requests that next answers. Their Info and user must be in
// the context, which Init has prepared.
func (a *Audit) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, rec, err := a.open(r.Context(), r)
		if err != nil {
			refuse(w, r, err)
			return
		}
		if rec == nil {
			next.ServeHTTP(w, r)
			return
		}
		in := request.From(ctx)
		long := a.cfg.LongRunning(in)
		out := &writer{ResponseWriter: w, rec: rec, started: long}
		defer func() {
			if reason := recover(); reason != nil {
				rec.panicked(reason)
				panic(reason)
			}
			in.AtEnd(func() { rec.complete(long) })
		}()
		next.ServeHTTP(out, r.WithContext(ctx))
	})
}

// Unauthenticated records the requests that next refuses because nobody knows
// who asks: one event, when the answer starts.
func (a *Audit) Unauthenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, rec, err := a.evaluate(r.Context(), r)
		if err != nil {
			refuse(w, r, err)
			return
		}
		if rec == nil {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(&writer{ResponseWriter: w, rec: rec, started: true}, r.WithContext(ctx))
	})
}

// errNotStored refuses a request that could not be recorded.
var errNotStored = errors.New("failed to store audit event")

func refuse(w http.ResponseWriter, r *http.Request, err error) {
	http.Error(w, fmt.Sprintf("Internal Server Error: %q: %v", html.EscapeString(r.RequestURI), err), http.StatusInternalServerError)
}

// open begins the record of a request; it is nil when the policy wants none.
func (a *Audit) open(ctx context.Context, r *http.Request) (context.Context, *Record, error) {
	ctx, rec, err := a.evaluate(ctx, r)
	if err != nil || rec == nil {
		return ctx, nil, err
	}
	if !rec.event.ProcessEventStage(ctx, auditapi.StageRequestReceived) {
		audit.ApiserverAuditDroppedCounter.WithContext(ctx).Inc()
		return ctx, nil, errNotStored
	}
	return ctx, rec, nil
}

// evaluate asks the policy about a request.
func (a *Audit) evaluate(ctx context.Context, r *http.Request) (context.Context, *Record, error) {
	event := audit.AuditContextFrom(ctx)
	if event == nil {
		return ctx, nil, nil
	}
	attrs := request.From(ctx).Attributes(request.User(ctx))
	found := a.policy.EvaluatePolicyRule(attrs)
	audit.ObservePolicyLevel(ctx, found.Level)
	if err := event.Init(found, a.cfg.Backend); err != nil {
		return ctx, nil, fmt.Errorf("failed to create audit event: %w", err)
	}
	if found.Level == auditapi.LevelNone {
		return ctx, nil, nil
	}
	audit.LogRequestMetadata(ctx, r, time.Now(), attrs)
	rec := &Record{event: event, level: found.Level, bare: found.OmitManagedFields}
	rec.ctx = context.WithValue(ctx, recordKey{}, rec)
	return rec.ctx, rec, nil
}
