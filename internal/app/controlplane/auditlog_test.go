// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// ofRoot is a policy that records what one user does in one namespace, but not
// the server itself.
var ofRoot = strings.Replace(audited, "  namespaces:", "  users: [root]\n  namespaces:", 1)

// logged are the events in a log, of one line each.
func logged(t *testing.T, path string) []auditv1.Event {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var events []auditv1.Event
	for line := range bytes.SplitSeq(bytes.TrimSpace(data), []byte("\n")) {
		var e auditv1.Event
		if len(line) == 0 {
			continue
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		events = append(events, e)
	}
	return events
}

// counted is the sum of a counter's values, of all its labels.
func (a *asker) counted(name string) float64 {
	a.t.Helper()
	sum := 0.0
	for line := range strings.SplitSeq(string(a.do("GET", "/metrics", "").body), "\n") {
		if !strings.HasPrefix(line, name) {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &value); err != nil {
			a.t.Fatalf("%q: %v", line, err)
		}
		sum += value
	}
	return sum
}

// The log is its owner's only, and rotated by size: of old ones as many stay as
// was said, compressed if that was said.
func TestAuditLogRotates(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	path := filepath.Join(dir, "audit.log")
	p := start(t, "--audit-policy-file", write(t, "policy.yaml", ofRoot), "--audit-log-path", path,
		"--audit-log-maxsize", "1", "--audit-log-maxbackup", "2", "--audit-log-maxage", "30", "--audit-log-compress")
	root := p.as(t, "root")
	big := configMap("big", strings.Repeat("x", 300<<10))
	root.must(configMaps, big)
	for range 8 { // each of some 600 KB: the object as it came, and as it was stored
		if got := root.do("PUT", configMaps+"/big", big); got.code != 200 {
			t.Fatal(got)
		}
	}
	waitUntil(t, "old logs are not compressed, or stay", func() bool {
		all, err := filepath.Glob(filepath.Join(dir, "audit-*"))
		if err != nil {
			t.Fatal(err)
		}
		compressed, err := filepath.Glob(filepath.Join(dir, "audit-*.log.gz"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all) == 2 && len(compressed) == 2
	})
	files, err := filepath.Glob(filepath.Join(dir, "audit*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, path) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || info.Size() > 1<<20 {
			t.Errorf("%s: %o, %d bytes", file, info.Mode().Perm(), info.Size())
		}
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	old, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var event auditv1.Event
	if err := json.NewDecoder(old).Decode(&event); err != nil || event.RequestURI != configMaps+"/big" || event.ResponseObject == nil {
		t.Errorf("an old log: %v, %v", event, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info, err)
	}
}

// Without a size the log grows; the text form of old has one line an event.
func TestAuditLogForms(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	p := start(t, "--audit-policy-file", write(t, "policy.yaml", ofRoot), "--audit-log-path", path, "--audit-log-format", "legacy", "--audit-log-maxsize", "0")
	p.as(t, "root").must(configMaps, configMap("a", "secret words"))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{` AUDIT: id="`, ` stage="ResponseComplete"`, ` method="create"`, ` user="root"`, ` groups="\"system:masters\",\"system:authenticated\""`,
		` as="<self>"`, ` asgroups="<lookup>"`, ` namespace="default"`, ` uri="` + configMaps + `"`, ` response="201"`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("no %s in %q", part, data)
		}
	}
	if lines := strings.Count(string(data), "\n"); lines != 1 || strings.Contains(string(data), "secret words") {
		t.Errorf("%d lines: %q", lines, data)
	}
}

// Every mode of the log hands the same events over: batches after the time that
// was said, or when they are full, the others before the answer.
func TestAuditLogModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"batch", "blocking", "blocking-strict"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "audit.log")
			p := start(t, "--audit-policy-file", write(t, "policy.yaml", ofRoot), "--audit-log-path", path, "--audit-log-mode", mode,
				"--audit-log-batch-max-size", "2", "--audit-log-batch-max-wait", "1h", "--audit-log-batch-throttle-enable=false",
				"--audit-log-truncate-enabled", "--audit-log-truncate-max-event-size", "4000", "--audit-log-truncate-max-batch-size", "8000")
			root := p.as(t, "root")
			root.must(configMaps, configMap("small", "x"))
			if n := len(logged(t, path)); (n == 1) != (mode != "batch") {
				t.Errorf("%d events with the answer", n)
			}
			root.must(configMaps, configMap("large", strings.Repeat("x", 5000)))
			waitUntil(t, "a full batch is not written", func() bool { return len(logged(t, path)) == 2 })
			for i, e := range logged(t, path) {
				if cut := i == 1; (e.Annotations["audit.k8s.io/truncated"] == "true") != cut || (e.ResponseObject == nil) != cut {
					t.Errorf("event %d: %+v", i, e)
				}
			}
		})
	}
}

// Where the disk is full requests fail only if they must be recorded; what is
// lost is counted in every mode.
func TestAuditDiskIsFull(t *testing.T) {
	t.Parallel()
	for mode, code := range map[string]int{"batch": 200, "blocking": 200, "blocking-strict": 500} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := start(t, "--audit-policy-file", write(t, "policy.yaml", strings.Replace(ofRoot, "omitStages: [RequestReceived]\n", "", 1)),
				"--audit-log-path", "/dev/full", "--audit-log-maxsize", "0", "--audit-log-mode", mode, "--audit-log-batch-max-wait", "10ms")
			root := p.as(t, "root")
			if got := root.do("GET", configMaps, ""); got.code != code {
				t.Errorf("%v", got)
			}
			waitUntil(t, "what is lost is not counted", func() bool { return root.counted(`apiserver_audit_error_total{plugin="log"}`) > 0 })
		})
	}
}

// A webhook that does not answer holds nobody up: what waits for it has a bound,
// and what is beyond that is dropped and counted.
func TestAuditWebhookIsSlow(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-hold
	}))
	t.Cleanup(s.Close)
	t.Cleanup(release)
	p := start(t, "--audit-policy-file", write(t, "policy.yaml", ofRoot), "--audit-webhook-config-file", kubeconfigOf(t, s),
		"--audit-webhook-batch-buffer-size", "4", "--audit-webhook-batch-max-size", "1", "--audit-webhook-batch-throttle-qps", "1", "--audit-webhook-batch-throttle-burst", "1")
	root := p.as(t, "root")
	waitUntil(t, "events beyond the bound are not counted", func() bool {
		if got := root.do("GET", configMaps, ""); got.code != 200 {
			t.Fatal(got)
		}
		return root.counted(`apiserver_audit_error_total{plugin="buffered"}`) > 0
	})
	release()
}

// A flag of the log that cannot be meant is refused at the start.
func TestAuditLogFlagsRefused(t *testing.T) {
	t.Parallel()
	policy, path := write(t, "policy.yaml", ofRoot), filepath.Join(t.TempDir(), "audit.log")
	for flag, want := range map[string]string{
		"--audit-log-mode=sometimes":                             `invalid audit log mode sometimes, allowed modes are "batch,blocking,blocking-strict"`,
		"--audit-log-format=xml":                                 `invalid audit log format xml, allowed formats are "legacy,json"`,
		"--audit-log-maxage=-1":                                  "--audit-log-maxage -1 can't be a negative number",
		"--audit-log-maxbackup=-1":                               "--audit-log-maxbackup -1 can't be a negative number",
		"--audit-log-maxsize=-1":                                 "--audit-log-maxsize -1 can't be a negative number",
		"--audit-log-mode=batch --audit-log-batch-buffer-size=0": "invalid audit batch log buffer size 0, must be a positive number",
		"--audit-log-mode=batch --audit-log-batch-max-size=0":    "invalid audit batch log max batch size 0, must be a positive number",
		"--audit-log-batch-throttle-burst=0 --audit-log-mode=batch --audit-log-batch-throttle-enable --audit-log-batch-throttle-qps=1": "invalid audit batch log throttle burst 0, must be a positive number",
		"--audit-log-truncate-max-event-size=0":    "invalid audit truncate log max event size 0, must be a positive number",
		"--audit-log-version=audit.k8s.io/v1beta1": "invalid group version",
		"--audit-log-path=/dev/null/audit.log":     "--audit-log-path: ",
	} {
		args := append([]string{"--audit-policy-file", policy, "--audit-log-path", path}, strings.Fields(flag)...)
		if err := refuseStart(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", flag, err, want)
		}
	}
}
