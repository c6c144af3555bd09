// SPDX-License-Identifier: Apache-2.0

// Package impersonate lets a request act as another user, where the sender may:
// the station between authentication and authorization. It follows upstream's
// constrained impersonation (KEP-5284), which first asks for rights that hold
// for one action on behalf of one sort of user, and falls back to the verb
// "impersonate" of old.
//
// The API server's chain calls it. It keeps no answers of the authorizer: a
// right taken away is gone at the next request.
package impersonate

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
)

// Config configures the station.
type Config struct {
	Authorizer authorizer.UnconditionalAuthorizer
	// Metrics counts attempts; nil counts none.
	Metrics *Metrics
}

// Station returns the station as a wrapper of what comes after it.
func Station(cfg Config) func(http.Handler) http.Handler {
	j := newJudge(cfg)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			wanted, err := takeHeaders(r.Header)
			if err != nil {
				refuse(w, r, err)
				return
			}
			if wanted == nil {
				next.ServeHTTP(w, r)
				return
			}
			ctx := r.Context()
			attrs := request.From(ctx).Attributes(request.User(ctx))
			start := time.Now()
			granted, err := j.judge(ctx, wanted, &attrs)
			if err != nil {
				cfg.Metrics.attempt("", false, time.Since(start))
				refuse(w, r, err)
				return
			}
			cfg.Metrics.attempt(modeOf(granted.constraint), true, time.Since(start))
			audit.LogImpersonatedUser(ctx, granted.user, granted.constraint)
			next.ServeHTTP(w, r.WithContext(request.WithUser(ctx, granted.user)))
		})
	}
}

func refuse(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	verb.Fail(w, r, err)
}

// takeHeaders returns the user that the headers name, nil when they name none,
// and removes them, so that nothing behind can tell.
func takeHeaders(header http.Header) (*user.DefaultInfo, error) {
	wanted := &user.DefaultInfo{
		Name:   header.Get(authenticationv1.ImpersonateUserHeader),
		UID:    header.Get(authenticationv1.ImpersonateUIDHeader),
		Groups: append([]string(nil), header[authenticationv1.ImpersonateGroupHeader]...),
	}
	extra := false
	for name, values := range header {
		key, ok := strings.CutPrefix(name, authenticationv1.ImpersonateUserExtraHeaderPrefix)
		if !ok {
			continue
		}
		extra = true
		if len(values) == 0 {
			continue
		}
		if wanted.Extra == nil {
			wanted.Extra = map[string][]string{}
		}
		key = unescape(strings.ToLower(key))
		wanted.Extra[key] = append(wanted.Extra[key], values...)
	}
	if wanted.Name == "" {
		if wanted.UID != "" || len(wanted.Groups) > 0 || extra {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %#v without impersonating a user name", wanted))
		}
		return nil, nil
	}
	header.Del(authenticationv1.ImpersonateUserHeader)
	header.Del(authenticationv1.ImpersonateUIDHeader)
	header.Del(authenticationv1.ImpersonateGroupHeader)
	for name := range header {
		if strings.HasPrefix(name, authenticationv1.ImpersonateUserExtraHeaderPrefix) {
			header.Del(name)
		}
	}
	return wanted, nil
}

// unescape decodes the percent signs of a key; one that is malformed stays.
func unescape(key string) string {
	if plain, err := url.PathUnescape(key); err == nil {
		return plain
	}
	return key
}
