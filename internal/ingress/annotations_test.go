// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/ingress/annotation"
)

func nginx(pairs ...string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		out[annotation.Nginx+pairs[i]] = pairs[i+1]
	}
	return out
}

// name returns the name of the backend in an answer of echo.
func (r reply) name() string {
	name, _, _ := strings.Cut(r.body, " ")
	return name
}

// A canary takes requests by header, by cookie and by chance, and nothing
// without the Ingress it belongs to.
func TestCanary(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", echo("main"))
	w.pod("10.0.0.2:8080", echo("canary"))
	w.service("app", "10.0.0.1")
	w.service("next", "10.0.0.2")
	w.ingress("app", nil, nil)
	w.ingress("next", nginx("canary", "true", "canary-by-header", "X-Next", "canary-by-cookie", "next", "canary-weight", "50"), func(i *networkingv1.Ingress) {
		i.Spec.Rules[0].Host = "app.test"
	})
	w.reaches("http://app.test/", 200)
	until(t, "a request goes to the canary", func() bool { return w.get("http://app.test/", "X-Next", "always").name() == "canary" })
	for range 5 {
		if got := w.get("http://app.test/", "X-Next", "always", "Cookie", "next=never"); got.name() != "canary" {
			t.Fatalf("the header always is not obeyed: %q", got.body)
		}
		if got := w.get("http://app.test/", "Cookie", "next=never"); got.name() != "main" {
			t.Fatalf("the cookie never is not obeyed: %q", got.body)
		}
	}
	seen := map[string]bool{}
	until(t, "both have their share", func() bool { seen[w.get("http://app.test/").name()] = true; return seen["main"] && seen["canary"] })
	if got := w.get("http://next.test/", "X-Next", "always"); got.status != 404 {
		t.Errorf("a canary alone is served: %d", got.status)
	}
}

// The server for authentication decides, by status, and tells the backend who asks.
func TestExternalAuthentication(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, r.Header.Get("X-User"), r.Header.Get("X_user"))
	}))
	w.pod("10.0.0.9:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer good":
			rw.Header().Set("X-User", "zoe of "+r.Header.Get("X-Original-Url")+" "+r.Method)
		case "":
			rw.Header().Set("WWW-Authenticate", "Bearer")
			rw.WriteHeader(401)
		case "Bearer broken":
			rw.WriteHeader(500)
		default:
			rw.WriteHeader(403)
		}
	}))
	w.service("auth", "10.0.0.9")
	for _, name := range []string{"app", "sign"} {
		w.service(name, "10.0.0.1")
	}
	w.ingress("app", nginx("auth-url", "http://auth.default.svc.cluster.local/check", "auth-response-headers", "X-User"), nil)
	w.ingress("sign", nginx("auth-url", "http://auth.default.svc/check", "auth-signin", "https://login.test/start?x=1"), nil)
	w.reaches("http://app.test/", 401)
	got := w.get("http://app.test/a?b=1", "Authorization", "Bearer good", "X-User", "root", "X_User", "root")
	if got.status != 200 || got.body != "zoe of http://app.test/a?b=1 GET" {
		t.Errorf("with a good token: %d %q", got.status, got.body)
	}
	for header, want := range map[string]int{"": 401, "Bearer bad": 403, "Bearer broken": 500} {
		if got := w.get("http://app.test/", "Authorization", header, "X-User", "root"); got.status != want || got.body == "root" {
			t.Errorf("%q: %d %q, want %d", header, got.status, got.body, want)
		}
	}
	w.reaches("http://sign.test/", 302)
	if got := w.get("http://sign.test/a?b=1"); got.header.Get("Location") != "https://login.test/start?x=1&rd=http%3A%2F%2Fsign.test%2Fa%3Fb%3D1" {
		t.Errorf("sent to %q", got.header.Get("Location"))
	}
}

func TestLimitConnections(t *testing.T) {
	w := newWorld(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			arrived <- struct{}{}
			<-release
		}
	}))
	for _, name := range []string{"app", "free"} {
		w.service(name, "10.0.0.1")
	}
	w.ingress("app", nginx("limit-connections", "1"), nil)
	w.ingress("free", nginx("limit-connections", "1", "limit-whitelist", "127.0.0.0/8"), nil)
	w.reaches("http://app.test/", 200)
	w.reaches("http://free.test/", 200)
	for _, one := range []struct {
		host   string
		second int
	}{{"app", 503}, {"free", 200}} {
		first := make(chan int)
		go func() { first <- w.get("http://" + one.host + ".test/wait").status }()
		<-arrived
		if got := w.get("http://" + one.host + ".test/"); got.status != one.second {
			t.Errorf("%s: a second request is answered %d, want %d", one.host, got.status, one.second)
		}
		release <- struct{}{}
		if got := <-first; got != 200 {
			t.Errorf("%s: the first is answered %d", one.host, got)
		}
	}
	w.reaches("http://app.test/", 200)
}

// Where a backend has no endpoints its substitute answers; aliases share rules.
func TestSubstituteAndAlias(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", echo("spare"))
	w.service("app")
	w.service("spare", "10.0.0.1")
	w.ingress("app", nginx("default-backend", "spare", "server-alias", "other.test, *.more.test", "x-forwarded-prefix", "/x"), nil)
	for _, host := range []string{"app.test", "other.test", "a.more.test"} {
		if got := w.reaches("http://"+host+"/", 200); got.name() != "spare" {
			t.Errorf("%s: %q", host, got.body)
		}
	}
}

// backend makes a Service whose pod does TLS itself, with a certificate for a
// name, and gives back the line it gets.
func (w *world) backend(t *testing.T, service, address, name string) {
	t.Helper()
	chain, key := pair(t, name)
	certificate, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				line, _ := bufio.NewReader(conn).ReadString('\n')
				_, _ = io.WriteString(conn, "got "+line)
			}()
		}
	}()
	w.mu.Lock()
	w.pods[address+":8080"] = l.Addr().String()
	w.mu.Unlock()
	w.service(service, address)
}

// TLS is the backend's own business where it is passed through.
func TestPassthrough(t *testing.T) {
	w := newWorld(t)
	w.backend(t, "app", "10.0.0.1", "pod")
	w.ingress("app", nginx("ssl-passthrough", "true"), nil)
	until(t, "the pod's certificate", func() bool { return w.shown("app.test") == "pod" })
	if got := w.shown("other.test"); got == "pod" {
		t.Error("another host is passed through")
	}
	conn, err := tls.Dial("tcp", w.at(true), &tls.Config{ServerName: "app.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(conn); err != nil || string(all) != "got hello\n" {
		t.Errorf("%q, %v", all, err)
	}
}

// What must not be understood in two ways is refused, and nobody can hold a
// connection without saying anything.
func TestHostileRequests(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", echo("a"))
	w.pod("10.0.0.2:8080", echo("secret"))
	w.service("app", "10.0.0.1")
	w.service("admin", "10.0.0.2")
	w.ingress("app", nil, nil)
	w.ingress("admin", nginx("whitelist-source-range", "10.0.0.0/8"), func(i *networkingv1.Ingress) {
		i.Spec.Rules[0].Host = "app.test"
		i.Spec.Rules[0].HTTP.Paths[0].Path = "/admin"
	})
	w.reaches("http://app.test/", 200)
	w.reaches("http://app.test/admin", 403)
	for request, want := range map[string]string{
		"GET /admin/../admin HTTP/1.1\r\nHost: app.test\r\n\r\n":                                                                       "403",
		"GET //admin HTTP/1.1\r\nHost: app.test\r\n\r\n":                                                                               "403",
		"GET /%61dmin HTTP/1.1\r\nHost: app.test\r\n\r\n":                                                                              "403",
		"GET /x/%2e%2e/admin HTTP/1.1\r\nHost: app.test\r\n\r\n":                                                                       "403",
		"GET / HTTP/1.1\r\nHost: app.test\r\nHost: other.test\r\n\r\n":                                                                 "400",
		"GET / HTTP/1.1\r\n\r\n":                                                                                                       "400",
		"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello":                                     "400",
		"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n":                                            "501",
		"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n":                                            "400",
		"GET / HTTP/1.1\r\nHost: app.test\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n":                                           "431",
		"GET / HTTP/1.1\r\nHost: app.test\r\nX: a\r\n b\x00\r\n\r\n":                                                                   "400",
		"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n": "200",
	} {
		conn, err := net.Dial("tcp", w.at(false))
		if err != nil {
			t.Fatal(err)
		}
		// A server that refuses may close before it has read everything.
		_, _ = io.WriteString(conn, request)
		line, _ := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(line, "HTTP/1.1 "+want) {
			t.Errorf("%.90q is answered %q, want %s", request, line, want)
		}
		conn.Close()
	}
}

// Bodies pass as they come: an event is seen before the next is sent, and an
// upload of any size takes no memory.
func TestStreams(t *testing.T) {
	w := newWorld(t)
	more := make(chan struct{})
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(rw, n, err)
			return
		}
		rw.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(rw, "data: %d\n\n", i)
			_ = http.NewResponseController(rw).Flush()
			select {
			case <-more:
			case <-r.Context().Done():
				return
			}
		}
	}))
	w.service("app", "10.0.0.1")
	w.ingress("app", nil, nil)
	until(t, "the Ingress is served", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://app.test/", nil)
		return err == nil && w.do(r).status == 200
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://app.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := w.client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	for i := range 3 {
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		more <- struct{}{}
	}
	const size = 64 << 20
	for _, scheme := range []string{"http", "https"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, scheme+"://app.test/", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.do(r); got.body != fmt.Sprint(size, " ", nil) && got.body != fmt.Sprint(size, nil) {
			t.Errorf("an upload by %s arrives as %q", scheme, got.body)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A wildcard covers one label, for certificates as for rules.
func TestWildcardCertificate(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", echo("a"))
	w.service("app", "10.0.0.1")
	chain, key := pair(t, "one")
	create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cert"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": chain, "tls.key": key}})
	w.ingress("app", nil, func(i *networkingv1.Ingress) {
		i.Spec.Rules[0].Host = "*.app.test"
		i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"*.app.test"}, SecretName: "cert"}}
	})
	until(t, "the certificate of the wildcard", func() bool { return w.shown("x.app.test") == "one" })
	if got := w.shown("x.y.app.test"); got == "one" {
		t.Error("a wildcard covers two labels")
	}
}

// Where there are more nodes, they may read the Secrets that are referred to,
// and no longer than that.
func TestOtherNodesReadSecrets(t *testing.T) {
	w := newWorld(t)
	create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}})
	w.service("app")
	ing := w.ingress("app", nil, func(i *networkingv1.Ingress) {
		i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"app.test"}, SecretName: "b"}, {Hosts: []string{"x.test"}, SecretName: "a"}}
	})
	roles := client.For[*rbacv1.Role](w.api)
	until(t, "the Role", func() bool {
		r, err := roles.Get(t.Context(), "default", grantName)
		return err == nil && len(r.Rules) == 1 && slices.Equal(r.Rules[0].ResourceNames, []string{"a", "b"})
	})
	until(t, "its binding to the nodes", func() bool {
		b, err := client.For[*rbacv1.RoleBinding](w.api).Get(t.Context(), "default", grantName)
		return err == nil && b.RoleRef.Name == grantName && len(b.Subjects) == 1 && b.Subjects[0].Name == "system:nodes"
	})
	if err := client.For[*networkingv1.Ingress](w.api).Delete(t.Context(), "default", ing.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the Role goes with the Ingress", func() bool {
		_, err := roles.Get(t.Context(), "default", grantName)
		return apierrors.IsNotFound(err)
	})
}
