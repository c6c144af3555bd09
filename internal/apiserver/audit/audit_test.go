// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"kaji/internal/apiserver"
	"kaji/internal/apiserver/audit"
	"kaji/internal/client"
	"kaji/kajitest"
)

// events is what a log writes to.
type events struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (e *events) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.Write(p)
}

// of returns the events about a path, in order.
func (e *events) of(t *testing.T, uri string) (out []auditv1.Event) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for line := range strings.Lines(e.text.String()) {
		var one auditv1.Event
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if path, _, _ := strings.Cut(one.RequestURI, "?"); path == uri {
			out = append(out, one)
		}
	}
	return out
}

func start(t *testing.T, policy string, out io.Writer, strict bool) *kajitest.Cluster {
	t.Helper()
	rules, err := audit.LoadPolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\n" + policy))
	if err != nil {
		t.Fatal(err)
	}
	backend := audit.Log(out, false)
	if !strict {
		backend = audit.Lenient(backend)
	}
	station := audit.New(audit.Config{Policy: rules, Backend: backend, LongRunning: apiserver.LongRunning})
	return kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { c.Audit = station }))
}

const policy = `
omitManagedFields: true
rules:
- level: None
  users: ["system:apiserver"]
- level: Metadata
  resources: [{group: "", resources: ["secrets"]}]
- level: Request
  verbs: ["update"]
- level: RequestResponse
  omitStages: ["RequestReceived"]
`

var configMaps = client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("configmaps"), Namespace: "default"}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: map[string]string{"k": "word"}}
}

// TestLevels says that a request is recorded as far as the first rule that
// names it wants, over HTTP in any form and in the same process.
func TestLevels(t *testing.T) {
	out := &events{}
	cluster := start(t, policy, out, false)
	ctx := t.Context()
	plain := cluster.RESTConfig()
	binary := rest.CopyConfig(plain)
	binary.ContentType, binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	for name, config := range map[string]*rest.Config{"json": plain, "protobuf": binary} {
		maps := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("default")
		made, err := maps.Create(ctx, configMap(name), metav1.CreateOptions{FieldManager: "me"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.Patch(ctx, name, types.MergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.List(ctx, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		checkLevels(t, out, name)
		out.mu.Lock()
		out.text.Reset()
		out.mu.Unlock()
	}
	client := kubernetes.NewForConfigOrDie(plain)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "hush"}}
	if _, err := client.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got := out.of(t, "/api/v1/namespaces/default/secrets")
	if len(got) != 2 || got[0].Stage != "RequestReceived" || got[1].Stage != "ResponseComplete" || got[1].ObjectRef.Name != "s" {
		t.Fatalf("secret: %+v", got)
	}
	if got[1].RequestObject != nil || got[1].ResponseObject != nil {
		t.Errorf("a secret's body is recorded: %s", got[1].RequestObject.Raw)
	}
}

func checkLevels(t *testing.T, out *events, name string) {
	t.Helper()
	const all = "/api/v1/namespaces/default/configmaps"
	for i, got := range out.of(t, all) {
		if got.Level != "RequestResponse" || got.Stage != "ResponseComplete" || got.User.Username != "system:admin" || got.AuditID == "" {
			t.Errorf("%s: %+v", name, got)
		}
		if got.ResponseObject == nil || strings.Contains(string(got.ResponseObject.Raw), "managedFields") || !strings.Contains(string(got.ResponseObject.Raw), `"word"`) {
			t.Errorf("%s: response %v", name, got.ResponseObject)
		}
		if i == 0 && (got.Verb != "create" || got.ResponseStatus.Code != 201 || got.ObjectRef.Name != name || !strings.Contains(string(got.RequestObject.Raw), `"word"`)) {
			t.Errorf("%s: create %+v", name, got)
		}
		if i == 1 && got.Verb != "list" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	var verbs []string
	for _, got := range out.of(t, all+"/"+name) {
		verbs = append(verbs, got.Verb+" "+string(got.Stage))
		switch {
		case got.Verb == "update" && got.ResponseObject != nil:
			t.Errorf("%s: level Request with a response", name)
		case got.Stage == "ResponseComplete" && got.RequestObject == nil:
			t.Errorf("%s: %s without its request", name, got.Verb)
		}
	}
	if want := "update RequestReceived,update ResponseComplete,patch ResponseComplete"; strings.Join(verbs, ",") != want {
		t.Errorf("%s: %v, want %s", name, verbs, want)
	}
}

// TestWatch says that a watch is recorded when it starts and when it ends, and
// an error with its status.
func TestWatch(t *testing.T) {
	out := &events{}
	cluster := start(t, policy, out, false)
	client := kubernetes.NewForConfigOrDie(cluster.RESTConfig())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{TimeoutSeconds: new(int64)})
	if err != nil {
		t.Fatal(err)
	}
	const pods = "/api/v1/namespaces/default/pods"
	if got := out.of(t, pods); len(got) != 1 || got[0].Stage != "ResponseStarted" || got[0].ResponseStatus.Code != 200 {
		t.Errorf("watch: %+v", got)
	}
	w.Stop()
	if _, err := client.CoreV1().Pods("default").Get(ctx, "none", metav1.GetOptions{}); err == nil {
		t.Fatal("there is no such pod")
	}
	got := out.of(t, pods+"/none")
	if len(got) != 1 || got[0].ResponseStatus.Code != 404 || got[0].ResponseStatus.Message != `pods "none" not found` {
		t.Errorf("error: %+v", got)
	}
}

// TestDirect says that a component in the same process is recorded as one that
// comes over HTTP.
func TestDirect(t *testing.T) {
	out := &events{}
	cluster := start(t, policy, out, false)
	client := cluster.Client()
	if _, err := client.Create(t.Context(), configMaps, "", configMap("near"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got := out.of(t, "/api/v1/namespaces/default/configmaps")
	if len(got) != 1 || got[0].Verb != "create" || got[0].ResponseStatus.Code != 201 || got[0].ObjectRef.Name != "near" || got[0].User.Username != "system:admin" {
		t.Fatalf("%+v", got)
	}
	if got[0].RequestObject == nil || got[0].ResponseObject == nil {
		t.Errorf("without bodies: %+v", got[0])
	}
}

// failing is a disk that is full once it should be.
type failing struct {
	mu   sync.Mutex
	full bool
}

func (f *failing) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

// TestFullDisk says that a full disk stops requests in strict mode only.
func TestFullDisk(t *testing.T) {
	for _, strict := range []bool{false, true} {
		out := &failing{}
		cluster := start(t, "rules: [{level: Metadata}]", out, strict)
		client := kubernetes.NewForConfigOrDie(cluster.RESTConfig())
		out.mu.Lock()
		out.full = true
		out.mu.Unlock()
		result := client.RESTClient().Get().AbsPath("/api/v1/namespaces/default").Do(t.Context())
		var code int
		result.StatusCode(&code)
		if want := map[bool]int{false: http.StatusOK, true: http.StatusInternalServerError}[strict]; code != want {
			t.Errorf("strict %v: %d, want %d", strict, code, want)
		}
		_, err := cluster.Client().Create(t.Context(), configMaps, "", configMap("x"), metav1.CreateOptions{})
		if (err != nil) != strict {
			t.Errorf("strict %v: in process: %v", strict, err)
		}
	}
}

// TestPolicy says that policies that are wrong are refused.
func TestPolicy(t *testing.T) {
	for text, want := range map[string]string{
		"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []":                                    "loaded illegal policy with 0 rules",
		"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]":                       `rules[0].level: Unsupported value: "Loud"`,
		"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: [x]}]": "rules[0].nonResourceURLs",
		"{": "failed decoding",
	} {
		if _, err := audit.LoadPolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
