// SPDX-License-Identifier: Apache-2.0

// Package extension is a small API server for tests of aggregation: it serves
// one kind, Fruit of orchard.example.com/v1, as an extension API server has to,
// with discovery, OpenAPI and tables, and takes users from the front proxy
// alone. Tests register it by an APIService. It keeps fruits in memory.
package extension

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// Group and Version are what the server serves.
const (
	Group   = "orchard.example.com"
	Version = "v1"
)

const root = "/apis/" + Group + "/" + Version

// Creator is the annotation in which a fruit keeps who made it.
const Creator = Group + "/creator"

// Fruit is the one kind.
type Fruit struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              Spec `json:"spec"`
}

// Spec is what a fruit is like.
type Spec struct {
	Color string `json:"color"`
	Grams int64  `json:"grams"`
}

// Server is the API server. It is an http.Handler.
type Server struct {
	// Proxies are the certificate authorities of front proxies; nil believes
	// everybody.
	Proxies *x509.CertPool
	// OnlyV2 leaves out OpenAPI v3, OnlyPlain aggregated discovery, as old
	// servers do.
	OnlyV2, OnlyPlain bool

	mu       sync.Mutex
	revision int64           // guarded by mu
	fruits   []*Fruit        // guarded by mu; never changed, but replaced
	events   []event         // guarded by mu
	news     chan struct{}   // closed at the next event, guarded by mu
	asked    map[string]bool // paths, guarded by mu
}

type event struct {
	kind     string
	revision int64
	fruit    *Fruit
}

// Asked says whether somebody asked for a path.
func (s *Server) Asked(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.asked == nil {
		s.asked = map[string]bool{}
	}
	s.asked[r.URL.Path] = true
	s.mu.Unlock()
	user, ok := s.user(r)
	if !ok {
		fail(w, errors.NewUnauthorized("not by a front proxy"))
		return
	}
	switch {
	case r.URL.Path == root+"/fruits":
		s.collection(w, r, "", user)
	case strings.HasPrefix(r.URL.Path, root+"/namespaces/"):
		parts := strings.Split(strings.TrimPrefix(r.URL.Path, root+"/namespaces/"), "/")
		switch {
		case len(parts) == 2 && parts[1] == "fruits":
			s.collection(w, r, parts[0], user)
		case len(parts) == 3 && parts[1] == "fruits":
			s.object(w, r, parts[0], parts[2])
		default:
			http.NotFound(w, r)
		}
	default:
		s.describe(w, r)
	}
}

// user returns who asks, by the word of a front proxy.
func (s *Server) user(r *http.Request) (string, bool) {
	if s.Proxies != nil {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return "", false
		}
		_, err := r.TLS.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: s.Proxies, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil {
			return "", false
		}
	}
	name := r.Header.Get("X-Remote-User")
	return name, name != ""
}

func (s *Server) collection(w http.ResponseWriter, r *http.Request, namespace, user string) {
	switch {
	case r.Method == http.MethodPost && namespace != "":
		s.create(w, r, namespace, user)
	case r.Method != http.MethodGet:
		fail(w, errors.NewMethodNotSupported(resource, r.Method))
	case r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1":
		s.watch(w, r, namespace)
	default:
		s.list(w, r, namespace)
	}
}

var resource = schema.GroupResource{Group: Group, Resource: "fruits"}

func (s *Server) create(w http.ResponseWriter, r *http.Request, namespace, user string) {
	f := &Fruit{}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(f); err != nil {
		fail(w, errors.NewBadRequest(err.Error()))
		return
	}
	if f.Spec.Color == "" {
		fail(w, errors.NewBadRequest("spec.color: Required value"))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.findLocked(namespace, f.Name) != nil {
		fail(w, errors.NewAlreadyExists(resource, f.Name))
		return
	}
	f.Namespace, f.UID, f.CreationTimestamp = namespace, uuid.NewUUID(), metav1.NewTime(time.Now().Truncate(time.Second))
	metav1.SetMetaDataAnnotation(&f.ObjectMeta, Creator, user)
	s.fruits = append(slices.Clone(s.fruits), f)
	s.happenedLocked("ADDED", f)
	write(w, http.StatusCreated, f)
}

func (s *Server) object(w http.ResponseWriter, r *http.Request, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.findLocked(namespace, name)
	switch {
	case f == nil:
		fail(w, errors.NewNotFound(resource, name))
	case r.Method == http.MethodGet && wantsTable(r):
		write(w, http.StatusOK, table(f.ResourceVersion, f))
	case r.Method == http.MethodGet:
		write(w, http.StatusOK, f)
	case r.Method == http.MethodDelete:
		s.fruits = slices.DeleteFunc(slices.Clone(s.fruits), func(o *Fruit) bool { return o == f })
		last := *f
		s.happenedLocked("DELETED", &last)
		write(w, http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess,
			Details: &metav1.StatusDetails{Name: name, Group: Group, Kind: "fruits", UID: f.UID}})
	default:
		fail(w, errors.NewMethodNotSupported(resource, r.Method))
	}
}

func (s *Server) findLocked(namespace, name string) *Fruit {
	for _, f := range s.fruits {
		if f.Namespace == namespace && f.Name == name {
			return f
		}
	}
	return nil
}

// happenedLocked gives the object its revision and tells the watches.
func (s *Server) happenedLocked(kind string, f *Fruit) {
	s.revision++
	f.TypeMeta = metav1.TypeMeta{APIVersion: Group + "/" + Version, Kind: "Fruit"}
	f.ResourceVersion = strconv.FormatInt(s.revision, 10)
	s.events = append(s.events, event{kind, s.revision, f})
	if s.news != nil {
		close(s.news)
		s.news = nil
	}
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, namespace string) {
	s.mu.Lock()
	var items []*Fruit
	for _, f := range s.fruits {
		if selected(r, namespace, f) {
			items = append(items, f)
		}
	}
	revision := strconv.FormatInt(s.revision, 10)
	s.mu.Unlock()
	if wantsTable(r) {
		write(w, http.StatusOK, table(revision, items...))
		return
	}
	write(w, http.StatusOK, map[string]any{
		"apiVersion": Group + "/" + Version, "kind": "FruitList", "metadata": metav1.ListMeta{ResourceVersion: revision}, "items": append([]*Fruit{}, items...),
	})
}

func selected(r *http.Request, namespace string, f *Fruit) bool {
	if name, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name="); ok && name != f.Name {
		return false
	}
	return namespace == "" || namespace == f.Namespace
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request, namespace string) {
	since, _ := strconv.ParseInt(r.URL.Query().Get("resourceVersion"), 10, 64)
	w.Header().Set("Content-Type", "application/json")
	answer := json.NewEncoder(w)
	for {
		s.mu.Lock()
		var due []event
		for _, e := range s.events {
			if e.revision > since && selected(r, namespace, e.fruit) {
				due = append(due, e)
			}
		}
		since = max(since, s.revision)
		if s.news == nil {
			s.news = make(chan struct{})
		}
		news := s.news
		s.mu.Unlock()
		for _, e := range due {
			var object any = e.fruit
			if wantsTable(r) {
				object = table(e.fruit.ResourceVersion, e.fruit)
			}
			if answer.Encode(map[string]any{"type": e.kind, "object": object}) != nil {
				return
			}
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

func wantsTable(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "as=Table") }

func table(revision string, fruits ...*Fruit) metav1.Table {
	t := metav1.Table{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "Table"}, ListMeta: metav1.ListMeta{ResourceVersion: revision},
		ColumnDefinitions: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name"}, {Name: "Color", Type: "string"}, {Name: "Grams", Type: "integer"},
		},
		Rows: []metav1.TableRow{},
	}
	for _, f := range fruits {
		row := metav1.TableRow{Cells: []any{f.Name, f.Spec.Color, f.Spec.Grams}}
		row.Object.Raw, _ = json.Marshal(metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}, ObjectMeta: f.ObjectMeta,
		})
		t.Rows = append(t.Rows, row)
	}
	return t
}

func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

func fail(w http.ResponseWriter, err *errors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	write(w, int(status.Code), status)
}
