// SPDX-License-Identifier: Apache-2.0

package aggregate_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kaji/internal/apiserver/aggregate"
	"kaji/internal/client"
	"kaji/kajitest"
)

// services sends every Service to one address.
type services struct{ to *url.URL }

func (s services) ResolveEndpoint(string, string, int32) (*url.URL, error) { return s.to, nil }

var apiServices = client.Resource{GroupVersionResource: apiregistrationv1.SchemeGroupVersion.WithResource("apiservices")}

// eventually tries until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// extension is an aggregated API server with one resource. It answers with who
// asked.
func extension(t *testing.T) *httptest.Server {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/apis/fruits.example.com/v1" {
			_ = json.NewEncoder(w).Encode(metav1.APIResourceList{GroupVersion: "fruits.example.com/v1", APIResources: []metav1.APIResource{
				{Name: "apples", Kind: "Apple", Namespaced: true, Verbs: metav1.Verbs{"get", "list"}},
			}})
			return
		}
		_, _ = io.WriteString(w, r.Header.Get("X-Remote-User")+" "+strings.Join(r.Header["X-Remote-Group"], ",")+" "+r.Header.Get("Authorization"))
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// Every version served here has an APIService.
func TestLocal(t *testing.T) {
	c := kajitest.Start(t)
	eventually(t, "local APIServices", func() bool {
		obj, err := c.Client().Get(t.Context(), apiServices, "v1.apps", metav1.GetOptions{})
		return err == nil && obj.(*apiregistrationv1.APIService).Status.Conditions[0].Status == apiregistrationv1.ConditionTrue
	})
}

// Requests for another server's version reach it with the user's name and
// nothing the client claimed itself; a server that is gone is reported.
func TestRemote(t *testing.T) {
	c := kajitest.Start(t)
	server := extension(t)
	to, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(to.Host)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	kinds := c.Server().Kinds()
	a := aggregate.New(aggregate.Config{
		Cache: c.Server().Cache(), Kinds: kinds, Client: c.Client(), Services: services{to},
		Kind: kinds.Kind(apiregistrationv1.SchemeGroupVersion.WithKind("APIService")).Kind,
	})
	done := make(chan struct{})
	ctx := t.Context()
	go func() { defer close(done); _ = a.Run(ctx) }()
	t.Cleanup(func() { <-done })
	service := &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1.fruits.example.com"},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: "fruits.example.com", Version: "v1", GroupPriorityMinimum: 2000, VersionPriority: 15,
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "fruits", Port: new(int32)},
		},
	}
	*service.Spec.Service.Port = int32(number)
	service.Spec.InsecureSkipTLSVerify = true
	if _, err := c.Client().Create(t.Context(), apiServices, "", service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "discovery", func() bool {
		remote, _ := a.Remote()
		return len(remote) == 1 && len(remote[0].Document.Resources) == 1 && remote[0].Document.Resources[0].Resource == "apples"
	})
	r := httptest.NewRequest(http.MethodGet, "/apis/fruits.example.com/v1/namespaces/default/apples", nil)
	r.Header.Set("X-Remote-User", "forged")
	r.Header.Set("X-Remote-Extra-Scopes", "forged")
	r.Header.Set("Authorization", "Bearer secret")
	w := httptest.NewRecorder()
	if !a.Serves(r) {
		t.Fatal("the version is not served")
	}
	a.ServeHTTP(w, r)
	if got := w.Body.String(); w.Code != http.StatusOK || strings.Contains(got, "forged") || strings.Contains(got, "secret") {
		t.Errorf("got %d %q", w.Code, got)
	}
}
