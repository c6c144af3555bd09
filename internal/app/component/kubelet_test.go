// SPDX-License-Identifier: Apache-2.0

package component_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"kaji/internal/app/component"
	"kaji/internal/client"
	"kaji/internal/cri/serve"
	"kaji/internal/kubelet/flags"
	"kaji/internal/kubelet/memcri"
	"kaji/kajitest"
)

// run runs something until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func kubeconfig(t *testing.T, path string, c *rest.Config) string {
	t.Helper()
	k := clientcmdapi.NewConfig()
	k.Clusters["c"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	k.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: c.BearerToken}
	k.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	k.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*k, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// loopback is an address that nothing else on the machine listens at.
func loopback() string { return fmt.Sprintf("127.77.%d.%d", os.Getpid()>>8&0xff, os.Getpid()&0xff) }

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

const (
	kubeletFile = `
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
port: 26999
healthzBindAddress: %[1]s
healthzPort: 26998
readOnlyPort: 26997
staticPodPath: %[2]s/static
podLogsDir: %[2]s/logs
containerRuntimeEndpoint: unix://%[2]s/cri.sock
cgroupsPerQOS: false
enforceNodeAllocatable: [none]
failSwapOn: false
maxPods: 50
evictionHard: {memory.available: 1Mi}
registerWithTaints: [{key: own, value: "1", effect: PreferNoSchedule}]
`
	staticPod = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec: {containers: [{name: c, image: i}]}
`
)

// The node agent alone joins an API server over HTTPS with upstream's files and
// flags, and runs static and assigned pods through the socket of a runtime.
func TestKubelet(t *testing.T) {
	cluster, dir, ip := kajitest.Start(t), t.TempDir(), loopback()
	runtime := memcri.New(memcri.Config{})
	socket, err := serve.New(serve.Config{Path: dir + "/cri.sock", Runtime: runtime, Images: runtime})
	if err != nil {
		t.Fatal(err)
	}
	run(t, socket.Run)
	write(t, dir+"/static/web.yaml", staticPod)
	args := []string{"--config=" + write(t, dir+"/kubelet.yaml", fmt.Sprintf(kubeletFile, ip, dir)), "--config-dir=" + filepath.Dir(write(t, dir+"/conf/10.conf",
		"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 40\npodsPerCore: 0\n")),
		"--kubeconfig=" + kubeconfig(t, dir+"/kubeconfig", cluster.RESTConfig()), "--hostname-override=n1", "--node-ip=192.0.2.7", "--node-labels=a=b",
		"--root-dir=" + dir + "/root", "--cert-dir=" + dir + "/pki", "--max-pods=30"}
	o := flags.New()
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return component.Kubelet(ctx, o, args, slog.New(slog.DiscardHandler)) })

	nodes, pods := client.For[*corev1.Node](cluster.Client()), client.For[*corev1.Pod](cluster.Client())
	var node *corev1.Node
	wait(t, "the node", func() bool { node, err = nodes.Get(t.Context(), "", "n1"); return err == nil })
	if node.Status.Capacity.Pods().Value() != 30 || node.Labels["a"] != "b" || node.Status.Addresses[0].Address != "192.0.2.7" ||
		node.Status.DaemonEndpoints.KubeletEndpoint.Port != 26999 || !strings.Contains(fmt.Sprint(node.Spec.Taints), "own") {
		t.Errorf("the node is %+v %+v", node.Spec, node.Status)
	}
	assigned := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "assigned"},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if _, err := pods.Create(t.Context(), assigned); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web-n1", "assigned"} {
		wait(t, "pod "+name, func() bool {
			pod, err := pods.Get(t.Context(), "default", name)
			return err == nil && pod.Status.Phase == corev1.PodRunning
		})
	}
	asks(t, ip)
}

// asks asks the agent's ports.
func asks(t *testing.T, ip string) {
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // self-signed
	defer web.CloseIdleConnections()
	for _, q := range []struct {
		url, token string
		code       int
		body       string
	}{
		{"http://" + ip + ":26998/healthz", "", 200, "ok"},
		{"http://" + ip + ":26998/pods", "", 404, ""},
		{"http://" + ip + ":26997/pods", "", 200, `"name":"assigned"`},
		{"http://" + ip + ":26997/run/default/assigned/c", "", 404, ""},
		{"https://" + ip + ":26999/pods", "", 401, "Unauthorized"},
		{"https://" + ip + ":26999/configz", "admin", 200, `"maxPods":30`},
		{"https://" + ip + ":26999/flagz", "admin", 200, "\nmax-pods:30\n"},
		{"https://" + ip + ":26999/statusz", "admin", 200, "kubelet statusz"},
		{"https://" + ip + ":26999/metrics", "admin", 200, "\nrest_client_requests_total{code=\"200\","},
		{"https://" + ip + ":26999/metrics", "admin", 200, "\nkubernetes_feature_enabled{name=\"MemoryQoS\",stage=\"BETA\"} 1\n"},
		{"https://" + ip + ":26999/metrics", "admin", 200, "\nkubelet_mirror_pods 1\n"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, q.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if q.token != "" {
			r.Header.Set("Authorization", "Bearer "+q.token)
		}
		answer, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != q.code || !strings.Contains(string(body), q.body) {
			t.Errorf("%s with %q: %d %.300s (%v), want %d %s", q.url, q.token, answer.StatusCode, body, err, q.code, q.body)
		}
	}
}

// Without an API server the agent runs static pods and answers for itself.
func TestKubeletAlone(t *testing.T) {
	dir, ip := t.TempDir(), loopback()
	runtime := memcri.New(memcri.Config{})
	socket, err := serve.New(serve.Config{Path: dir + "/cri.sock", Runtime: runtime, Images: runtime})
	if err != nil {
		t.Fatal(err)
	}
	run(t, socket.Run)
	write(t, dir+"/static/web.yaml", staticPod)
	args := []string{"--config=" + write(t, dir+"/kubelet.yaml", fmt.Sprintf(strings.ReplaceAll(kubeletFile, "2699", "2698"), ip, dir)+
		"authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}\nauthorization: {mode: AlwaysAllow}\n"),
		"--hostname-override=n1", "--node-ip=192.0.2.7", "--root-dir=" + dir + "/root", "--cert-dir=" + dir + "/pki"}
	o := flags.New()
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return component.Kubelet(ctx, o, args, slog.New(slog.DiscardHandler)) })
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // self-signed
	defer web.CloseIdleConnections()
	wait(t, "the static pod", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+ip+":26989/pods", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := web.Do(r)
		if err != nil {
			return false // it does not listen yet
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return err == nil && strings.Contains(string(body), `"name":"web-n1"`) && strings.Contains(string(body), `"phase":"Running"`)
	})
}

func TestKubeletRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"no client provided, cannot use webhook authentication":                                               {"--fail-swap-on=false", "--authentication-token-webhook", "--container-runtime-endpoint=unix:///nowhere"},
		`failed to load kubelet config file, path: /nowhere, error: open /nowhere: no such file or directory`: {"--config=/nowhere"},
		"invalid configuration: port (--port) 0 must be between 1 and 65535, inclusive":                       {"--port=0"},
		`unknown cloud provider "aws"`: {"--fail-swap-on=false", "--kubeconfig=/x", "--cloud-provider=aws"},
	} {
		o := flags.New()
		fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
		o.AddFlags(fs)
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		if err := component.Kubelet(t.Context(), o, args, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}
