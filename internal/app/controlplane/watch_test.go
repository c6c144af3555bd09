// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bufio"
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// A watch that waits goes on without its handler: it is counted as under way, and
// counted and recorded as done, when it ends, not before.
func TestWatchIsCountedUntilItEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	policy := "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Metadata, users: [root], verbs: [watch]}\n- {level: None}\n"
	p := start(t, "--audit-policy-file", write(t, "policy.yaml", policy), "--audit-log-path", path, "--audit-log-mode", "blocking")
	root := p.as(t, "root")
	root.client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	under := func() float64 {
		return root.counted(`apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps"`)
	}
	done := func() float64 {
		return root.counted(`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH"`)
	}
	stages := func() string {
		var all []string
		for _, e := range logged(t, path) {
			all = append(all, string(e.Stage))
		}
		return strings.Join(all, " ")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Address()+configMaps+"?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer root")
	answer, err := root.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.ProtoMajor != 2 {
		t.Fatalf("the answer came by %s", answer.Proto)
	}
	events := bufio.NewReader(answer.Body)
	for _, name := range []string{"a", "b", "c"} {
		root.must(configMaps, configMap(name, "x"))
		for {
			line, err := events.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(line, `"name":"`+name+`"`) {
				break
			}
		}
	}
	begun := string(auditv1.StageRequestReceived) + " " + string(auditv1.StageResponseStarted)
	if n, ended, got := under(), done(), stages(); n != 1 || ended != 0 || got != begun {
		t.Errorf("%v watches under way, %v done, stages %q; want 1, 0, %q", n, ended, got, begun)
	}
	cancel()
	waitUntil(t, "the watch does not end", func() bool { return under() == 0 })
	waitUntil(t, "the end is not counted", func() bool { return done() == 1 })
	waitUntil(t, "the end is not recorded", func() bool { return stages() == begun+" "+string(auditv1.StageResponseComplete) })
}
