// SPDX-License-Identifier: Apache-2.0

package aggregate_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/api"
	"kaji/internal/client"
	"kaji/kajitest"
	"kaji/test/extension"
)

var (
	apiServices = client.Resource{GroupVersionResource: apiregistrationv1.SchemeGroupVersion.WithResource("apiservices")}
	services    = client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("services")}
	slices      = client.Resource{GroupVersionResource: discoveryv1.SchemeGroupVersion.WithResource("endpointslices")}
)

const fruits = extension.Version + "." + extension.Group

// eventually tries until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// condition returns the condition of an APIService.
func condition(t *testing.T, c *kajitest.Cluster, name string) apiregistrationv1.APIServiceCondition {
	t.Helper()
	obj, err := c.Client().Get(t.Context(), apiServices, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if all := obj.(*apiregistrationv1.APIService).Status.Conditions; len(all) > 0 {
		return all[0]
	}
	return apiregistrationv1.APIServiceCondition{}
}

func create(t *testing.T, c *kajitest.Cluster, r client.Resource, obj api.Object) {
	t.Helper()
	r.Namespace = obj.GetNamespace()
	if _, err := c.Client().Create(t.Context(), r, "", obj, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// register makes the APIService, and for a port the Service that leads to it on
// this machine.
func register(t *testing.T, c *kajitest.Cluster, port int32) {
	t.Helper()
	if port != 0 {
		create(t, c, services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orchard"},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
		})
	} else {
		port = 443
	}
	create(t, c, apiServices, &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: fruits},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: extension.Group, Version: extension.Version, GroupPriorityMinimum: 2000, VersionPriority: 15, InsecureSkipTLSVerify: true,
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "orchard", Port: &port},
		},
	})
}

func portOf(l net.Listener) int32 { return int32(l.Addr().(*net.TCPAddr).Port) }

// serve starts an extension API server and returns its port.
func serve(t *testing.T, handler http.Handler) int32 {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(func() {
		_ = server.Listener.Close() // or else a watch that is cut begins again
		server.CloseClientConnections()
		server.Close()
	})
	return portOf(server.Listener)
}

// ask returns what the server answers to a GET.
func ask(t *testing.T, c *kajitest.Cluster, path string, headers ...string) (int, string) {
	t.Helper()
	config := c.RESTConfig()
	web, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := web.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
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
// nothing the client claimed itself; a redirect does not reach the client.
func TestForwards(t *testing.T) {
	c := kajitest.Start(t)
	own := &extension.Server{}
	register(t, c, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/who"):
			_ = json.NewEncoder(w).Encode(r.Header)
		case strings.HasSuffix(r.URL.Path, "/away"):
			http.Redirect(w, r, "https://elsewhere.example.com", http.StatusFound)
		default:
			own.ServeHTTP(w, r)
		}
	})))
	eventually(t, "Available", func() bool { return condition(t, c, fruits).Status == apiregistrationv1.ConditionTrue })
	const root = "/apis/" + extension.Group + "/" + extension.Version
	code, got := ask(t, c, root+"/who", "X-Remote-User", "forged", "X-Remote-Group", "forged", "X-Remote-Extra-Scopes", "forged")
	if code != http.StatusOK || strings.Contains(got, "forged") || strings.Contains(got, "Bearer") || !strings.Contains(got, `"X-Remote-User":["system:admin"]`) {
		t.Errorf("got %d %q", code, got)
	}
	code, got = ask(t, c, root+"/who", "X-Forwarded-For", "192.0.2.1", "Forwarded", "for=192.0.2.1")
	for _, want := range []string{`"Forwarded":["for=192.0.2.1"]`, `"X-Forwarded-For":["192.0.2.1, `, `"X-Forwarded-Uri":["` + root + `/who"]`, `"X-Forwarded-Proto":["https"]`} {
		if code != http.StatusOK || !strings.Contains(got, want) {
			t.Errorf("got %d %q without %s", code, got, want)
		}
	}
	if code, got := ask(t, c, root+"/away"); code != http.StatusBadGateway || !strings.Contains(got, "redirect") {
		t.Errorf("a redirect: got %d %q", code, got)
	}
}

// What a Service leads to is looked at when it changes, not when it is time to
// look again.
func TestConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := kajitest.Start(t)
		synctest.Wait()
		began := time.Now()
		expect := func(reason, message string) {
			t.Helper()
			synctest.Wait()
			got := condition(t, c, fruits)
			if got.Type != apiregistrationv1.Available || got.Status != apiregistrationv1.ConditionFalse || got.Reason != reason || got.Message != message {
				t.Errorf("got %+v, want %s: %s", got, reason, message)
			}
		}
		register(t, c, 0)
		expect("ServiceNotFound", `service/orchard in "default" is not present`)
		service := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orchard"},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "https", Port: 8443}}},
		}
		create(t, c, services, service)
		expect("ServicePortError", `service/orchard in "default" is not listening on port 443`)
		in := services
		in.Namespace = "default"
		obj, err := c.Client().Get(t.Context(), in, "orchard", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		service = obj.(*corev1.Service).DeepCopy()
		service.Spec.Ports[0].Port = 443
		if _, err := c.Client().Update(t.Context(), in, "orchard", service, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("EndpointsNotFound", `cannot find endpointslices for service/orchard in "default"`)
		create(t, c, slices, &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "orchard-1", Labels: map[string]string{discoveryv1.LabelServiceName: "orchard"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.2.3"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}}},
			Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To[int32](8443)}},
		})
		expect("MissingEndpoints", `endpointslices for service/orchard in "default" have no addresses with port name "https"`)
		if passed := time.Since(began); passed != 0 {
			t.Errorf("%v passed: conditions followed the clock", passed)
		}
	})
}

// A server that is down is called so, with what went wrong; requests and
// discovery do not wait for it. It is found soon when it comes, and it may be
// taken away again.
func TestComesUp(t *testing.T) {
	c := kajitest.Start(t)
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	register(t, c, portOf(l))
	eventually(t, "FailedDiscoveryCheck", func() bool {
		got := condition(t, c, fruits)
		return got.Reason == "FailedDiscoveryCheck" && strings.Contains(got.Message, "failing or missing response from https://localhost:") &&
			strings.Contains(got.Message, "connection refused")
	})
	const root = "/apis/" + extension.Group + "/" + extension.Version
	if code, got := ask(t, c, root+"/fruits"); code != http.StatusServiceUnavailable || got != "service unavailable\n" {
		t.Errorf("got %d %q", code, got)
	}
	if got := aggregated(t, c); !strings.Contains(got, `{"metadata":{"name":"orchard.example.com","creationTimestamp":null},"versions":[{"version":"v1","freshness":"Stale"}]}`) &&
		!strings.Contains(got, `{"metadata":{"name":"orchard.example.com"},"versions":[{"version":"v1","freshness":"Stale"}]}`) {
		t.Errorf("discovery: %s", got)
	}
	again, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("somebody took the port: %v", err)
	}
	server := httptest.NewUnstartedServer(&extension.Server{})
	server.Listener.Close()
	server.Listener = again
	server.StartTLS()
	defer server.Close()
	eventually(t, "Passed", func() bool { return condition(t, c, fruits).Reason == "Passed" })
	if got := aggregated(t, c); !strings.Contains(got, `"resource":"fruits"`) {
		t.Errorf("discovery: %s", got)
	}
	if code, got := ask(t, c, "/metrics"); code != http.StatusOK || !strings.Contains(got, `aggregator_unavailable_apiservice{name="`+fruits+`"} 0`) {
		t.Errorf("metrics: %d, without the APIService", code)
	}
	if err := c.Client().Delete(t.Context(), apiServices, fruits, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gone", func() bool { code, _ := ask(t, c, root+"/fruits"); return code == http.StatusNotFound })
}

func aggregated(t *testing.T, c *kajitest.Cluster) string {
	t.Helper()
	code, got := ask(t, c, "/apis", "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	if code != http.StatusOK {
		t.Fatalf("discovery: %d %s", code, got)
	}
	return got
}

// Documents of other servers are merged into the own ones, whatever forms these
// servers know.
func TestDocuments(t *testing.T) {
	for _, server := range []*extension.Server{{}, {OnlyPlain: true}, {OnlyV2: true, OnlyPlain: true}} {
		c := kajitest.Start(t)
		register(t, c, serve(t, server))
		eventually(t, "Available", func() bool { return condition(t, c, fruits).Status == apiregistrationv1.ConditionTrue })
		if got := aggregated(t, c); !strings.Contains(got, `"resource":"fruits"`) || !strings.Contains(got, `"resource":"deployments"`) {
			t.Errorf("%+v: discovery: %s", server, got)
		}
		place, err := place(t, c, "apis/"+extension.Group+"/"+extension.Version)
		if err != nil {
			t.Errorf("%+v: %v", server, err)
			continue
		}
		code, got := ask(t, c, place)
		if code != http.StatusOK || !strings.Contains(got, "The colour of the ripe fruit.") || !strings.Contains(got, "#/components/schemas/") {
			t.Errorf("%+v: %s: %d %s", server, place, code, got)
		}
		if code, got := ask(t, c, "/openapi/v2"); code != http.StatusOK || !strings.Contains(got, "The colour of the ripe fruit.") ||
			!strings.Contains(got, "io.k8s.api.apps.v1.Deployment") || !strings.Contains(got, "/namespaces/{namespace}/fruits") {
			t.Errorf("%+v: v2: %d", server, code)
		}
	}
}

// place returns where an OpenAPI v3 document is.
func place(t *testing.T, c *kajitest.Cluster, name string) (string, error) {
	t.Helper()
	_, got := ask(t, c, "/openapi/v3")
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal([]byte(got), &index); err != nil {
		return "", err
	}
	if index.Paths[name].URL == "" {
		return "", errors.New("the index has no " + name)
	}
	return index.Paths[name].URL, nil
}

// Components in the server's own process reach what another server has, like
// those over HTTP: by verbs and by informers.
func TestInProcess(t *testing.T) {
	c := kajitest.Start(t)
	register(t, c, serve(t, &extension.Server{}))
	eventually(t, "Available", func() bool { return condition(t, c, fruits).Status == apiregistrationv1.ConditionTrue })
	gvr := schema.GroupVersionResource{Group: extension.Group, Version: extension.Version, Resource: "fruits"}
	in := client.Resource{GroupVersionResource: gvr, Namespace: "default"}
	informer := c.Client().Informer(gvr, client.InformerOptions{Metadata: true})
	fruit := func(name string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": extension.Group + "/" + extension.Version, "kind": "Fruit", "metadata": map[string]any{"name": name}, "spec": map[string]any{"color": "red"},
		}}
	}
	for _, name := range []string{"apple", "cherry"} {
		if _, err := c.Client().Create(t.Context(), in, "", fruit(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the informer has both", func() bool { return len(informer.GetStore().List()) == 2 })
	if err := c.Client().Delete(t.Context(), in, "apple", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the informer has one", func() bool { return len(informer.GetStore().List()) == 1 })
	list, err := c.Client().List(t.Context(), in, metav1.ListOptions{})
	if err != nil || meta.LenList(list) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
	if _, err := c.Client().Get(t.Context(), in, "apple", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("one that is gone: %v", err)
	}
}
