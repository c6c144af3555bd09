// SPDX-License-Identifier: Apache-2.0

// Package eventratelimit is the admission plug-in EventRateLimit: it bounds how
// many Events are written by all, into a namespace, by a user, or about one
// object from one source, by token buckets.
//
// The API server's admission chain calls it. Least recently used buckets are
// forgotten, so that its memory is bounded.
package eventratelimit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/lru"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled and configured by.
const Name = "EventRateLimit"

// cacheSize is how many buckets a limit keeps unless it says.
const cacheSize = 4096

type configuration struct {
	metav1.TypeMeta `json:",inline"`
	Limits          []limit `json:"limits"`
}

// limit is the configuration of one limit.
type limit struct {
	Type      limitType `json:"type"`
	QPS       int32     `json:"qps"`
	Burst     int32     `json:"burst"`
	CacheSize int32     `json:"cacheSize,omitempty"`
}

// limitType is what a limit has one bucket for.
type limitType string

const (
	ofServer    limitType = "Server"
	ofNamespace limitType = "Namespace"
	ofUser      limitType = "User"
	ofSource    limitType = "SourceAndObject"
)

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ limits []*buckets }

var _ admission.Validator = (*Plugin)(nil)

// New returns the plug-in. given is a Configuration of
// eventratelimit.admission.k8s.io/v1alpha1; without one there are no limits.
func New(given []byte) (*Plugin, error) {
	p := &Plugin{}
	if len(given) == 0 {
		return p, nil
	}
	var c configuration
	if err := admission.Configuration(given, "eventratelimit.admission.k8s.io/v1alpha1", "Configuration", &c); err != nil {
		return nil, err
	}
	if errs := validate(&c); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	for _, l := range c.Limits {
		p.limits = append(p.limits, newBuckets(l))
	}
	return p, nil
}

func validate(c *configuration) (errs field.ErrorList) {
	path := field.NewPath("limits")
	if len(c.Limits) == 0 {
		errs = append(errs, field.Invalid(path, c.Limits, "must not be empty"))
	}
	for i, l := range c.Limits {
		at := path.Index(i)
		if known := []limitType{ofServer, ofNamespace, ofUser, ofSource}; !slices.Contains(known, l.Type) {
			errs = append(errs, field.NotSupported(at.Child("type"), l.Type, known))
		}
		if l.Burst <= 0 {
			errs = append(errs, field.Invalid(at.Child("burst"), l.Burst, "must be positive"))
		}
		if l.QPS <= 0 {
			errs = append(errs, field.Invalid(at.Child("qps"), l.QPS, "must be positive"))
		}
		if l.Type != ofServer && l.CacheSize < 0 {
			errs = append(errs, field.Invalid(at.Child("cacheSize"), l.CacheSize, "must not be negative"))
		}
	}
	return errs
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.Validator. Every limit counts the Event, also
// behind one that refuses it.
func (p *Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Kind.Group != "" || a.Kind.Kind != "Event" || a.DryRun {
		return nil
	}
	var errs []error
	for _, l := range p.limits {
		if err := l.take(a); err != nil {
			errs = append(errs, err)
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return apierrors.NewTooManyRequestsError(err.Error())
	}
	return nil
}

// buckets are those of one limit.
type buckets struct {
	limit
	byKey *lru.Cache // of flowcontrol.RateLimiter
	all   flowcontrol.RateLimiter
}

func newBuckets(l limit) *buckets {
	b := &buckets{limit: l}
	if l.Type == ofServer {
		b.all = b.bucket()
		return b
	}
	size := int(l.CacheSize)
	if size == 0 {
		size = cacheSize
	}
	b.byKey = lru.New(size)
	return b
}

func (b *buckets) bucket() flowcontrol.RateLimiter {
	return flowcontrol.NewTokenBucketRateLimiter(float32(b.QPS), int(b.Burst))
}

func (b *buckets) take(a *admission.Attributes) error {
	key := b.key(a)
	one := b.all
	if one == nil {
		if has, ok := b.byKey.Get(key); ok {
			one = has.(flowcontrol.RateLimiter)
		} else {
			one = b.bucket()
			b.byKey.Add(key, one)
		}
	}
	if !one.TryAccept() {
		return fmt.Errorf("limit reached on type %v for key %v", b.Type, key)
	}
	return nil
}

func (b *buckets) key(a *admission.Attributes) string {
	switch b.Type {
	case ofNamespace:
		return a.Namespace
	case ofUser:
		if a.User != nil {
			return a.User.GetName()
		}
	case ofSource:
		if e, ok := a.Object.(*corev1.Event); ok {
			o := &e.InvolvedObject
			return strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion}, "")
		}
	}
	return ""
}
