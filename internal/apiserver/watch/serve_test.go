// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/cache/cachetest"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/show"
)

// serving is a server of nothing but watches of pods.
type serving struct {
	*cachetest.Bench
	kind *api.Kind
	url  string
}

func serve(t *testing.T, cfg cache.Config) *serving {
	return serveBy(t, cfg, nil, httptest.NewServer)
}

func serveBy(t *testing.T, cfg cache.Config, d *Dispatcher, start func(http.Handler) *httptest.Server) *serving {
	kind := cachetest.Pods()
	s := &serving{Bench: cachetest.Start(t, cfg, kind), kind: kind}
	server := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := &request.Info{RequestInfo: apirequest.RequestInfo{Verb: "watch", Namespace: "ns"}, Served: cachetest.Served(kind)}
		r = r.WithContext(request.With(r.Context(), in))
		o, err := list.Parse(in, r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		accept, err := codec.Negotiate(r, false)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotAcceptable)
			return
		}
		form, err := show.New(in.Served, accept, r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := Serve(w, r, Config{Cache: s.Cache, Options: o, Form: form, Dispatcher: d}); err != nil {
			http.Error(w, err.Error(), http.StatusNotAcceptable)
		}
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *serving) get(t *testing.T, query, accept string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/?watch=true&"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return answer
}

// lines returns a function that reads the next event of a JSON watch in short.
func lines(t *testing.T, body io.Reader) func() string {
	b := bufio.NewReader(body)
	return func() string {
		t.Helper()
		line, err := b.ReadBytes('\n')
		if err != nil {
			return err.Error()
		}
		var e struct {
			Type   string
			Object struct {
				Kind              string
				Message           string
				ColumnDefinitions []any
				Rows              []any
				Metadata          metav1.ObjectMeta
			}
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		switch e.Object.Kind {
		case "Status":
			return e.Type + " " + e.Object.Message
		case "Table":
			return fmt.Sprintf("%s table %d columns %d rows", e.Type, len(e.Object.ColumnDefinitions), len(e.Object.Rows))
		}
		out := e.Type + " " + e.Object.Kind + " " + e.Object.Metadata.Name
		if e.Object.Metadata.Annotations[metav1.InitialEventsAnnotationKey] == "true" {
			out += "end of initial events"
		}
		return out
	}
}

func want(t *testing.T, next func() string, events ...string) {
	t.Helper()
	for _, event := range events {
		if got := next(); got != event {
			t.Errorf("got %q, want %q", got, event)
		}
	}
}

// A selector's watcher sees objects come and go as they begin and cease to match.
func TestSelectorMoves(t *testing.T) {
	s := serve(t, cache.Config{})
	r := s.Put(s.kind, cachetest.Pod("ns", "a", "", map[string]string{"app": "x"}))
	next := lines(t, s.get(t, fmt.Sprintf("labelSelector=app%%3Dx&resourceVersion=%d", r), "application/json").Body)
	s.Put(s.kind, cachetest.Pod("ns", "a", "n1", map[string]string{"app": "x"}))
	s.Put(s.kind, cachetest.Pod("ns", "a", "n1", map[string]string{"app": "y"}))
	s.Put(s.kind, cachetest.Pod("ns", "a", "n2", map[string]string{"app": "y"}))
	s.Put(s.kind, cachetest.Pod("other", "a", "n2", map[string]string{"app": "x"}))
	s.Put(s.kind, cachetest.Pod("ns", "a", "n2", map[string]string{"app": "x"}))
	s.Delete(s.kind, "ns", "a")
	want(t, next, "MODIFIED Pod a", "DELETED Pod a", "ADDED Pod a", "DELETED Pod a")
}

// What exists comes first, then the bookmark that says so, then what happens.
func TestInitialEvents(t *testing.T) {
	s := serve(t, cache.Config{})
	s.Put(s.kind, cachetest.Pod("ns", "b", "", nil))
	s.Put(s.kind, cachetest.Pod("ns", "a", "", nil))
	next := lines(t, s.get(t, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", "application/json").Body)
	want(t, next, "ADDED Pod a", "ADDED Pod b", "BOOKMARK Pod end of initial events")
	s.Put(s.kind, cachetest.Pod("ns", "c", "", nil))
	want(t, next, "ADDED Pod c")
}

func TestTooOld(t *testing.T) {
	s := serve(t, cache.Config{HistoryEvents: 1})
	r := s.Put(s.kind, cachetest.Pod("ns", "a", "", nil))
	if _, _, err := s.Cache.Get(t.Context(), s.kind, "ns", "a"); err != nil {
		t.Fatal(err)
	}
	var last int64
	for range 3 {
		last = s.Put(s.kind, cachetest.Pod("ns", "a", "", nil))
	}
	if err := s.Store.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	next := lines(t, s.get(t, fmt.Sprintf("resourceVersion=%d", r), "application/json").Body)
	want(t, next, fmt.Sprintf("ERROR too old resource version: %d (%d)", r, last), "EOF")
}

// A watched table has its columns in the first event alone.
func TestTable(t *testing.T) {
	s := serve(t, cache.Config{})
	s.Put(s.kind, cachetest.Pod("ns", "a", "", nil))
	next := lines(t, s.get(t, "", "application/json;as=Table;v=v1;g=meta.k8s.io").Body)
	s.Put(s.kind, cachetest.Pod("ns", "b", "", nil))
	want(t, next, "ADDED table 2 columns 1 rows", "ADDED table 0 columns 1 rows")
}

func TestTimeout(t *testing.T) {
	s := serve(t, cache.Config{})
	next := lines(t, s.get(t, "timeoutSeconds=1", "application/json").Body)
	want(t, next, "EOF")
}

// The watch ends when its kind goes.
func TestKindGoes(t *testing.T) {
	s := serve(t, cache.Config{})
	s.Put(s.kind, cachetest.Pod("ns", "a", "", nil))
	next := lines(t, s.get(t, "", "application/json").Body)
	want(t, next, "ADDED Pod a")
	s.Cache.Remove(s.kind)
	want(t, next, "EOF")
}

func TestProtobuf(t *testing.T) {
	s := serve(t, cache.Config{})
	s.Put(s.kind, cachetest.Pod("ns", "a", "n1", nil))
	answer := s.get(t, "", "application/vnd.kubernetes.protobuf")
	if got, want := answer.Header.Get("Content-Type"), "application/vnd.kubernetes.protobuf;stream=watch"; got != want {
		t.Errorf("content type: got %s, want %s", got, want)
	}
	var length [4]byte
	if _, err := io.ReadFull(answer.Body, length[:]); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(answer.Body, frame); err != nil {
		t.Fatal(err)
	}
	var event metav1.WatchEvent
	if err := event.Unmarshal(frame); err != nil {
		t.Fatal(err)
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal([]byte(strings.TrimPrefix(string(event.Object.Raw), "k8s\x00"))); err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := pod.Unmarshal(envelope.Raw); err != nil {
		t.Fatal(err)
	}
	if event.Type != "ADDED" || envelope.Kind != "Pod" || pod.Name != "a" || pod.Spec.NodeName != "n1" {
		t.Errorf("got %s %s %s on %s", event.Type, envelope.Kind, pod.Name, pod.Spec.NodeName)
	}
}

func TestWebSocket(t *testing.T) {
	s := serve(t, cache.Config{})
	s.Put(s.kind, cachetest.Pod("ns", "a", "", nil))
	conn, _, err := websocket.DefaultDialer.DialContext(t.Context(), strings.Replace(s.url, "http", "ws", 1)+"/?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, message, err := conn.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	want(t, lines(t, strings.NewReader(string(message))), "ADDED Pod a")
}
