// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	auditapi "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/randfill"
)

// An event reads as encoding/json writes it.
func TestAppendEvent(t *testing.T) {
	for seed := range int64(3000) {
		var e auditapi.Event
		fill := randfill.NewWithSeed(seed).NilChance(0.5).NumElements(0, 3).Funcs(
			func(u *runtime.Unknown, _ randfill.Continue) { u.Raw, u.ContentType = []byte(` { "a" : "<" } `), "" },
			func(m *metav1.MicroTime, c randfill.Continue) {
				if *m = (metav1.MicroTime{}); c.Bool() {
					*m = metav1.NewMicroTime(time.Unix(c.Int63n(1<<33), c.Int63n(1e9)))
				}
			},
			func(m *metav1.Time, c randfill.Continue) { *m = metav1.NewTime(time.Unix(c.Int63n(1<<33), 0)) },
			func(s *string, c randfill.Continue) {
				*s = []string{"", "plain", "a b/c?d=e", "<&>\"\\", "\x00\x7f\n", "\u00e9\u2028", "\xff"}[c.Intn(7)]
			},
			func(u *types.UID, c randfill.Continue) { *u = types.UID([]string{"", "1-2"}[c.Intn(2)]) },
			func(s *metav1.Status, c randfill.Continue) {
				if c.FillNoCustom(s); c.Bool() {
					*s = metav1.Status{Code: int32(c.Intn(2)) * 200}
				}
			},
		)
		fill.Fill(&e)
		e.TypeMeta = metav1.TypeMeta{}
		var v1 auditv1.Event
		if err := auditv1.Convert_audit_Event_To_v1_Event(&e, &v1, nil); err != nil {
			t.Fatal(err)
		}
		v1.Kind, v1.APIVersion = "Event", auditv1.SchemeGroupVersion.String()
		var want bytes.Buffer
		if err := json.NewEncoder(&want).Encode(&v1); err != nil {
			t.Fatal(err)
		}
		got, err := appendEvent(nil, &e)
		if err != nil || string(got)+"\n" != want.String() {
			t.Fatalf("seed %d: %v, got\n%s, want\n%s", seed, err, got, want.String())
		}
	}
}

// slow is a file that tells of a write, takes it when it is let, and counts.
type slow struct {
	come   chan struct{}
	let    chan error
	mu     sync.Mutex
	writes []string
}

func (s *slow) Write(p []byte) (int, error) {
	s.come <- struct{}{}
	err := <-s.let
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = append(s.writes, string(p))
	return len(p), err
}

// Requests that wait for a write share the next; each goes on when its own
// events are written, and each learns that they were not.
func TestSharedWrites(t *testing.T) {
	file := &slow{come: make(chan struct{}, 2), let: make(chan error)}
	backend := Log(file, false).(*log)
	results := make(chan bool, 100)
	send := func() { results <- backend.ProcessEvents(&auditapi.Event{Verb: "get"}) }
	waiting := func(n int) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; {
			backend.mu.Lock()
			have := 0
			if backend.gathering != nil {
				have = strings.Count(string(backend.gathering.lines), "\n")
			}
			backend.mu.Unlock()
			if have == n {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d wait, want %d", have, n)
			}
			time.Sleep(time.Millisecond)
		}
	}
	go send()
	<-file.come
	for range 50 {
		go send()
	}
	waiting(50)
	if len(results) > 0 {
		t.Fatal("a request went on before its event was written")
	}
	file.let <- nil
	if !<-results {
		t.Error("the first failed")
	}
	file.let <- errors.New("disk full")
	for range 50 {
		if <-results {
			t.Error("an event that is not written counts as written")
		}
	}
	if len(file.writes) != 2 || strings.Count(file.writes[1], "\n") != 50 {
		t.Errorf("%d writes", len(file.writes))
	}
}
