// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/apiserver/request"
)

// Accept is the form a client wants its answer in.
type Accept struct {
	Format Format
	Pretty bool
	// As is the kind the answer is turned into (Table or
	// PartialObjectMetadata), nil for the resource itself.
	As *schema.GroupVersionKind
	// Stream says that the client asked for a watch's framing.
	Stream bool
}

// accepted are the formats in the order of preference.
var accepted = []Format{JSON, YAML, Protobuf}

func names(formats []Format, suffix string) string {
	list := make([]string, len(formats))
	for i, f := range formats {
		list[i] = f.MediaType() + suffix
	}
	return strings.Join(list, ", ")
}

// formats are those an object can be asked in; custom ones have no protobuf.
func formats(custom bool) []Format {
	if custom {
		return accepted[:2]
	}
	return accepted
}

// Negotiate reads what a request accepts. custom says that the resource is a
// custom one. The error is a 406.
func Negotiate(r *http.Request, custom bool) (Accept, error) {
	return negotiate(r, custom, func(*schema.GroupVersionKind) bool { return true })
}

// NegotiateNoTable is Negotiate for what is never shown as a Table.
func NegotiateNoTable(r *http.Request, custom bool) (Accept, error) {
	return negotiate(r, custom, func(as *schema.GroupVersionKind) bool { return as == nil || as.Kind != "Table" })
}

// NegotiatePlain is for documents of the server's own: they have no other
// shapes, and what asks for one is passed over.
func NegotiatePlain(r *http.Request) (Accept, error) {
	if header := r.Header.Get("Accept"); header != "" {
		return choose(r, header, false, func(as *schema.GroupVersionKind) bool { return as == nil })
	}
	return Accept{Pretty: isPretty(r)}, nil
}

// Representable refuses a request that names no form the server has at all;
// the paths that upstream's router guards do so before anything else. The
// error is a 406.
func Representable(r *http.Request) error {
	if header := r.Header.Get("Accept"); header != "" && !representable(header) {
		available := names(accepted, "")
		if watching(r) {
			available += ", " + JSON.MediaType() + streamSuffix + ", " + Protobuf.MediaType() + streamSuffix
		}
		err := status(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
			"406: Not Acceptable\n\nAvailable representations: "+available)
		err.ErrStatus.Details = &metav1.StatusDetails{}
		return err
	}
	return nil
}

// negotiate picks the first clause that can be met; shapes says which may be
// asked for, nil being the object itself.
func negotiate(r *http.Request, custom bool, shapes func(*schema.GroupVersionKind) bool) (Accept, error) {
	header := r.Header.Get("Accept")
	if header == "" {
		return Accept{Pretty: isPretty(r)}, nil
	}
	if custom {
		// Their paths are behind no such router.
		return choose(r, header, custom, shapes)
	}
	if err := Representable(r); err != nil {
		return Accept{}, err
	}
	return choose(r, header, custom, shapes)
}

func choose(r *http.Request, header string, custom bool, shapes func(*schema.GroupVersionKind) bool) (Accept, error) {
	for _, clause := range goautoneg.ParseAccept(header) {
		for _, f := range accepted {
			kind, sub, _ := strings.Cut(f.MediaType(), "/")
			if (clause.Type == kind && (clause.SubType == sub || clause.SubType == "*")) || (clause.Type == "*" && clause.SubType == "*") {
				a, ok := clauseParams(clause.Params, f, custom)
				if ok && shapes(a.As) {
					a.Pretty = a.Pretty || isPretty(r)
					return a, nil
				}
			}
		}
	}
	return Accept{}, status(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
		"only the following media types are accepted: "+names(accepted, ""))
}

const streamSuffix = ";stream=watch"

// watching says whether the request could be a watch: those paths have more
// forms.
func watching(r *http.Request) bool {
	in := request.From(r.Context())
	return in != nil && (in.Verb == "watch" || in.Verb == "list")
}

// representable says whether the header names any form at all that the server
// knows.
func representable(header string) bool { return Names(header, accepted...) }

// Names says whether an Accept header names one of the formats, as upstream's
// router reads it: ranges other than */* do not count.
func Names(header string, formats ...Format) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, _, _ := strings.Cut(part, ";")
		name = strings.TrimSpace(name)
		if name == "*/*" || slices.ContainsFunc(formats, func(f Format) bool { return name == f.MediaType() }) {
			return true
		}
	}
	return false
}

func clauseParams(params map[string]string, f Format, custom bool) (Accept, bool) {
	a := Accept{Format: f}
	as := func() *schema.GroupVersionKind {
		if a.As == nil {
			a.As = &schema.GroupVersionKind{}
		}
		return a.As
	}
	for key, value := range params {
		switch key {
		case "as":
			as().Kind = value
		case "g":
			as().Group = value
		case "v":
			as().Version = value
		case "stream":
			if value != "" && value != "watch" {
				return a, false
			}
			a.Stream = value == "watch"
		case "sv":
			if value != "" && value != "v1" {
				return a, false
			}
		case "pretty":
			a.Pretty = value == "1"
		}
	}
	if a.As == nil {
		return a, !custom || f != Protobuf
	}
	if gv := a.As.GroupVersion(); gv != metav1.SchemeGroupVersion && gv != metav1beta1.SchemeGroupVersion {
		return a, false
	}
	switch a.As.Kind {
	case "Table":
		return a, f != Protobuf
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		return a, true
	}
	return a, false
}

// isPretty says whether the query or the look of the client asks for indented
// JSON.
func isPretty(r *http.Request) bool {
	if strings.Contains(r.URL.RawQuery, "pretty") {
		if value := r.URL.Query().Get("pretty"); value != "" {
			on, err := strconv.ParseBool(value)
			return err == nil && on
		}
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// ContentType returns the format of a request's body. The error is a 415.
func ContentType(r *http.Request, custom bool) (Format, error) {
	header := r.Header.Get("Content-Type")
	if header == "" {
		return JSON, nil
	}
	if name, _, err := mime.ParseMediaType(header); err == nil {
		for _, f := range formats(custom) {
			if f.MediaType() == name {
				return f, nil
			}
		}
	}
	return 0, status(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType,
		fmt.Sprintf("the body of the request was in an unknown format - accepted media types include: %s", names(accepted, "")))
}

func status(code int32, reason metav1.StatusReason, message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}}
}
