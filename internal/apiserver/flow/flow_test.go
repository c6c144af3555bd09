// SPDX-License-Identifier: Apache-2.0

package flow_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/apiserver/flow"
	"kaji/internal/apiserver/request"
	"kaji/internal/client"
	"kaji/kajitest"
)

var limits = flow.Limits{ReadOnly: 400, Mutating: 200, Fair: true}

func start(t testing.TB, l flow.Limits) *kajitest.Cluster {
	t.Helper()
	return kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { c.Flow = &l }))
}

// until waits for what is true in the end.
func until(t *testing.T, what string, ok func(context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, ok); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func conditionOf(s *flowcontrolv1.FlowSchema) string {
	if len(s.Status.Conditions) == 0 {
		return ""
	}
	c := s.Status.Conditions[0]
	return string(c.Type) + "=" + string(c.Status) + " " + c.Reason + ": " + c.Message
}

// TestObjects says that a server has upstream's objects, and that the status of
// a schema tells whether its level exists.
func TestObjects(t *testing.T) {
	cluster := start(t, limits)
	schemas := client.For[*flowcontrolv1.FlowSchema](cluster.Client())
	levels := client.For[*flowcontrolv1.PriorityLevelConfiguration](cluster.Client())
	until(t, "bootstrap objects", func(ctx context.Context) (bool, error) {
		all, err := schemas.List(ctx, "", metav1.ListOptions{})
		if err != nil || len(all) != 11 {
			return false, err
		}
		for _, s := range all {
			want := `Dangling=False Found: This FlowSchema references the PriorityLevelConfiguration object named "` + s.Spec.PriorityLevelConfiguration.Name + `" and it exists`
			if conditionOf(s) != want || s.Annotations["apf.kubernetes.io/autoupdate-spec"] != "true" {
				return false, nil
			}
		}
		return true, nil
	})
	if all, err := levels.List(t.Context(), "", metav1.ListOptions{}); err != nil || len(all) != 8 {
		t.Errorf("%d levels, %v", len(all), err)
	}
	if _, err := schemas.Create(t.Context(), schema("lost", "nowhere")); err != nil {
		t.Fatal(err)
	}
	untilCondition(t, schemas, "lost", `Dangling=True NotFound: This FlowSchema references the PriorityLevelConfiguration object named "nowhere" but there is no such object`)
	if _, err := levels.Create(t.Context(), level("nowhere")); err != nil {
		t.Fatal(err)
	}
	untilCondition(t, schemas, "lost", `Dangling=False Found: This FlowSchema references the PriorityLevelConfiguration object named "nowhere" and it exists`)
}

func untilCondition(t *testing.T, schemas client.Typed[*flowcontrolv1.FlowSchema], name, want string) {
	t.Helper()
	until(t, want, func(ctx context.Context) (bool, error) {
		s, err := schemas.Get(ctx, "", name)
		return err == nil && conditionOf(s) == want, err
	})
}

func schema(name, level string) *flowcontrolv1.FlowSchema {
	return &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level},
			MatchingPrecedence:         100,
			DistinguisherMethod:        &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:      []flowcontrolv1.Subject{{Kind: "Group", Group: &flowcontrolv1.GroupSubject{Name: "tenants"}}},
				ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}, ClusterScope: true}},
			}},
		},
	}
}

func level(name string) *flowcontrolv1.PriorityLevelConfiguration {
	shares, none := int32(1), int32(0)
	return &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{Type: "Limited", Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: &shares, LendablePercent: &none, BorrowingLimitPercent: &none,
			LimitResponse: flowcontrolv1.LimitResponse{Type: "Queue", Queuing: &flowcontrolv1.QueuingConfiguration{Queues: 64, HandSize: 4, QueueLengthLimit: 5}},
		}},
	}
}

// asker sends requests of users through a station.
type asker struct {
	station http.Handler
	kinds   *request.Kinds
}

func (a *asker) ask(ctx context.Context, path, name string, groups ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	in, err := request.Parse(r, a.kinds)
	if err != nil {
		panic(err) // the tests' paths are right
	}
	who := &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
	w := httptest.NewRecorder()
	a.station.ServeHTTP(w, r.WithContext(request.WithUser(request.With(r.Context(), in), who)))
	return w
}

// TestFlood says that one user's flood is refused with 429 while another user's
// requests, of the same level, are served without waiting for it to end.
func TestFlood(t *testing.T) {
	cluster := kajitest.Start(t)
	c := cluster.Client()
	if _, err := client.For[*flowcontrolv1.PriorityLevelConfiguration](c).Create(t.Context(), level("tenants")); err != nil {
		t.Fatal(err)
	}
	made, err := client.For[*flowcontrolv1.FlowSchema](c).Create(t.Context(), schema("tenants", "tenants"))
	if err != nil {
		t.Fatal(err)
	}
	f := flow.New(flow.Config{Limits: limits, Client: c, Count: func(*request.Info) int { return 0 }, LongRunning: apiserver.LongRunning, Timeout: 4 * time.Minute})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Run(ctx) })
	defer running.Wait()
	defer stop()

	hold := make(chan struct{})
	a := &asker{kinds: request.NewKinds(catalog.All()...)}
	a.station = f.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if request.User(r.Context()).GetName() == "flood" {
			<-hold
		}
		w.WriteHeader(http.StatusOK)
	}))
	const path = "/api/v1/namespaces/default/pods/a"
	until(t, "the level is in force", func(ctx context.Context) (bool, error) {
		return a.ask(ctx, path, "quiet", "tenants").Header().Get("X-Kubernetes-PF-FlowSchema-UID") == string(made.UID), nil
	})
	answers := make(chan *httptest.ResponseRecorder, 100)
	for range cap(answers) {
		running.Go(func() { answers <- a.ask(ctx, path, "flood", "tenants") })
	}
	var refused *httptest.ResponseRecorder
	for range cap(answers) - 3 - 4*5 { // 3 seats, four queues of five
		refused = <-answers
	}
	if refused.Code != http.StatusTooManyRequests || refused.Header().Get("Retry-After") != "1" || strings.TrimSpace(refused.Body.String()) != "Too many requests, please try again later." {
		t.Errorf("%d %q %v", refused.Code, refused.Body, refused.Header())
	}
	// The flood now fills all seats and its queues, and its requests end one by
	// one. The quiet user's turn comes with the first few of them.
	quiet := make(chan *httptest.ResponseRecorder, 1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(f.Metrics())
	queued := waiting(t, registry)
	running.Go(func() { quiet <- a.ask(ctx, path, "quiet", "tenants") })
	until(t, "the quiet user waits", func(context.Context) (bool, error) { return waiting(t, registry) == queued+1, nil })
	ended := 0
	for served := false; !served; {
		select {
		case w := <-quiet:
			served = true
			if w.Code != http.StatusOK {
				t.Errorf("the quiet user got %d", w.Code)
			}
		case hold <- struct{}{}:
			if ended++; ended > 15 {
				t.Error("the quiet user starves")
				served = true
			}
		}
	}
	if w := a.ask(ctx, path, "admin", user.SystemPrivilegedGroup); w.Code != http.StatusOK {
		t.Errorf("an exempt request got %d", w.Code)
	}
	close(hold)
}

// waiting returns how many requests wait.
func waiting(t *testing.T, registry *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "apiserver_flowcontrol_current_inqueue_requests" {
			for _, m := range family.GetMetric() {
				n += m.GetGauge().GetValue()
			}
		}
	}
	return n
}

// TestInflight says that without fairness requests in flight are bounded, those
// of administrators excepted.
func TestInflight(t *testing.T) {
	f := flow.New(flow.Config{Limits: flow.Limits{ReadOnly: 1, Mutating: 1}, LongRunning: apiserver.LongRunning, Timeout: time.Minute})
	hold, in := make(chan struct{}), make(chan struct{}, 2)
	a := &asker{kinds: request.NewKinds(catalog.All()...)}
	a.station = f.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		in <- struct{}{}
		<-hold
		w.WriteHeader(http.StatusOK)
	}))
	var running sync.WaitGroup
	running.Go(func() { a.ask(t.Context(), "/api/v1/pods", "a") })
	<-in
	if w := a.ask(t.Context(), "/api/v1/pods", "b"); w.Code != http.StatusTooManyRequests {
		t.Errorf("%d", w.Code)
	}
	running.Go(func() {
		if w := a.ask(t.Context(), "/api/v1/pods", "c", user.SystemPrivilegedGroup); w.Code != http.StatusOK {
			t.Errorf("an administrator got %d", w.Code)
		}
	})
	<-in
	close(hold)
	running.Wait()
}

// TestKept says that what every cluster has comes back when it is deleted or
// changed, except where an annotation says that it is the user's.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := start(t, limits)
		levels := client.For[*flowcontrolv1.PriorityLevelConfiguration](cluster.Client())
		synctest.Wait()
		if err := levels.Delete(t.Context(), "", "catch-all", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		change := func(name, annotation string) {
			l, err := levels.Get(t.Context(), "", name)
			if err != nil {
				t.Fatal(err)
			}
			l = l.DeepCopy()
			shares := int32(7)
			l.Spec.Limited.NominalConcurrencyShares = &shares
			l.Annotations["apf.kubernetes.io/autoupdate-spec"] = annotation
			if _, err := levels.Update(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}
		change("system", "true")
		change("node-high", "false")
		time.Sleep(2 * time.Minute)
		for name, want := range map[string]int32{"catch-all": 5, "system": 30, "node-high": 7} {
			l, err := levels.Get(t.Context(), "", name)
			if err != nil || *l.Spec.Limited.NominalConcurrencyShares != want {
				t.Errorf("%s: %+v, %v", name, l.Spec.Limited, err)
			}
		}
	})
}

func BenchmarkStation(b *testing.B) {
	cluster := kajitest.Start(b)
	f := flow.New(flow.Config{Limits: limits, Client: cluster.Client(), Count: func(*request.Info) int { return 100 }, LongRunning: apiserver.LongRunning, Timeout: time.Minute})
	h := f.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	kinds := request.NewKinds(catalog.All()...)
	for name, groups := range map[string][]string{"queued": {user.AllAuthenticated}, "exempt": {user.SystemPrivilegedGroup}} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/namespaces/default/pods/a", nil)
			in, err := request.Parse(r, kinds)
			if err != nil {
				b.Fatal(err)
			}
			r = r.WithContext(request.WithUser(request.With(r.Context(), in), &user.DefaultInfo{Name: "a", Groups: groups}))
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}
