// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// auditor is a webhook that keeps the events it is sent, unless it is broken.
type auditor struct {
	broken  atomic.Bool
	refused atomic.Int32 // batches while it was broken
	config  string

	mu      sync.Mutex // guards both
	events  []auditv1.Event
	largest int // events in a batch
}

func newAuditor(t *testing.T) *auditor {
	t.Helper()
	a := &auditor{}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var list auditv1.EventList
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil || list.Kind != "EventList" || list.APIVersion != "audit.k8s.io/v1" {
			t.Errorf("batch of kind %q: %v", list.Kind, err)
		}
		if a.broken.Load() {
			a.refused.Add(1)
			http.Error(w, "broken", http.StatusBadGateway)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.events = append(a.events, list.Items...)
		a.largest = max(a.largest, len(list.Items))
	}))
	t.Cleanup(s.Close)
	a.config = kubeconfigOf(t, s)
	return a
}

// about are the events of requests to a path.
func (a *auditor) about(path string) []auditv1.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []auditv1.Event
	for _, e := range a.events {
		if strings.HasPrefix(e.RequestURI, path) {
			found = append(found, e)
		}
	}
	return found
}

// audited is a policy that records what happens in one namespace.
const audited = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: RequestResponse
  namespaces: [default]
  omitManagedFields: true
- level: None
`

const configMaps = "/api/v1/namespaces/default/configmaps"

func configMap(name, value string) string {
	return `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "` + name + `"}, "data": {"v": "` + value + `"}}`
}

// Events reach a webhook in batches of the size that was named, and those that
// waited while it was broken once it works again.
func TestAuditWebhookInBatches(t *testing.T) {
	t.Parallel()
	hook := newAuditor(t)
	p := start(t, "--audit-policy-file", write(t, "policy.yaml", audited), "--audit-webhook-config-file", hook.config,
		"--audit-webhook-batch-max-size", "3", "--audit-webhook-batch-max-wait", "50ms", "--audit-webhook-initial-backoff", "2s",
		"--audit-webhook-batch-throttle-qps", "1000", "--audit-webhook-batch-throttle-burst", "1000")
	root := p.as(t, "root")
	hook.broken.Store(true)
	root.must(configMaps, configMap("early", "value"))
	waitUntil(t, "no batch is sent", func() bool { return hook.refused.Load() > 0 })
	hook.broken.Store(false)
	for range 10 {
		root.do("GET", configMaps+"/early", "")
	}
	waitUntil(t, "events are lost", func() bool { return len(hook.about(configMaps)) == 11 })
	for _, e := range hook.about(configMaps) {
		if e.Level != "RequestResponse" || e.Stage != "ResponseComplete" || e.User.Username != "root" || e.ResponseObject == nil ||
			strings.Contains(string(e.ResponseObject.Raw), "managedFields") {
			t.Errorf("event %+v", e)
		}
	}
	if hook.mu.Lock(); hook.largest > 3 {
		t.Errorf("a batch of %d", hook.largest)
	}
	hook.mu.Unlock()
}

// A webhook that has to hear of every request stops them while it is broken; one
// that does not have to stops none, and the failures are counted.
func TestAuditWebhookThatBlocks(t *testing.T) {
	t.Parallel()
	for mode, stops := range map[string]bool{"blocking": false, "blocking-strict": true} {
		hook := newAuditor(t)
		policy := strings.Replace(audited, "omitStages: [RequestReceived]\n", "", 1)
		p := start(t, "--audit-policy-file", write(t, "policy.yaml", policy), "--audit-webhook-config-file", hook.config,
			"--audit-webhook-mode", mode, "--audit-webhook-initial-backoff", "1ms")
		root := p.as(t, "root")
		root.must(configMaps, configMap("one", "x"))
		if n := len(hook.about(configMaps)); n != 2 {
			t.Errorf("%s: %d events before the answer, want 2", mode, n)
		}
		hook.broken.Store(true)
		got := root.do("GET", configMaps+"/one", "")
		if stopped := got.code == 500; stopped != stops {
			t.Errorf("%s with a broken webhook: %v", mode, got)
		}
		if want := `Internal Server Error: "` + configMaps + `/one": failed to store audit event` + "\n"; stops && string(got.body) != want {
			t.Errorf("%s: %q, want %q", mode, got.body, want)
		}
		if got := root.do("GET", "/metrics", ""); !strings.Contains(string(got.body), `apiserver_audit_error_total{plugin="webhook"}`) {
			t.Errorf("%s: the failure is not counted", mode)
		}
	}
}

// Events that are too large go without their bodies, and say so.
func TestAuditTruncates(t *testing.T) {
	t.Parallel()
	hook := newAuditor(t)
	p := start(t, "--audit-policy-file", write(t, "policy.yaml", audited), "--audit-webhook-config-file", hook.config, "--audit-webhook-mode", "blocking",
		"--audit-webhook-truncate-enabled", "--audit-webhook-truncate-max-event-size", "4000", "--audit-webhook-truncate-max-batch-size", "8000")
	root := p.as(t, "root")
	root.must(configMaps, configMap("small", "x"))
	root.must(configMaps, configMap("large", strings.Repeat("x", 5000)))
	events := hook.about(configMaps)
	if len(events) != 2 {
		t.Fatalf("%d events", len(events))
	}
	for i, cut := range []bool{false, true} {
		e := events[i]
		if marked := e.Annotations["audit.k8s.io/truncated"] == "true"; marked != cut || (e.RequestObject == nil) != cut || (e.ResponseObject == nil) != cut {
			t.Errorf("event %d: truncated %v, bodies %v %v", i, marked, e.RequestObject != nil, e.ResponseObject != nil)
		}
	}
}

// What cannot be meant is refused at the start.
func TestAuditFlagsRefused(t *testing.T) {
	t.Parallel()
	hook := newAuditor(t)
	policy := write(t, "policy.yaml", audited)
	for flags, want := range map[string]string{
		"--audit-webhook-mode=sometimes":             `invalid audit webhook mode sometimes, allowed modes are "batch,blocking,blocking-strict"`,
		"--audit-webhook-batch-buffer-size=0":        "invalid audit batch webhook buffer size 0, must be a positive number",
		"--audit-webhook-batch-throttle-qps=-1":      "invalid audit batch webhook throttle QPS -1, must be a positive number",
		"--audit-webhook-truncate-max-event-size=0":  "invalid audit truncate webhook max event size 0, must be a positive number",
		"--audit-webhook-truncate-max-batch-size=10": "invalid audit truncate webhook max batch size 10, must be greater than max event size (102400)",
		"--audit-webhook-version=v2":                 "invalid group version",
		"--audit-webhook-config-file=/nowhere":       "initializing audit webhook",
		"--audit-policy-file=/nowhere":               `loading audit policy file: failed to read file path "/nowhere"`,
	} {
		err := refuseStart(t, "--audit-policy-file", policy, "--audit-webhook-config-file", hook.config, flags)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", flags, err, want)
		}
	}
	broken := write(t, "broken.yaml", strings.Replace(audited, "level: None", "level: Everything", 1))
	if err := refuseStart(t, "--audit-policy-file", broken, "--audit-webhook-config-file", hook.config); err == nil || !strings.Contains(err.Error(), "rules[1].level") {
		t.Errorf("a broken policy: %v", err)
	}
}
