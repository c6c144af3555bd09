// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver/request"
)

// Open begins the record of a request that comes without HTTP; the caller ends
// it with Close. The record is nil when the policy wants none. The error refuses
// the request.
func (a *Audit) Open(ctx context.Context, query url.Values) (context.Context, *Record, error) {
	in := request.From(ctx)
	r := &http.Request{
		Method: methods[in.Verb], RemoteAddr: "127.0.0.1:0",
		URL:    &url.URL{Path: path(in), RawQuery: query.Encode()},
		Header: http.Header{"User-Agent": {in.UserAgent}},
	}
	ctx, rec, err := a.open(Init(ctx, uuid.NewString()), r)
	if err != nil {
		return ctx, nil, apierrors.NewInternalError(err)
	}
	return ctx, rec, nil
}

var methods = map[string]string{
	"get": http.MethodGet, "list": http.MethodGet, "watch": http.MethodGet, "create": http.MethodPost,
	"update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete, "deletecollection": http.MethodDelete,
}

// path spells the path a client over HTTP would have asked for.
func path(in *request.Info) string {
	p := "/" + in.APIPrefix
	if in.APIGroup != "" {
		p += "/" + in.APIGroup
	}
	p += "/" + in.APIVersion
	if in.Namespace != "" && in.Resource != "namespaces" {
		p += "/namespaces/" + in.Namespace
	}
	p += "/" + in.Resource
	if in.Name != "" && in.Verb != "create" && in.Verb != "list" && in.Verb != "watch" && in.Verb != "deletecollection" || in.Subresource != "" {
		p += "/" + in.Name
	}
	if in.Subresource != "" {
		p += "/" + in.Subresource
	}
	return p
}

// Started records that a long answer begins.
func (r *Record) Started() {
	if r != nil {
		r.answered(http.StatusOK, true)
	}
}

// Close ends the record of Open. code answers when err is nil; otherwise status
// is what err would be answered with.
func (r *Record) Close(code int, err error) {
	if r == nil {
		return
	}
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		status := known.Status()
		Answer(r.ctx, &status)
		code = int(status.Code)
	} else if err != nil {
		Answer(r.ctx, &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()})
		code = http.StatusInternalServerError
	}
	r.answered(code, false)
	r.complete(false)
}
