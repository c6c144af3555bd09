// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/show"
	"kaji/internal/apiserver/watch"
)

// options reads the options of a verb from the query. The error is a 400.
func options(r *http.Request, into runtime.Object) error {
	if err := internalscheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, into); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

func (v *Verbs) get(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	negotiate := codec.Negotiate
	if sub := view(in); sub != nil && sub.NoTable {
		negotiate = codec.NegotiateNoTable
	}
	accept, err := negotiate(r, in.Kind.Custom)
	if err != nil {
		return err
	}
	var opts metav1.GetOptions
	if r.URL.RawQuery != "" {
		if err := options(r, &opts); err != nil {
			return err
		}
	}
	if err := v.notOlder(r.Context(), opts.ResourceVersion); err != nil {
		return err
	}
	entry, err := v.Objects.Get(r.Context(), in.Served, in.ObjectNamespace(), in.Name, opts.ResourceVersion)
	if err != nil {
		return err
	}
	return list.OfOne(v.respondEntry(w, r, in, http.StatusOK, accept, entry))
}

// notOlder waits for the revision that a get asks for at least. What is no
// revision is, unlike in a list, not answered as the client's fault.
func (v *Verbs) notOlder(ctx context.Context, asked string) error {
	if asked == "" || asked == "0" {
		return nil
	}
	revision, err := strconv.ParseUint(asked, 10, 64)
	if err != nil {
		return errors.New(field.Invalid(field.NewPath("resourceVersion"), asked, err.Error()).Error())
	}
	return list.Fresh(ctx, v.Cache, int64(min(revision, math.MaxInt64)))
}

func (v *Verbs) list(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	accept, err := codec.Negotiate(r, in.Kind.Custom)
	if err != nil {
		return err
	}
	opts, err := list.Parse(in, r.URL.Query())
	if err != nil {
		return err
	}
	page, err := list.Read(r.Context(), v.Cache, opts)
	if err != nil {
		return err
	}
	return v.respondList(w, r, in, accept, page)
}

func (v *Verbs) respondList(w http.ResponseWriter, r *http.Request, in *request.Info, accept codec.Accept, page *list.Page) error {
	form, err := show.New(in.Served, accept, r.URL.Query())
	if err != nil {
		return err
	}
	if err := form.Fits(true); err != nil {
		return err
	}
	audit.Response(r.Context(), func() ([]byte, error) {
		asked := accept
		asked.Format = codec.JSON
		asJSON, err := show.New(in.Served, asked, r.URL.Query())
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		err = asJSON.List(&b, page)
		return b.Bytes(), err
	})
	out := &answerWriter{w: w, r: r, mediaType: accept.Format.MediaType()}
	if err := form.List(out, page); err != nil {
		if out.started {
			panic(http.ErrAbortHandler) // the client must not take it for whole
		}
		return err
	}
	return out.finish()
}

func (v *Verbs) watch(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	accept, err := codec.Negotiate(r, in.Kind.Custom)
	if err != nil {
		return err
	}
	opts, err := list.Parse(in, r.URL.Query())
	if err != nil {
		return err
	}
	form, err := show.New(in.Served, accept, r.URL.Query())
	if err != nil {
		return err
	}
	cfg := watch.Config{
		Cache: v.Cache, Options: opts, Form: form,
		MinTimeout: v.MinWatchTimeout, Stopping: v.Stopping, Dispatcher: &v.dispatcher,
	}
	if v.WatchSent != nil {
		cfg.Sent = v.WatchSent(in)
	}
	return watch.Serve(w, r, cfg)
}
