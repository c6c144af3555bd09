// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/show"
)

// compressAbove is the size above which answers are compressed for clients
// that accept it.
const compressAbove = 128 << 10

// StatusOf words any error as the Status that is sent.
func StatusOf(err error) *metav1.Status {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		return &metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status:   metav1.StatusFailure,
			Code:     http.StatusInternalServerError,
			Reason:   metav1.StatusReasonUnknown,
			Message:  err.Error(),
		}
	}
	status := known.Status()
	if status.Status == "" {
		status.Status = metav1.StatusFailure
	}
	if status.Code == 0 {
		status.Code = http.StatusInternalServerError
		if status.Status == metav1.StatusSuccess {
			status.Code = http.StatusOK
		}
	}
	status.Kind, status.APIVersion = "Status", "v1"
	return &status
}

// Fail answers with an error, in a form the client accepts.
func Fail(w http.ResponseWriter, r *http.Request, err error) { fail(w, r, err) }

func fail(w http.ResponseWriter, r *http.Request, err error) {
	status := StatusOf(err)
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	accept, negotiateErr := codec.NegotiatePlain(r)
	if negotiateErr != nil {
		accept = codec.Accept{}
	}
	writeObject(w, r, int(status.Code), accept, status)
}

// ErrNotFound is the answer to a resource that is not served.
func ErrNotFound() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource",
		Details: &metav1.StatusDetails{},
	}}
}

// notSupported refuses a verb that a resource does not have; custom resources
// say which.
func notSupported(in *request.Info) error {
	if in.Kind.Custom {
		return apierrors.NewMethodNotSupported(in.Kind.GroupResource(), in.Verb)
	}
	return ErrMethodNotAllowed()
}

// ErrMethodNotAllowed is the answer to a method that a path does not serve.
func ErrMethodNotAllowed() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed,
		Message: "the server does not allow this method on the requested resource",
		Details: &metav1.StatusDetails{},
	}}
}

// writeObject answers with an object that is not in the cache.
func writeObject(w http.ResponseWriter, r *http.Request, code int, accept codec.Accept, obj runtime.Object) {
	if status, ok := obj.(*metav1.Status); ok {
		audit.Answer(r.Context(), status)
	} else {
		audit.Response(r.Context(), func() ([]byte, error) { return codec.Encode(obj, codec.JSON, false) })
	}
	data, err := codec.Encode(obj, accept.Format, accept.Pretty)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, r, code, accept.Format.MediaType(), data)
}

// respond answers with a hub object, in the version and shape asked for.
func (v *Verbs) respond(w http.ResponseWriter, r *http.Request, in *request.Info, code int, accept codec.Accept, obj runtime.Object) error {
	if status, ok := obj.(*metav1.Status); ok {
		status.Kind, status.APIVersion = "Status", "v1"
		accept.As = nil
		writeObject(w, r, code, accept, status)
		return nil
	}
	hub := obj.(api.Object)
	// What the cache has shares its encoding with the watchers of the object,
	// but for what it holds only a part of.
	entry, ok, err := v.Cache.Get(r.Context(), in.Kind, hub.GetNamespace(), hub.GetName())
	if err != nil || !ok || entry.Slim() || entry.Object.GetResourceVersion() != hub.GetResourceVersion() || entry.Object.GetUID() != hub.GetUID() || dryRun(r) {
		entry = &cache.Entry{Object: hub}
	}
	return v.respondEntry(w, r, in, code, accept, entry)
}

func dryRun(r *http.Request) bool { return strings.Contains(r.URL.RawQuery, "dryRun") }

func (v *Verbs) respondEntry(w http.ResponseWriter, r *http.Request, in *request.Info, code int, accept codec.Accept, entry *cache.Entry) error {
	form, err := show.New(in.Served, accept, r.URL.Query())
	if err != nil {
		return err
	}
	if err := form.Fits(false); err != nil {
		return err
	}
	data, err := form.Object(entry)
	if err != nil {
		return err
	}
	audit.Response(r.Context(), func() ([]byte, error) {
		asked := accept
		asked.Format = codec.JSON
		asJSON, err := show.New(in.Served, asked, r.URL.Query())
		if err != nil {
			return nil, err
		}
		return asJSON.Object(entry)
	})
	switch {
	case accept.Format == codec.YAML:
		if data, err = yaml.JSONToYAML(data); err != nil {
			return err
		}
	case accept.Format == codec.JSON && accept.Pretty:
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "  "); err != nil {
			return err
		}
		data = b.Bytes()
	case accept.Format == codec.JSON:
		data = show.Line(data)
	}
	write(w, r, code, accept.Format.MediaType(), data)
	return nil
}

// write sends a whole answer, compressed when it is large and may be.
func write(w http.ResponseWriter, r *http.Request, code int, mediaType string, data []byte) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	if len(data) > compressAbove && acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		w.WriteHeader(code)
		z := zippers.Get().(*gzip.Writer)
		defer zippers.Put(z)
		z.Reset(w)
		_, _ = z.Write(data)
		_ = z.Close()
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(data)
	}
}

// zippers are reused: a writer is large. Level 1 is upstream's choice as well.
var zippers = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant of the package
	}
	return z
}}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, _, _ := strings.Cut(part, ";")
		if strings.TrimSpace(name) == "gzip" {
			return true
		}
	}
	return false
}

// answerWriter holds back the beginning of a long answer until it is clear
// whether it is worth compressing.
type answerWriter struct {
	w         http.ResponseWriter
	r         *http.Request
	mediaType string
	held      []byte
	zip       *gzip.Writer
	started   bool
}

// Write implements io.Writer.
func (a *answerWriter) Write(p []byte) (int, error) {
	if !a.started {
		if len(a.held)+len(p) <= compressAbove {
			a.held = append(a.held, p...)
			return len(p), nil
		}
		if err := a.start(); err != nil {
			return 0, err
		}
	}
	if a.zip != nil {
		return a.zip.Write(p)
	}
	return a.w.Write(p)
}

func (a *answerWriter) start() error {
	a.started = true
	h := a.w.Header()
	h.Set("Content-Type", a.mediaType)
	if acceptsGzip(a.r) {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		a.zip = zippers.Get().(*gzip.Writer)
		a.zip.Reset(a.w)
	}
	a.w.WriteHeader(http.StatusOK)
	var err error
	if a.zip != nil {
		_, err = a.zip.Write(a.held)
	} else {
		_, err = a.w.Write(a.held)
	}
	a.held = nil
	return err
}

// finish sends what is held and ends the answer.
func (a *answerWriter) finish() error {
	if !a.started {
		write(a.w, a.r, http.StatusOK, a.mediaType, a.held)
		return nil
	}
	if a.zip == nil {
		return nil
	}
	defer zippers.Put(a.zip)
	return a.zip.Close()
}

// readBody reads a bounded body. The errors are those to answer with.
func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if n > maxBody {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	return b.Bytes(), nil
}
