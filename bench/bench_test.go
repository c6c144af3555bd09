// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kaji/internal/apiserver"
	"kaji/kajitest"
)

func target(t *testing.T) *Target {
	t.Helper()
	self, err := Watch(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// As servers are by default: pods need an account, though no controller makes one.
	cluster := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.DisabledAdmission = slices.DeleteFunc(c.DisabledAdmission, func(name string) bool { return name == "ServiceAccount" })
	}))
	return &Target{Name: "self", Config: cluster.RESTConfig(), Process: self}
}

func TestAPI(t *testing.T) {
	to := target(t)
	report := NewReport(nil)
	load := API{Objects: 20, Lists: 3, Watchers: 5, Events: 4, Workers: 3, Idle: time.Millisecond}
	if err := load.Run(t.Context(), to, report); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, res := range report.Results() {
		seen = append(seen, res.Operation)
		if res.Errors > 0 {
			t.Errorf("%s: %s", res.Operation, res.Error)
		}
		if strings.HasPrefix(res.Operation, "list") && res.Bytes == 0 {
			t.Errorf("%s: no bytes came", res.Operation)
		}
	}
	if got, want := strings.Join(seen, ","), strings.Join(Operations(), ","); got != want {
		t.Errorf("ran %s, want %s", got, want)
	}
	pods, err := kubernetes.NewForConfigOrDie(to.Config).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) > 0 {
		t.Errorf("%d pods are left (%v)", len(pods.Items), err)
	}
	for name, write := range map[string]func(*Report, *bytes.Buffer) error{
		"table": func(r *Report, b *bytes.Buffer) error { return r.Table(b) },
		"json":  func(r *Report, b *bytes.Buffer) error { return r.JSON(b) },
	} {
		var out bytes.Buffer
		if err := write(report, &out); err != nil || !strings.Contains(out.String(), "strategic patch") {
			t.Errorf("%s (%v):\n%s", name, err, out.String())
		}
	}
}

func TestFailuresAreCounted(t *testing.T) {
	to := target(t)
	report := NewReport(nil)
	load := API{Objects: 4, Workers: 2, Lists: 1, Only: []string{"get"}}
	c, err := to.client()
	if err != nil {
		t.Fatal(err)
	}
	r := &apiRun{API: load, c: c, pods: "/api/v1/namespaces/nowhere/pods"}
	report.Add(measure(t.Context(), "get", nil, 2, 4, r.get))
	if res := report.Results()[0]; res.Errors != 4 || !strings.Contains(res.Error, "404") {
		t.Errorf("got %d errors, the first %q", res.Errors, res.Error)
	}
	if err := (API{Only: []string{"fly"}}).Run(t.Context(), to, report); err == nil || !strings.Contains(err.Error(), `no operation "fly"`) {
		t.Errorf("an unknown operation: %v", err)
	}
}

func TestCRD(t *testing.T) {
	report := NewReport(nil)
	load := CRD{Definitions: 3, Bytes: 12 << 10, Versions: 2, Rules: 2, Objects: 5, Workers: 2, Idle: time.Millisecond}
	if err := load.Run(t.Context(), target(t), report); err != nil {
		t.Fatal(err)
	}
	for _, res := range report.Results() {
		if res.Errors > 0 {
			t.Errorf("%s: %s", res.Operation, res.Error)
		}
	}
}

// TestTraffic asks servers that answer, and some that do not.
func TestTraffic(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "www.example.org" {
			http.NotFound(w, r)
		}
	}))
	defer web.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: udp, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		if q.Question[0].Name == "there.example." {
			a.Answer = append(a.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 1)})
		}
		_ = w.WriteMsg(a)
	})}
	go func() { _ = names.ActivateAndServe() }()
	defer udp.Close()

	report := NewReport(nil)
	for _, run := range []func(context.Context, *Report) error{
		HTTP{URL: web.URL, Host: "www.example.org", Requests: 10, Workers: 2}.Run,
		HTTP{URL: web.URL, Requests: 4, Workers: 1, Fresh: true}.Run,
		DNS{Server: udp.LocalAddr().String(), Names: []string{"there.example", "elsewhere.example"}, Questions: 8, Workers: 2}.Run,
	} {
		if err := run(t.Context(), report); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{0, 4, 4} {
		if res := report.Results()[i]; res.Errors != want {
			t.Errorf("run %d: %d errors, want %d: %s", i, res.Errors, want, res.Error)
		}
	}
}

func TestEndpointsOfServices(t *testing.T) {
	s := endpointSlice(7, 1)
	if s.Labels["kubernetes.io/service-name"] != serviceName(7) || s.Endpoints[0].Addresses[0] != "10.244.1.2" {
		t.Errorf("%+v", s)
	}
}

// Writes are told from reads, from leases and reviews, and from one's own.
func TestWrites(t *testing.T) {
	var w writes
	for _, line := range []string{
		`apiserver_request_total{code="201",group="",resource="pods",subresource="",verb="POST",version="v1"} 3`,
		`apiserver_request_total{code="409",group="apps",resource="replicasets",subresource="status",verb="PUT",version="v1"} 1`,
		`apiserver_request_total{code="200",group="",resource="events",subresource="",verb="PATCH",version="v1"} 2`,
		`apiserver_request_total{code="200",group="",resource="pods",subresource="",verb="LIST",version="v1"} 50`,
		`apiserver_request_total{code="200",group="coordination.k8s.io",resource="leases",subresource="",verb="PUT",version="v1"} 50`,
		`apiserver_request_total{code="201",group="authorization.k8s.io",resource="subjectaccessreviews",subresource="",verb="POST",version="v1"} 50`,
		`apiserver_request_duration_seconds_count{resource="pods",verb="POST"} 50`,
		`# HELP apiserver_request_total verb="POST"`,
	} {
		w.count(line)
	}
	if w != (writes{events: 2, others: 4}) {
		t.Errorf("counted %+v", w)
	}
	c, err := target(t).client()
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.writes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.post(t.Context(), "/api/v1/namespaces/default/configmaps", map[string]any{"metadata": map[string]any{"name": "c"}}); err != nil {
		t.Fatal(err)
	}
	after, err := c.writes(t.Context())
	if got := after.since(before); err != nil || got != (writes{}) {
		t.Errorf("one's own write counts: %+v (%v)", got, err)
	}
}
