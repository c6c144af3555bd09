// SPDX-License-Identifier: Apache-2.0

// Package verb answers requests for resources: get, list, watch, create,
// update, patch, delete and deletecollection, of objects and their
// subresources, over HTTP and, without it, for clients in the same process.
//
// The API server puts it behind its filters, which have authenticated and
// authorized the request. It decodes and encodes; what a write means, package
// object knows.
package verb

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/watch"
)

// Limits of a request.
const (
	// maxBody bounds request bodies, as upstream does.
	maxBody = 3 << 20
	// maxDuration bounds how long a write may take.
	maxDuration = 34 * time.Second
)

// Config configures Verbs. Objects, Cache and Kinds are needed.
type Config struct {
	Objects *object.Objects
	Cache   *cache.Cache
	Kinds   *request.Kinds
	// Subresources are those with a type or a protocol of their own.
	Subresources []Subresource
	// Virtual are the resources that are created but never stored.
	Virtual map[schema.GroupResource]Virtual
	// Computed are the resources that are found out when asked for.
	Computed map[schema.GroupResource]Computed
	// Tokens issues tokens of ServiceAccounts; nil leaves their subresource out.
	Tokens TokenIssuer
	// MinWatchTimeout bounds watches that name no timeout; 30 minutes when zero.
	MinWatchTimeout time.Duration
	// WatchSent, when set, returns what counts the events of a watch.
	WatchSent func(in *request.Info) func(bytes int)
	// Stopping ends when the server shuts down, and watches with it.
	Stopping context.Context //nolint:containedctx // of the server, not of a call
	Logger   *slog.Logger
}

// Virtual answers the creation of an object that is never stored, such as a
// TokenReview. obj is the callee's own; it returns the object to answer with.
type Virtual func(ctx context.Context, in *request.Info, obj runtime.Object) (runtime.Object, error)

// Subresource is a subresource with a type or a protocol of its own.
type Subresource struct {
	Resource schema.GroupResource
	Name     string
	// GVK is the kind of its objects.
	GVK schema.GroupVersionKind
	New func() runtime.Object
	// Accepts, when set, says that a body of that kind may stand for one of GVK.
	Accepts func(schema.GroupVersionKind) bool
	// Verbs are served as discovery shows them.
	Verbs []string
	// Create answers a POST; name is the object's.
	Create func(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, error)
	// Get answers a GET.
	Get func(ctx context.Context, in *request.Info) (runtime.Object, error)
	// Connect takes the whole connection, whatever the method.
	Connect func(w http.ResponseWriter, r *http.Request, in *request.Info) error
	// Methods are what Connect is served for.
	Methods []string
}

// Verbs answers requests. All methods are safe for concurrent use.
type Verbs struct {
	Config
	subresources map[subKey]*Subresource
	dispatcher   watch.Dispatcher
}

type subKey struct {
	resource schema.GroupResource
	name     string
}

// New returns Verbs.
func New(cfg Config) *Verbs {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	v := &Verbs{Config: cfg, subresources: map[subKey]*Subresource{}}
	v.Subresources = append(v.builtin(), cfg.Subresources...)
	v.Virtual = maps.Clone(cfg.Virtual)
	if v.Virtual == nil {
		v.Virtual = map[schema.GroupResource]Virtual{}
	}
	v.Virtual[schema.GroupResource{Resource: "bindings"}] = v.legacyBind
	for i := range v.Subresources {
		s := &v.Subresources[i]
		v.subresources[subKey{s.Resource, s.Name}] = s
	}
	return v
}

// ServeHTTP answers a request whose Info is in the context.
func (v *Verbs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in := request.From(r.Context())
	if in == nil || in.Served == nil || !inScope(in) {
		if in != nil && in.Served != nil && in.Kind.Custom {
			http.Error(w, "404 page not found", http.StatusNotFound)
			return
		}
		fail(w, r, ErrNotFound())
		return
	}
	if in.Subresource != "" {
		v.serveSubresource(w, r, in)
		return
	}
	if objects := v.Computed[in.Kind.GroupResource()]; objects != nil {
		warnDeprecated(r.Context(), in)
		if err := v.computed(w, r, in, objects); err != nil {
			fail(w, r, err)
		}
		return
	}
	everywhere := in.Kind.Namespaced && in.Namespace == ""
	if everywhere && !serves(in.Kind.Verbs, "list") {
		fail(w, r, ErrNotFound()) // the path exists for lists alone
		return
	}
	if !serves(in.Kind.Verbs, in.Verb) {
		fail(w, r, notSupported(in))
		return
	}
	if in.Kind.Custom && everywhere && (in.Verb == "create" || in.Verb == "deletecollection") {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	if in.Kind.Custom && in.Name == "" && (in.Verb == "patch" || in.Verb == "update") {
		fail(w, r, apierrors.NewBadRequest("name must be provided"))
		return
	}
	if (in.Verb == "update" || in.Verb == "patch") && in.Name == "" || everywhere && (in.Verb == "create" || in.Verb == "deletecollection") {
		fail(w, r, ErrMethodNotAllowed())
		return
	}
	warnDeprecated(r.Context(), in)
	var err error
	switch in.Verb {
	case "get":
		err = v.get(w, r, in)
	case "list":
		err = v.list(w, r, in)
	case "watch":
		err = v.watch(w, r, in)
	case "create":
		if in.Name != "" && !in.Kind.Custom { // upstream's custom resources are served without this
			err = ErrMethodNotAllowed()
			break
		}
		err = v.create(w, r, in)
	case "update":
		err = v.update(w, r, in)
	case "patch":
		err = v.patch(w, r, in)
	case "delete":
		err = v.delete(w, r, in)
	case "deletecollection":
		err = v.deleteCollection(w, r, in)
	default:
		err = ErrMethodNotAllowed()
	}
	if err != nil {
		fail(w, r, err)
	}
}

// inScope says whether the path names a namespace where objects have one, and
// none where they have not. Lists may go over all namespaces.
func inScope(in *request.Info) bool {
	if !in.Kind.Namespaced {
		return in.Namespace == "" || in.Kind.Name == "Namespace" && in.Kind.Group == ""
	}
	if in.Namespace != "" {
		return true
	}
	// A field selector may name the object of a list.
	return len(in.Parts) == 1 && (in.Verb == "list" || in.Verb == "watch" || in.Verb == "create" || in.Verb == "deletecollection")
}

// allVerbs are those of a kind that lists none.
var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

func serves(verbs []string, verb string) bool {
	if verbs == nil {
		verbs = allVerbs
	}
	for _, v := range verbs {
		if v == verb {
			return true
		}
	}
	return false
}

// deadline bounds a write.
func deadline(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), maxDuration)
}
